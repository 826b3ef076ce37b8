"""Samplers: no point twice, the same points after a resume, the same points for a seed."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from besom.errors import ConfigError, SpaceError
from besom.options import PRUNERS, SAMPLERS
from besom.samplers import DistinctSampler, GridSampler, PointSampler, sampler_for_point
from besom.space import Space, parse

optuna.logging.set_verbosity(optuna.logging.WARNING)

SMALL = parse({"a": "choice(x,y,z)", "b": "range(3)", "c": "range(0.1,0.35,0.1)"})[0]
LARGE = parse(
    {"f": "choice(3,8,16)", "n": "range(1,20)", "lr": "tag(log,interval(1e-4,1e-1))", "m": "range(0,1,0.05)"}
)[0]


class Stubborn(BaseSampler):
    """Proposes the same point for ever, and takes no seed."""

    def __init__(self, point: Mapping[str, Any]) -> None:
        self.point = point
        self.asked = 0
        self.told = 0

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: Any) -> dict[str, Any]:
        self.asked += 1
        return {}

    def sample_independent(self, study: optuna.Study, trial: FrozenTrial, name: str, distribution: Any) -> Any:
        assert name not in trial.params
        return self.point[name]

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        self.told += 1


def score(params: Mapping[str, Any]) -> float:
    """A cheap objective that every parameter moves."""
    return sum(math.log(value) if key == "lr" else float(len(str(value))) * 0.1 for key, value in params.items())


def run(study: optuna.Study, space: Space, n: int, config: Mapping[str, Any] | str, seed: int = 7) -> list[str]:
    """Ask and tell until the study has ``n`` trials; return the keys of all its points."""
    config = SAMPLERS[config] if isinstance(config, str) else config
    for index in range(len(study.trials), n):
        seen = {space.key(trial.params) for trial in study.trials}
        study.sampler = sampler_for_point(config, space=space, seen=seen, study_seed=seed, index=index)
        trial = study.ask(dict(space.params))
        study.tell(trial, score(trial.params))
    return [space.key(trial.params) for trial in study.trials]


@pytest.mark.parametrize("config", ["tpe", "random", "grid", {"_target_": "optuna.samplers.NSGAIISampler"}], ids=str)
def test_every_point_of_a_small_space_is_proposed_exactly_once(config: Any) -> None:
    keys = run(optuna.create_study(), SMALL, 27, config)
    assert sorted(map(int, keys)) == list(range(27))


def test_the_grid_goes_through_its_unseen_points_in_row_major_order() -> None:
    study = optuna.create_study()
    run(study, SMALL, 4, "random")
    taken = [SMALL.key(trial.params) for trial in study.trials]
    keys = run(study, SMALL, 27, "grid")
    assert keys[4:] == [str(index) for index in range(27) if str(index) not in taken]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_resumed_study_equals_the_uninterrupted_one(sampler: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    run(optuna.create_study(storage=url, study_name="s"), LARGE, 13, sampler)
    resumed = run(optuna.load_study(storage=url, study_name="s"), LARGE, 30, sampler)
    assert resumed == run(optuna.create_study(), LARGE, 30, sampler)
    assert len(set(resumed)) == 30


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_points_follow_the_seed(sampler: str) -> None:
    one, same, other = (run(optuna.create_study(), SMALL, 15, sampler, seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_tpe_still_learns_behind_the_wrapper() -> None:
    space = parse({"x": "range(0,100)", "y": "range(0,100)"})[0]
    study = optuna.create_study()
    distances = []
    for index in range(60):
        seen = {space.key(trial.params) for trial in study.trials}
        study.sampler = sampler_for_point(SAMPLERS["tpe"], space=space, seen=seen, study_seed=0, index=index)
        trial = study.ask(dict(space.params))
        distances.append(math.dist((trial.params["x"], trial.params["y"]), (70, 30)))
        study.tell(trial, distances[-1])
    assert np.mean(distances[-20:]) < 0.5 * np.mean(distances[:20])


def test_parameters_of_one_value_keep_it_and_their_type() -> None:
    space = parse({"only": "choice('1')", "n": "range(3,4)", "s": "interval(2,2)", "a": "1,2"})[0]
    study = optuna.create_study()
    run(study, space, 2, "tpe")
    params = sorted((trial.params for trial in study.trials), key=lambda point: point["a"])
    assert params == [{"only": "1", "n": 3, "s": 2.0, "a": a} for a in (1, 2)]
    assert all(isinstance(point["n"], int) for point in params)


def test_float_steps_are_stored_in_decimal() -> None:
    study = optuna.create_study()
    run(study, SMALL, 27, "tpe")
    assert {trial.params["c"] for trial in study.trials} == {0.1, 0.2, 0.3}


def test_a_running_trial_is_not_proposed_again() -> None:
    study = optuna.create_study()
    run(study, SMALL, 20, "tpe")
    seen = {SMALL.key(trial.params) for trial in study.trials}
    for index in range(20, 27):
        study.sampler = sampler_for_point(SAMPLERS["tpe"], space=SMALL, seen=seen, study_seed=7, index=index)
        key = SMALL.key(study.ask(dict(SMALL.params)).params)
        assert key not in seen
        seen.add(key)


def ask(sampler: BaseSampler, space: Space) -> dict[str, Any]:
    return dict(optuna.create_study(sampler=sampler).ask(dict(space.params)).params)


def test_a_sampler_that_only_repeats_itself_is_asked_again_and_then_replaced() -> None:
    inner = Stubborn(SMALL.point(0))
    points = [
        ask(DistinctSampler(inner, SMALL, {"0"}, np.random.default_rng(seed), redraws=3), SMALL) for seed in (5, 5, 6)
    ]
    assert points[0] == points[1] != points[2]
    assert SMALL.point(0) not in points
    assert inner.asked == 3 * 4


def test_a_repeat_in_an_infinite_space_is_replaced_too() -> None:
    space = parse({"x": "interval(0,1)", "a": "1,2"})[0]
    inner = Stubborn({"x": 1.0, "a": 2})
    assert ask(DistinctSampler(inner, space, set(), np.random.default_rng(0)), space) == {"x": 1.0, "a": 2}
    moved = ask(DistinctSampler(inner, space, {space.key(inner.point)}, np.random.default_rng(0)), space)
    assert 0 <= moved["x"] < 1


def test_what_the_study_tells_reaches_the_inner_sampler() -> None:
    inner = Stubborn(SMALL.point(0))
    study = optuna.create_study(sampler=DistinctSampler(inner, SMALL, set(), np.random.default_rng(0)))
    study.tell(study.ask(dict(SMALL.params)), 1.0)
    assert inner.told == 1


def test_a_used_up_space_is_refused() -> None:
    seen = {str(index) for index in range(27)}
    for sampler in (GridSampler(SMALL, seen), DistinctSampler(RandomSampler(), SMALL, seen, np.random.default_rng(0))):
        with pytest.raises(SpaceError, match="all 27 points of the search space were tried"):
            ask(sampler, SMALL)


def test_a_grid_over_an_infinite_space_is_refused() -> None:
    with pytest.raises(SpaceError, match="the search space is infinite because of lr"):
        sampler_for_point(SAMPLERS["grid"], space=LARGE, seen=set(), study_seed=0, index=0)


def test_a_given_point_is_proposed_as_it_is() -> None:
    assert ask(PointSampler(SMALL, {"a": "z", "b": 2.0, "c": 0.1 * 3}), SMALL) == {"a": "z", "b": 2, "c": 0.3}
    with pytest.raises(SpaceError, match="b=7 is outside the search space; expected an integer from 0 to 2"):
        PointSampler(SMALL, {"a": "z", "b": 7, "c": 0.1})


def test_a_parameter_that_is_not_in_the_space_is_refused() -> None:
    study = optuna.create_study(sampler=GridSampler(SMALL, set()))
    with pytest.raises(SpaceError, match="z is not in the search space; expected one of a, b, c"):
        study.ask({"z": optuna.distributions.IntDistribution(1, 3)})


def test_a_sampler_without_a_seed_and_one_inside_another_are_built() -> None:
    config = {
        "_target_": "optuna.samplers.PartialFixedSampler",
        "fixed_params": {"a": "y"},
        "base_sampler": {"_target_": "optuna.samplers.RandomSampler", "seed": 3},
    }
    with pytest.warns(optuna.exceptions.ExperimentalWarning, match="PartialFixedSampler is experimental"):
        samplers = [sampler_for_point(config, space=SMALL, seen=set(), study_seed=0, index=0) for _ in range(2)]
    points = [ask(sampler, SMALL) for sampler in samplers]
    assert points[0]["a"] == "y"
    assert points[0] == points[1]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_target_": "optuna.samplers.TPESamplr"}, "does not exist; .*optuna.samplers; did you mean 'TPESampler'"),
        ({"_target_": "optuna.smaplers.TPESampler"}, "cannot be imported .*expected a sampler's dotted name"),
        ({"_target_": "TPESampler"}, "_target_='TPESampler' cannot be imported"),
        ({"seed": 1}, "_target_='None' cannot be imported"),
        (
            {"_target_": "optuna.samplers.TPESampler", "n_startup": 3},
            "the argument='n_startup' is not known; .*did you",
        ),
        ({"_target_": "optuna.samplers.NSGAIISampler", "population_size": 1}, "NSGAIISampler refuses its arguments: "),
        (
            {"_target_": "optuna.samplers.PartialFixedSampler", "fixed_params": {}},
            "refuses its arguments: .*base_sampler",
        ),
        ({"_target_": "optuna.pruners.MedianPruner"}, "MedianPruner is a MedianPruner; expected an Optuna sampler"),
        ({"_target_": "builtins.int"}, "builtins.int refuses its arguments: no signature found"),
        ({"_target_": "optuna.samplers.GridSampler"}, "stops the study by itself; expected hydra/sweeper/sampler=grid"),
        ({"_target_": "besom.samplers.GridSampler", "order": 1}, "the argument='order' is not known"),
    ],
)
@pytest.mark.filterwarnings("ignore:PartialFixedSampler is experimental")
def test_a_sampler_that_cannot_be_built_is_refused_in_one_line(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        sampler_for_point(config, space=SMALL, seen=set(), study_seed=0, index=0)
    assert "\n" not in str(caught.value)


def build(config: Mapping[str, Any]) -> Any:
    module, _, name = config["_target_"].rpartition(".")
    factory: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return factory(**{key: value for key, value in config.items() if key != "_target_"})


def test_the_named_options_are_optunas_own_defaults() -> None:
    for name, default in (("tpe", optuna.samplers.TPESampler()), ("random", RandomSampler())):
        ours = vars(build(SAMPLERS[name]))
        plain = {key: value for key, value in vars(default).items() if isinstance(value, bool | int | float | None)}
        assert {key: ours[key] for key in plain} == plain
    assert vars(build(PRUNERS["median"])) == vars(optuna.pruners.MedianPruner())
    assert PRUNERS["none"] == {}
