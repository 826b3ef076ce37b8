"""A custom search space: rehearsed until it gives a new point, replayed by the trial, mistakes told in one line."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import optuna
import pytest
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from besom.errors import ConfigError
from besom.options import SAMPLERS
from besom.search import custom_space
from besom.search.custom_space import CustomSpace, UsedUp, key_of, load
from besom.search.distinct import PointSampler
from besom.search.samplers import sampler_for_point
from besom.search.space import Space, parse

optuna.logging.set_verbosity(optuna.logging.WARNING)

CONFIG = OmegaConf.create({"reach": 0.3, "deep": {"n": 2}})
PLANE = parse({"x": "interval(-5,5)", "y": "range(-5,6)"})[0]
TWO = parse({"a": "1,2"})[0]
NOTHING = Space({})


def near_x(config: DictConfig, trial: Trial) -> None:
    """As the official sweeper's example has it: z is near x, and w is in no config."""
    x = trial.params["x"]
    trial.suggest_float("z", x - config.reach, x + config.reach)
    trial.suggest_float("+w", 0.0, 1.0)


def deeper(config: DictConfig, trial: Trial) -> None:
    """Suggests more where it has drawn more."""
    for layer in range(trial.suggest_int("depth", 1, 3)):
        trial.suggest_categorical(f"layer.{layer}", ["a", "b"])


def every_kind(config: DictConfig, trial: Trial) -> None:
    trial.set_user_attr("number", trial.number)
    trial.suggest_float("step", 0.1, 0.5, step=0.1)
    trial.suggest_float("log", 1e-3, 1.0, log=True)
    trial.suggest_int("n", 2, 8, step=2)
    trial.suggest_int("one", 4, 4)
    trial.suggest_categorical("word", ["a,b", None, True, 1.5])
    trial._suggest("own", IntDistribution(1, 9))
    assert trial.suggest_int("n", 2, 8, step=2) == trial.params["n"]
    assert set(trial.distributions) >= {"step", "log", "n", "word", "own"}
    assert trial.user_attrs["number"] == trial.number
    assert trial.datetime_start is not None
    assert set(trial.relative_params) <= set(trial.params)
    trial.report(1.0, 0)
    assert not trial.should_prune()
    trial.set_constraint("small", -1.0)
    assert set(trial.constraints) <= {"small"}


def coin(config: DictConfig, trial: Trial) -> None:
    trial.suggest_categorical("side", ["heads", "tails"])


def numbers(config: DictConfig, trial: Trial) -> None:
    trial.suggest_float("u", 0, 1)
    trial.suggest_int("v", 1, 9)


def silent(config: DictConfig, trial: Trial) -> None:
    """Suggests nothing."""


class Sweep:
    """The life of a study as `besom.sweep.study` leads it."""

    def __init__(
        self, function: Callable[[DictConfig, Trial], object], space: Space, sampler: str = "tpe", **changed: Any
    ) -> None:
        self.config = {**SAMPLERS[sampler], **changed}
        self.space = space
        self.custom = load(f"{__name__}.{function.__name__}", CONFIG)
        self._open([])

    def _open(self, trials: Sequence[FrozenTrial]) -> None:
        self.study = optuna.create_study()
        self.study.add_trials(copy.deepcopy(trials))
        self.seen = {key_of(self.space, trial.params) for trial in trials}
        self.index = len({trial.user_attrs["point"] for trial in trials})

    def ask(self) -> tuple[Trial, dict[str, Any]]:
        plain = sampler_for_point(self.config, space=self.space, seen=self.seen, study_seed=3, index=self.index)
        return self.take(self.custom.wrap(plain), self.index)

    def take(self, sampler: optuna.samplers.BaseSampler, index: int) -> tuple[Trial, dict[str, Any]]:
        self.study.sampler = sampler
        trial = self.study.ask()
        point = self.space.suggest(trial) | self.custom.extend(trial, self.space)
        assert point == trial.params
        trial.set_user_attr("point", index)
        self.seen.add(key_of(self.space, point))
        self.index = max(self.index, index + 1)
        return trial, point

    def run(self, n: int, resumed_at: int | None = None, killed_at: int | None = None) -> list[dict[str, Any]]:
        while self.index < n:
            if self.index == resumed_at:
                self._open(self.study.trials)
            trial, point = self.ask()
            if self.index - 1 == killed_at:
                self.study.tell(trial, state=TrialState.FAIL)
                self._open(self.study.trials)
                lost = self.study.trials[-1]
                trial, again = self.take(PointSampler(self.space, lost.params, lost.system_attrs), self.index - 1)
                assert again == point
            self.study.tell(trial, sum(v for v in point.values() if isinstance(v, int | float)))
        return [trial.params for trial in self.study.get_trials(states=[TrialState.COMPLETE])]


def keys(points: Sequence[Mapping[str, Any]], space: Space) -> set[str]:
    return {key_of(space, point) for point in points}


def test_what_a_function_suggests_may_depend_on_the_point() -> None:
    points = Sweep(near_x, PLANE).run(20)
    assert all(set(point) == {"x", "y", "z", "+w"} for point in points)
    assert all(abs(point["x"] - point["z"]) <= CONFIG.reach for point in points)
    assert all(0 <= point["+w"] <= 1 for point in points)
    assert len(keys(points, PLANE)) == 20


@pytest.mark.parametrize(
    ("sampler", "changed"),
    [
        ("tpe", {"n_startup_trials": 3}),
        ("tpe", {"n_startup_trials": 3, "group": True}),
        ("random", {}),
        ("qmc", {}),
        ("nsgaii", {"population_size": 4}),
        pytest.param(
            "cmaes",
            {"popsize": 4},
            marks=pytest.mark.skipif(find_spec("cmaes") is None, reason="cmaes is not installed"),
        ),
    ],
)
@pytest.mark.parametrize(("function", "space"), [(near_x, PLANE), (numbers, NOTHING), (deeper, PLANE)])
def test_a_resumed_custom_space_equals_the_uninterrupted_one(
    function: Any, space: Space, sampler: str, changed: dict[str, Any]
) -> None:
    whole = Sweep(function, space, sampler, **changed).run(14)
    assert len(keys(whole, space)) == 14
    if sampler in {"tpe", "random"}:
        assert Sweep(function, space, sampler, **changed).run(14, resumed_at=5) == whole
        assert Sweep(function, space, sampler, **changed).run(14, killed_at=9) == whole


def test_every_kind_of_suggestion_is_rehearsed_and_replayed() -> None:
    sweep = Sweep(every_kind, NOTHING, "random")
    for point in sweep.run(8):
        assert point["step"] in {0.1, 0.2, 0.3, 0.4, 0.5}
        assert point["n"] in {2, 4, 6, 8}
        assert point["one"] == 4
        assert point["word"] in {"a,b", None, True, 1.5}
        assert 1 <= point["own"] <= 9
    assert [trial.user_attrs["number"] for trial in sweep.study.trials] == list(range(8))
    assert all(trial.constraints == {"small": -1.0} for trial in sweep.study.trials)


@pytest.mark.filterwarnings("ignore:suggest_.*uniform has been deprecated:FutureWarning")
def test_optunas_old_methods_are_rehearsed_too() -> None:
    def old(config: DictConfig, trial: Trial) -> None:
        trial.suggest_uniform("u", 0, 1)
        trial.suggest_loguniform("l", 1, 2)
        trial.suggest_discrete_uniform("d", 0, 1, 0.5)

    custom = CustomSpace("old", old, CONFIG)
    custom.check(PLANE)


@pytest.mark.parametrize(("space", "n"), [(TWO, 4), (NOTHING, 2)])
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_every_point_is_proposed_once_and_then_the_space_is_used_up(sampler: str, space: Space, n: int) -> None:
    sweep = Sweep(coin, space, sampler)
    assert len(keys(sweep.run(n), space)) == n
    with pytest.raises(UsedUp, match=r"coin gave no new point in 100 tries; the search space is used up"):
        sweep.ask()


def test_a_function_that_suggests_nothing_leaves_the_declared_space() -> None:
    assert len(keys(Sweep(silent, TWO).run(2), TWO)) == 2
    with pytest.raises(UsedUp, match="gave no new point"):
        Sweep(silent, TWO).run(3)


def test_a_sampler_learns_from_what_a_function_suggested() -> None:
    points = Sweep(numbers, NOTHING, n_startup_trials=5).run(40)
    sums = [point["u"] + point["v"] for point in points]
    assert np.mean(sums[-15:]) < 0.6 * np.mean(sums[:15])


def test_a_function_that_asks_for_something_else_on_the_trial_is_answered_all_the_same() -> None:
    calls = []

    def moody(config: DictConfig, trial: Trial) -> None:
        calls.append(trial)
        trial.suggest_int(f"n{len(calls)}", 1, 5)

    custom = CustomSpace("moody", moody, CONFIG)
    plain = sampler_for_point(SAMPLERS["random"], space=TWO, seen=set(), study_seed=3, index=0)
    trial = optuna.create_study(sampler=custom.wrap(plain)).ask()
    TWO.suggest(trial)
    assert set(custom.extend(trial, TWO)) == {"n2"}


def test_an_enqueued_point_gets_the_rest_from_the_sampler() -> None:
    sweep = Sweep(near_x, PLANE)
    inner = sweep.custom.wrap(sampler_for_point(sweep.config, space=PLANE, seen=set(), study_seed=3, index=0))
    _, point = sweep.take(PointSampler(PLANE, {"x": 1.0, "y": 2}, inner=inner), 0)
    assert (point["x"], point["y"]) == (1.0, 2)
    assert 0.7 <= point["z"] <= 1.3


def test_suggested_values_become_overrides_and_part_of_the_key() -> None:
    params = {"a": 2, "+w": 0.5, "word": "a,b", "off": None}
    values = custom_space.custom_values(TWO, params)
    assert values == {"+w": 0.5, "word": "a,b", "off": None}
    assert custom_space.overrides(values) == ["+w=0.5", "word='a,b'", "off=null"]
    assert key_of(TWO, params) == key_of(TWO, dict(reversed(params.items()))) == "1 +w=0.5 off=null word='a,b'"
    assert key_of(TWO, {"a": 2}) == TWO.key({"a": 2})


def doubled(config: DictConfig, trial: Trial) -> None:
    trial.suggest_int("y", 1, 2)


def plus_doubled(config: DictConfig, trial: Trial) -> None:
    trial.suggest_int("+y", 1, 2)


def broken(config: DictConfig, trial: Trial) -> None:
    raise KeyError(config.deep.n)


def incompatible(config: DictConfig, trial: Trial) -> None:
    trial.suggest_int("n", 1, 2)
    trial.suggest_categorical("n", ["a"])


@pytest.mark.parametrize(
    ("function", "fixed", "message"),
    [
        (doubled, [], r"Overlapping parameters: .*test_custom_space\.doubled suggests y, which is in the search space"),
        (plus_doubled, [], r"Overlapping parameters: .*plus_doubled suggests \+y, which is in the search space"),
        (near_x, ["z=3", "~b"], r"Overlapping parameters: .*near_x suggests z, which has a fixed value"),
        (near_x, ["++w=1"], r"Overlapping parameters: .*near_x suggests \+w, which has a fixed value"),
        (broken, [], r"custom_search_space=test_custom_space\.broken failed: KeyError: 2"),
        (incompatible, [], r"incompatible failed: ValueError: Cannot set different distribution kind"),
    ],
)
def test_a_function_that_cannot_be_used_is_told_before_the_first_trial(
    function: Any, fixed: list[str], message: str
) -> None:
    custom = load(f"{__name__}.{function.__name__}", CONFIG, fixed)
    with pytest.raises(ConfigError, match=message) as caught:
        custom.check(PLANE)
    assert "\n" not in str(caught.value)


def test_a_function_that_can_be_used_leaves_no_trace_when_it_is_tried() -> None:
    sweep = Sweep(near_x, PLANE)
    first = sweep.run(3)
    sweep.custom.check(PLANE)
    assert Sweep(near_x, PLANE).run(3) == first


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.such.function", r"hydra\.sweeper\.custom_search_space='no\.such\.function' cannot be imported"),
        (f"{__name__}.near_y", "has no function 'near_y'; did you mean 'near_x'"),
        ("near_x", "custom_search_space='near_x' cannot be imported"),
    ],
)
def test_a_name_that_cannot_be_imported_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(name, CONFIG)


@pytest.mark.parametrize("sampler", ["grid", "bruteforce"])
def test_a_walk_through_all_points_cannot_be_extended(sampler: str) -> None:
    with pytest.raises(
        ConfigError, match="Sampler cannot go through; expected another sampler than grid or bruteforce"
    ):
        Sweep(coin, TWO, sampler).ask()


def test_a_list_of_choices_that_changes_is_told_as_optuna_tells_it() -> None:
    def changing(config: DictConfig, trial: Trial) -> None:
        trial.suggest_categorical("c", ["a", "b"] if trial.number == 0 else ["u", "v"])

    custom = CustomSpace("changing", changing, CONFIG)
    study = optuna.create_study()
    config = {**SAMPLERS["tpe"], "n_startup_trials": 1}
    for index in range(2):
        study.sampler = custom.wrap(sampler_for_point(config, space=NOTHING, seen=set(), study_seed=3, index=index))
        trial = study.ask()
        if index == 1:
            with pytest.raises(ConfigError, match=r"changing failed: ValueError: '[ab]' not in"):
                custom.extend(trial, NOTHING)
        else:
            custom.extend(trial, NOTHING)
            study.tell(trial, 1.0)
