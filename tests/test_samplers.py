"""Samplers: no point twice, the same points after a resume, Optuna's own settings, mistakes told in one line."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import optuna
import pytest
from hydra import compose, initialize
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from besom.errors import ConfigError, SpaceError
from besom.options import SAMPLERS
from besom.search.distinct import DistinctSampler, PointSampler
from besom.search.exhaustive import BruteForceSampler, GridSampler
from besom.search.recent import RecentStudy
from besom.search.samplers import _log_once, motpe, sampler_for_point
from besom.search.space import Space, parse

optuna.logging.set_verbosity(optuna.logging.WARNING)

SMALL = parse({"a": "choice(x,y,z)", "b": "range(3)", "c": "range(0.1,0.35,0.1)"})[0]
FOUR = parse({"a": "choice(x,y)", "i": "tag(log,int(interval(1,2)))"})[0]
LOGS = parse({"i": "tag(log,int(interval(1,9)))", "j": "tag(log,int(interval(2,4)))"})[0]
LARGE = parse(
    {"f": "choice(3,8,16)", "n": "range(1,20)", "lr": "tag(log,interval(1e-4,1e-1))", "m": "range(0,1,0.05)"}
)[0]
NUMBERS = parse({"n": "range(1,20)", "lr": "tag(log,interval(1e-4,1e-1))", "i": "tag(log,int(interval(1,64)))"})[0]

POLYNOMIAL = "optuna.samplers.nsgaii.PolynomialMutation"

needs_cmaes = pytest.mark.skipif(find_spec("cmaes") is None, reason="cmaes is not installed")
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")


def option(name: str, **changed: Any) -> dict[str, Any]:
    return {**SAMPLERS[name], **changed}


CMAES = [
    pytest.param(option("cmaes", **changed), id=f"cmaes-{'-'.join(changed)}", marks=needs_cmaes)
    for changed in ({"popsize": 5}, {"with_margin": True, "popsize": 5}, {"use_separable_cma": True})
]
ALGORITHMS = [
    *(pytest.param(option(name), id=name) for name in ("tpe", "random", "qmc")),
    pytest.param(option("tpe", group=True, n_startup_trials=3), id="tpe-group"),
    pytest.param(option("tpe", multivariate=False, n_startup_trials=3), id="tpe-univariate"),
    pytest.param(option("qmc", scramble=True, qmc_type="halton"), id="qmc-scrambled"),
    pytest.param(option("nsgaii", population_size=6), id="nsgaii"),
    pytest.param(option("nsgaiii", population_size=6), id="nsgaiii"),
    *CMAES,
]
EXHAUSTIVE = [pytest.param(option(name), id=name) for name in ("grid", "bruteforce")]


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


class Sweep:
    """The life of a study as `besom.sweep.study` leads it: in memory, rebuilt from what is stored."""

    def __init__(
        self, config: Mapping[str, Any], space: Space, seed: int = 7, n_objectives: int = 1, history: int | None = None
    ) -> None:
        self.config, self.space, self.seed, self.history = config, space, seed, history
        self.directions = ["minimize", "maximize"][:n_objectives]
        self._open([], {})

    def _open(self, trials: Sequence[FrozenTrial], attributes: Mapping[str, Any]) -> None:
        self.storage = optuna.storages.InMemoryStorage()
        self.study = optuna.create_study(storage=self.storage, study_name="s", directions=self.directions)
        self.study.add_trials(trials)
        for key, value in attributes.items():
            self.storage.set_study_system_attr(0, key, value)
        self.seen = {self.space.key(trial.params) for trial in trials}
        self.index = len({trial.user_attrs["point"] for trial in trials})

    def stop_and_resume(self) -> None:
        """Throw everything away but what is stored, as text, with trials and study."""
        trials = copy.deepcopy(self.study.trials)
        for trial in trials:
            trial.system_attrs = json.loads(json.dumps(trial.system_attrs))
        self._open(trials, json.loads(json.dumps(self.storage.get_study_system_attrs(0))))

    def ask(self) -> Trial:
        sampler = sampler_for_point(
            self.config,
            space=self.space,
            seen=self.seen,
            study_seed=self.seed,
            index=self.index,
            history=self.history,
            n_objectives=len(self.directions),
        )
        return self._take(sampler, self.index)

    def _take(self, sampler: BaseSampler, index: int) -> Trial:
        self.study.sampler = sampler
        trial = self.study.ask()
        self.seen.add(self.space.key(self.space.suggest(trial)))
        trial.set_user_attr("point", index)
        self.index = max(self.index, index + 1)
        return trial

    def tell(self, trial: Trial) -> None:
        self.study.tell(trial, [score(trial.params), 3 - score(trial.params) ** 2][: len(self.directions)])

    def kill(self) -> None:
        """Lose a trial with its parent, and try its point again."""
        self.study.tell(self.ask(), state=TrialState.FAIL)
        self.stop_and_resume()
        lost = self.study.trials[-1]
        sampler = PointSampler(self.space, lost.params, lost.system_attrs)
        self.tell(self._take(sampler, lost.user_attrs["point"]))

    def run(self, n: int, resumed_at: Collection[int] = (), killed_at: Collection[int] = ()) -> list[str]:
        """Go on until there are ``n`` points; return their keys."""
        while self.index < n:
            if self.index in resumed_at:
                self.stop_and_resume()
            if self.index in killed_at:
                self.kill()
            else:
                self.tell(self.ask())
        return self.keys

    @property
    def keys(self) -> list[str]:
        trials = self.study.get_trials(states=[TrialState.COMPLETE])
        return [self.space.key(trial.params) for trial in trials]


def score(params: Mapping[str, Any]) -> float:
    """A cheap objective that every parameter moves."""
    return sum(math.log(value) if key == "lr" else float(len(str(value))) * 0.1 for key, value in params.items())


@pytest.mark.parametrize("space", [SMALL, FOUR, LOGS], ids=["27 points", "4 points", "27 points of log integers"])
@pytest.mark.parametrize("config", [*ALGORITHMS, *EXHAUSTIVE])
def test_every_point_of_a_small_space_is_proposed_exactly_once(config: Any, space: Space) -> None:
    if config.get("use_separable_cma") and space is FOUR:
        pytest.skip("one numeric parameter is nothing to separate, as Optuna says")
    assert space.size is not None
    keys = Sweep(config, space).run(space.size)
    assert sorted(map(int, keys)) == list(range(space.size))


@pytest.mark.parametrize("n_objectives", [1, 2])
@pytest.mark.parametrize("config", ALGORITHMS)
def test_a_resumed_study_equals_the_uninterrupted_one(config: Any, n_objectives: int) -> None:
    if n_objectives == 2 and ("CmaEs" in config["_target_"] or config.get("group")):
        pytest.skip("for one objective")
    whole = Sweep(config, LARGE, n_objectives=n_objectives).run(24)
    assert Sweep(config, LARGE, n_objectives=n_objectives).run(24, resumed_at=(1, 7, 13)) == whole
    assert Sweep(config, LARGE, n_objectives=n_objectives).run(24, killed_at=(0, 2, 6, 15)) == whole
    assert len(set(whole)) == 24


@pytest.mark.parametrize("config", EXHAUSTIVE)
def test_a_resumed_walk_through_all_points_equals_the_uninterrupted_one(config: Any) -> None:
    whole = Sweep(config, SMALL).run(27)
    assert Sweep(config, SMALL).run(27, resumed_at=(1, 13), killed_at=(0, 15, 26)) == whole


@needs_torch
def test_a_resumed_gaussian_process_equals_the_uninterrupted_one() -> None:
    config = option("gp", n_startup_trials=3)
    whole = Sweep(config, LARGE).run(7)
    assert Sweep(config, LARGE).run(7, resumed_at=(4,), killed_at=(5,)) == whole
    assert sorted(map(int, Sweep(config, FOUR).run(4))) == [0, 1, 2, 3]


def test_a_resumed_study_that_shows_its_last_trials_only_equals_the_uninterrupted_one() -> None:
    config = option("tpe", n_startup_trials=3)
    whole = Sweep(config, LARGE, history=5).run(20)
    assert Sweep(config, LARGE, history=5).run(20, resumed_at=(7,), killed_at=(2, 12)) == whole
    assert Sweep(config, LARGE).run(20) != whole


@pytest.mark.parametrize("name", ["tpe", "random", "nsgaii", "bruteforce"])
def test_the_points_follow_the_seed(name: str) -> None:
    one, same, other = (Sweep(option(name), SMALL, seed).run(15) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_the_grid_goes_through_its_unseen_points_in_row_major_order() -> None:
    sweep = Sweep(option("random"), SMALL)
    taken = sweep.run(4)
    sweep.config = option("grid")
    assert sweep.run(27)[4:] == [str(index) for index in range(27) if str(index) not in taken]


def test_brute_force_takes_its_points_in_no_order() -> None:
    keys = list(map(int, Sweep(option("bruteforce"), SMALL).run(27)))
    assert keys != sorted(keys)
    first = [Sweep(option("bruteforce"), FOUR, seed).run(1)[0] for seed in range(40)]
    assert set(first) == {"0", "1", "2", "3"}


def test_a_quasi_random_sweep_takes_the_points_of_optunas_own_sequence() -> None:
    with pytest.warns(optuna.exceptions.ExperimentalWarning, match="QMCSampler is experimental"):
        study = optuna.create_study(sampler=optuna.samplers.QMCSampler(seed=7))
    for _ in range(12):
        trial = study.ask(dict(NUMBERS.params))
        study.tell(trial, 0.0)
    plain = [NUMBERS.key(trial.params) for trial in study.trials]
    assert Sweep(option("qmc"), NUMBERS).run(12, resumed_at=(4, 5), killed_at=(8,)) == plain


@pytest.mark.parametrize("config", [option("tpe"), pytest.param(option("cmaes", popsize=6), marks=needs_cmaes)])
def test_a_sampler_still_learns_behind_the_wrapper(config: Mapping[str, Any]) -> None:
    space = parse({"x": "range(0,100)", "y": "range(0,100)"})[0]
    sweep = Sweep(config, space)
    distances = []
    for _ in range(60):
        trial = sweep.ask()
        distances.append(math.dist((trial.params["x"], trial.params["y"]), (70, 30)))
        sweep.study.tell(trial, distances[-1])
    assert np.mean(distances[-20:]) < 0.6 * np.mean(distances[:20])


def test_parameters_of_one_value_keep_it_and_their_type() -> None:
    space = parse({"only": "choice('1')", "n": "range(3,4)", "s": "interval(2,2)", "a": "1,2"})[0]
    sweep = Sweep(option("tpe"), space)
    sweep.run(2)
    params = sorted((trial.params for trial in sweep.study.trials), key=lambda point: point["a"])
    assert params == [{"only": "1", "n": 3, "s": 2.0, "a": a} for a in (1, 2)]
    assert all(isinstance(point["n"], int) for point in params)


def test_float_steps_are_stored_in_decimal() -> None:
    sweep = Sweep(option("tpe"), SMALL)
    sweep.run(27)
    assert {trial.params["c"] for trial in sweep.study.trials} == {0.1, 0.2, 0.3}


@pytest.mark.parametrize("config", ALGORITHMS)
def test_a_running_trial_is_not_proposed_again(config: Mapping[str, Any]) -> None:
    sweep = Sweep(config, SMALL)
    sweep.run(20)
    running = [SMALL.key(sweep.ask().params) for _ in range(7)]
    assert sorted(map(int, sweep.keys + running)) == list(range(27))


def ask(sampler: BaseSampler, space: Space) -> dict[str, Any]:
    return space.suggest(optuna.create_study(sampler=sampler).ask())


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


@needs_cmaes
def test_cma_es_with_margin_learns_nothing_from_a_point_that_it_did_not_propose() -> None:
    sweep = Sweep(option("cmaes", with_margin=True, popsize=4), SMALL)
    sweep.run(27)
    generations = [trial.system_attrs.get("cmawm:generation") for trial in sweep.study.trials]
    assert generations[-1] == -1


def test_what_the_study_tells_reaches_the_inner_sampler() -> None:
    inner = Stubborn(SMALL.point(0))
    distinct = DistinctSampler(inner, SMALL, set(), np.random.default_rng(0))
    for sampler in (distinct, PointSampler(SMALL, SMALL.point(1), inner=distinct)):
        study = optuna.create_study(sampler=sampler)
        study.tell(study.ask(dict(SMALL.params)), 1.0)
    assert inner.told == 2


def test_a_used_up_space_is_refused() -> None:
    seen = {str(index) for index in range(27)}
    rng = np.random.default_rng(0)
    for sampler in (
        GridSampler(SMALL, seen),
        BruteForceSampler(SMALL, seen, 0),
        DistinctSampler(RandomSampler(), SMALL, seen, rng),
    ):
        with pytest.raises(SpaceError, match="all 27 points of the search space were tried"):
            ask(sampler, SMALL)


@pytest.mark.parametrize("name", ["grid", "bruteforce"])
def test_an_infinite_space_cannot_be_gone_through(name: str) -> None:
    with pytest.raises(SpaceError, match="the search space is infinite because of lr"):
        sampler_for_point(option(name), space=LARGE, seen=set(), study_seed=0, index=0)


def test_a_given_point_is_proposed_as_it_is() -> None:
    assert ask(PointSampler(SMALL, {"a": "z", "b": 2.0, "c": 0.1 * 3}), SMALL) == {"a": "z", "b": 2, "c": 0.3}
    with pytest.raises(SpaceError, match="b=7 is outside the search space; expected an integer from 0 to 2"):
        PointSampler(SMALL, {"a": "z", "b": 7, "c": 0.1})


def test_a_point_that_is_run_again_takes_over_the_samplers_notes_and_no_constraints() -> None:
    attributes = {"cma:generation": 3, "constraints": [1.0], "constraints:n_params": 5.0}
    study = optuna.create_study(sampler=PointSampler(SMALL, SMALL.point(0), attributes))
    study.ask()
    assert study.trials[0].system_attrs == {"cma:generation": 3}


def test_a_parameter_that_is_not_in_the_space_is_refused() -> None:
    for sampler in (GridSampler(SMALL, set()), PointSampler(SMALL, SMALL.point(0))):
        study = optuna.create_study(sampler=sampler)
        with pytest.raises(SpaceError, match="z is not in the search space; expected one of a, b, c"):
            study.ask({"z": IntDistribution(1, 3)})


# parameters that exist in some points only

TREE = parse(
    {
        "model": "line,tree,net",
        "tree.depth": {"sweep": "range(1,4)", "when": {"model": "tree"}},
        "net.layers": {"sweep": "range(1,3)", "when": {"model": "net"}},
        "net.second": {"sweep": "relu,tanh", "when": {"net.layers": 2}},
        "seed": "1,2",
    }
)[0]
ENDLESS_TREE = parse(
    {
        "model": "line,net",
        "net.lr": {"sweep": "tag(log,interval(1e-4,1e-1))", "when": {"model": "net"}},
        "m": "range(0,1,0.05)",
    }
)[0]


@pytest.mark.parametrize(
    "config",
    [
        *EXHAUSTIVE,
        pytest.param(option("tpe", n_startup_trials=4), id="tpe"),
        pytest.param(option("tpe", n_startup_trials=4, group=True), id="tpe-group"),
        pytest.param(option("tpe", n_startup_trials=4, multivariate=False), id="tpe-univariate"),
        pytest.param(option("random"), id="random"),
    ],
)
def test_every_point_of_a_conditional_space_is_proposed_exactly_once(config: Any) -> None:
    sweep = Sweep(config, TREE)
    assert TREE.size is not None
    keys = sweep.run(TREE.size)
    assert sorted(map(int, keys)) == list(range(14))
    assert Sweep(config, TREE).run(14, resumed_at=(3, 7), killed_at=(0, 8)) == keys
    for trial in sweep.study.trials:
        assert ("tree.depth" in trial.params) == (trial.params["model"] == "tree")
        assert ("net.second" in trial.params) == (trial.params.get("net.layers") == 2)


@pytest.mark.parametrize("config", [option("tpe", n_startup_trials=4), option("tpe", group=True), option("random")])
def test_an_infinite_conditional_space_is_searched_and_resumed(config: Any) -> None:
    whole = Sweep(config, ENDLESS_TREE).run(20)
    assert Sweep(config, ENDLESS_TREE).run(20, resumed_at=(5, 11), killed_at=(2, 14)) == whole
    assert len(set(whole)) == 20
    assert 0 < sum("net.lr" in key for key in whole) < 20


@pytest.mark.parametrize("name", [pytest.param("cmaes", marks=needs_cmaes), "nsgaii", "nsgaiii", "qmc"])
def test_a_sampler_that_cannot_leave_parameters_out_is_refused(name: str) -> None:
    with pytest.raises(
        SpaceError, match=r"Sampler cannot search a space in which .* as tree\.depth does; expected .*=tpe"
    ):
        sampler_for_point(option(name), space=TREE, seen=set(), study_seed=0, index=0)


# what a sampler sees


def test_the_last_trials_and_those_that_run_are_shown() -> None:
    study = optuna.create_study()
    running = study.ask()
    for number in range(1, 8):
        trial = study.ask()
        if number == 6:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, float(number))
    recent = RecentStudy(study, 3)
    assert [trial.number for trial in recent.trials] == [running.number, 4, 5, 7]
    assert [trial.number for trial in recent.get_trials(states=[TrialState.RUNNING])] == [0]
    assert len(RecentStudy(study, 100).trials) == 7
    assert recent.get_trials()[0] is not recent.get_trials()[0]


@pytest.mark.parametrize("name", [pytest.param("cmaes", marks=needs_cmaes), "nsgaii", "nsgaiii"])
def test_a_sampler_that_keeps_its_state_in_trials_must_see_them_all(name: str) -> None:
    with pytest.raises(ConfigError, match=r"hydra\.sweeper\.history=9: .*Sampler keeps its state in earlier trials"):
        sampler_for_point(option(name), space=SMALL, seen=set(), study_seed=0, index=0, history=9)


# the named options, and what Optuna's arguments become


def test_the_named_options_are_optunas_own_defaults() -> None:
    plain = {
        "tpe": optuna.samplers.TPESampler(seed=1),
        "random": RandomSampler(seed=1),
        "cmaes": optuna.samplers.CmaEsSampler(seed=1),
        "nsgaii": optuna.samplers.NSGAIISampler(seed=1),
    }
    for name, default in plain.items():
        if name == "cmaes" and find_spec("cmaes") is None:
            continue
        built = vars(inner_of(option(name)))
        told = {key: value for key, value in vars(default).items() if isinstance(value, bool | int | float | None)}
        told.pop("_warn_independent_sampling", None)  # besom says it once, not for each trial
        assert {key: built[key] for key in told} == told


@pytest.mark.parametrize(
    ("name", "field", "expected"),
    [
        ("grid", "seed", None),
        ("tpe", "group", False),
        ("tpe", "constant_liar", True),  # Optuna 5's default; the official sweeper has False
        ("tpe", "multivariate", None),
        ("tpe", "constraints_func", None),
        ("cmaes", "n_startup_trials", 1),
        ("cmaes", "popsize", None),
        ("cmaes", "with_margin", False),
        ("cmaes", "lr_adapt", False),
        ("cmaes", "inc_popsize", -1),
        ("nsgaii", "crossover", None),
    ],
)
def test_an_option_has_the_official_fields(name: str, field: str, expected: Any) -> None:
    assert SAMPLERS[name][field] == expected


@pytest.mark.parametrize(
    ("name", "override", "expected"),
    [
        ("grid", "seed=123", 123),
        ("tpe", "group=true", True),
        ("tpe", "constant_liar=true", True),
        ("tpe", "constraints_func=test_constraints", "test_constraints"),
        ("cmaes", "n_startup_trials=7", 7),
        ("cmaes", "popsize=12", 12),
        ("cmaes", "with_margin=true", True),
        ("cmaes", "lr_adapt=true", True),
        ("nsgaii", "crossover=test_crossover", "test_crossover"),
        ("nsgaiii", "reference_points=[[0,1],[1,0]]", [[0, 1], [1, 0]]),
        ("gp", "deterministic_objective=true", True),
        ("qmc", "scramble=true", True),
        ("bruteforce", "seed=1", 1),
    ],
)
@pytest.mark.filterwarnings("ignore:.*version_base:Warning")  # Hydra 1.4 wants it gone, 1.3 wants it there
@pytest.mark.filterwarnings("ignore:ConfigStore config .* is already registered:Warning")  # beside the official sweeper
def test_the_official_overrides_work(name: str, override: str, expected: Any) -> None:
    with initialize(version_base=None, config_path=None):
        config = compose(
            return_hydra_config=True,
            overrides=[
                "hydra/sweeper=besom",
                f"hydra/sweeper/sampler={name}",
                f"hydra.sweeper.sampler.{override}",
            ],
        )
    assert config.hydra.sweeper.sampler[override.partition("=")[0]] == expected


def inner_of(config: Mapping[str, Any], space: Space = SMALL) -> Any:
    sampler = sampler_for_point(config, space=space, seen=set(), study_seed=0, index=0)
    assert isinstance(sampler, DistinctSampler)
    return sampler.inner


@needs_cmaes
def test_the_default_cma_es_does_not_warn_of_restarts(recwarn: pytest.WarningsRecorder) -> None:
    inner_of(option("cmaes"))
    assert not list(recwarn)


def test_what_optuna_calls_experimental_is_not_told_for_each_point(recwarn: pytest.WarningsRecorder) -> None:
    for config in (option("qmc"), option("nsgaiii"), option("tpe", group=True)):
        inner_of(config)
    assert not list(recwarn)


def test_a_deprecated_argument_that_is_set_is_passed_on_and_told_once(recwarn: pytest.WarningsRecorder) -> None:
    config = option("tpe", consider_endpoints=True, prior_weight=0.5)
    with pytest.warns(FutureWarning, match="`consider_endpoints` has been deprecated") as caught:
        parameters = inner_of(config)._parzen_estimator_parameters
    assert (parameters.consider_endpoints, parameters.prior_weight) == (True, 0.5)
    assert all(str(warning.message).startswith("hydra.sweeper.sampler: `") for warning in caught)
    recwarn.clear()
    inner_of(config)
    assert not list(recwarn)


def test_motpe_is_told_to_be_removed() -> None:
    for config in (option("motpe"), {"_target_": "hydra_plugins.hydra_optuna_sweeper.config.raise_motpe_removed"}):
        with pytest.raises(ConfigError, match=r"'motpe' sampler was removed in Optuna 4\.0; expected .*sampler=tpe"):
            inner_of(config)
    with pytest.raises(ConfigError, match="'motpe' sampler was removed"):
        motpe()


@pytest.mark.parametrize("name", ["nsgaii", "nsgaiii"])
@pytest.mark.parametrize(
    ("mutation", "eta"),
    [(None, None), (POLYNOMIAL, 20.0), ({"_target_": POLYNOMIAL, "eta": 5.0}, 5.0)],
)
def test_a_mutation_is_named_or_described(name: str, mutation: Any, eta: float | None) -> None:
    built = inner_of(option(name, mutation=mutation))._child_generation_strategy._mutation
    assert getattr(built, "_eta", None) == eta


def test_a_crossover_is_named_or_described() -> None:
    for crossover in ("optuna.samplers.nsgaii.SBXCrossover", {"_target_": "optuna.samplers.nsgaii.SBXCrossover"}):
        built = inner_of(option("nsgaii", crossover=crossover))._child_generation_strategy._crossover
        assert isinstance(built, optuna.samplers.nsgaii.SBXCrossover)


def test_reference_points_become_an_array() -> None:
    points = [[0.0, 1.0], [1.0, 0.0]]
    strategy = inner_of(option("nsgaiii", reference_points=points))._elite_population_selection_strategy
    assert isinstance(strategy._reference_points, np.ndarray)
    np.testing.assert_array_equal(strategy._reference_points, points)


def too_far(trial: FrozenTrial) -> list[float]:
    return [trial.params["b"] - 1.0]


@pytest.mark.filterwarnings("ignore:.*`constraints_func` has been deprecated:FutureWarning")
@pytest.mark.parametrize("function", [f"{__name__}.too_far", {"_target_": f"{__name__}.too_far", "_partial_": True}])
@pytest.mark.parametrize("name", ["tpe", "nsgaii", "nsgaiii"])
def test_a_constraint_function_is_named_and_decides_about_told_trials(name: str, function: Any) -> None:
    sweep = Sweep(option(name, constraints_func=function), SMALL)
    sweep.run(4)
    assert all(list(trial.constraints.values()) == too_far(trial) for trial in sweep.study.trials)


def two(n: int) -> int:
    return 2


@pytest.mark.filterwarnings("ignore:.*`gamma` has been deprecated:FutureWarning")
def test_a_function_is_passed_on_and_an_inner_sampler_is_built() -> None:
    assert inner_of(option("tpe", gamma=f"{__name__}.two"))._gamma is two
    inner = inner_of(option("qmc", independent_sampler="optuna.samplers.TPESampler"))._independent_sampler
    assert isinstance(inner, optuna.samplers.TPESampler)


@needs_cmaes
@pytest.mark.filterwarnings("ignore:.*`x0` has been deprecated:FutureWarning")
def test_a_table_of_values_stays_one() -> None:
    assert inner_of(option("cmaes", x0={"b": 1, "c": 0.2}))._x0 == {"b": 1, "c": 0.2}


@needs_cmaes
@pytest.mark.parametrize(("wanted", "told"), [(True, ["CmaEsSampler draws a at random"]), (False, [])])
def test_what_cma_es_cannot_model_is_told_once(wanted: bool, told: list[str], caplog: pytest.LogCaptureFixture) -> None:
    _log_once.cache_clear()
    space = parse({"a": "choice(u,v,w,x)", "b": "range(10)", "c": "interval(0,1)"})[0]
    Sweep(option("cmaes", warn_independent_sampling=wanted), space).run(6)
    assert [record.getMessage()[:30] for record in caplog.records] == told


def test_a_sampler_without_a_seed_and_one_inside_another_are_built() -> None:
    config = {
        "_target_": "optuna.samplers.PartialFixedSampler",
        "fixed_params": {"a": "y"},
        "base_sampler": {"_target_": "optuna.samplers.RandomSampler", "seed": 3},
    }
    points = [ask(sampler_for_point(config, space=SMALL, seen=set(), study_seed=0, index=0), SMALL) for _ in range(2)]
    assert points[0]["a"] == "y"
    assert points[0] == points[1]


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("create_nsgaii_sampler", optuna.samplers.NSGAIISampler),
        ("create_nsgaiii_sampler", optuna.samplers.NSGAIIISampler),
    ],
)
def test_an_option_of_the_official_sweeper_is_understood(target: str, kind: type) -> None:
    config = {"_target_": f"hydra_plugins.hydra_optuna_sweeper._impl.{target}", "seed": None, "mutation": None}
    assert isinstance(inner_of(config), kind)


def test_the_official_grid_is_ours() -> None:
    config = {"_target_": "optuna.samplers.GridSampler", "_partial_": True, "seed": None}
    assert Sweep(config, FOUR).run(4) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("distribution", "values"),
    [
        (IntDistribution(1, 3), [1, 2, 3]),
        (IntDistribution(2, 2), [2]),
        (FloatDistribution(0.0, 0.3, step=0.1), [0.0, 0.1, 0.2, 0.3]),
        (FloatDistribution(0.5, 0.5, step=1.0), [0.5]),
        (CategoricalDistribution([0, 2, 1]), [0, 2, 1]),
    ],
)
def test_a_grid_reaches_both_ends(distribution: BaseDistribution, values: list[float]) -> None:
    sweep = Sweep(option("grid"), Space({"key": distribution}))
    sweep.run(len(values))
    assert [trial.params["key"] for trial in sweep.study.trials] == values
    assert sweep.seen == {str(index) for index in range(len(values))}


def test_a_grid_stays_within_bounds_where_floats_are_coarse() -> None:
    space = parse({"key": "range(-1000000000000000.0,-999999999999999.2,0.07)"})[0]
    sweep = Sweep(option("grid"), space)
    sweep.run(space.finite_size())
    values = [trial.params["key"] for trial in sweep.study.trials]
    assert values[0] == -1000000000000000.0
    assert all(-1000000000000000.0 <= value <= -999999999999999.2 for value in values)


# what cannot be


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_target_": "optuna.samplers.TPESamplr"}, "optuna.samplers has no function .*; did you mean 'TPESampler'"),
        ({"_target_": "optuna.smaplers.TPESampler"}, "_target_='optuna.smaplers.TPESampler' cannot be imported"),
        ({"_target_": "TPESampler"}, "_target_='TPESampler' cannot be imported"),
        ({"seed": 1}, "_target_='None' cannot be imported"),
        (option("tpe", n_startup=3), "TPESampler: the argument='n_startup' is not known; .*did you mean 'n_startup_t"),
        (option("nsgaii", population_size=1), "NSGAIISampler refuses its arguments: `population_size` must be"),
        (
            option("nsgaii", crossover="optuna.samplers.nsgaii.SBXCross"),
            "has no function 'SBXCross'; did you mean 'SBXCrossover'",
        ),
        (option("nsgaii", crossover={"_target_": POLYNOMIAL}), "is not a valid crossover"),
        (option("nsgaiii", reference_points=[[0, "a"]]), r"reference_points=.* is no table of numbers"),
        (option("nsgaiii", reference_points=[0, 1]), r"reference_points=\[0, 1\] is not usable; expected a list of po"),
        (option("qmc", qmc_type="sobl"), "QMCSampler refuses its arguments: .*Choose either `halton` or `sobol`"),
        (
            {"_target_": "optuna.samplers.PartialFixedSampler", "fixed_params": {}},
            "refuses its arguments: .*base_sampler",
        ),
        ({"_target_": "optuna.pruners.MedianPruner"}, "MedianPruner makes a MedianPruner; expected an Optuna sampler"),
        ({"_target_": "builtins.int"}, "builtins.int cannot be built from a config: no signature found"),
        ({"_target_": "optuna.samplers.GridSampler"}, "stops the study by itself; expected hydra/sweeper/sampler=grid"),
        ({"_target_": "optuna.samplers.BruteForceSampler"}, "stops the study by itself; .*sampler=bruteforce"),
        (
            {
                "_target_": "optuna.samplers.PartialFixedSampler",
                "fixed_params": {},
                "base_sampler": "optuna.samplers.BruteForceSampler",
            },
            "stops the study by itself; .*sampler=bruteforce",
        ),
        ({"_target_": "besom.search.exhaustive.GridSampler", "order": 1}, "the argument='order' is not known"),
        pytest.param(
            option("gp"),
            "GPSampler needs the package torch, which is not installed; expected pip install torch",
            marks=pytest.mark.skipif(find_spec("torch") is not None, reason="torch is installed"),
        ),
        pytest.param(
            option("cmaes"),
            "CmaEsSampler needs the package cmaes, which is not installed; expected pip install cmaes",
            marks=pytest.mark.skipif(find_spec("cmaes") is not None, reason="cmaes is installed"),
        ),
    ],
)
def test_a_sampler_that_cannot_be_built_is_refused_in_one_line(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        sampler_for_point(config, space=SMALL, seen=set(), study_seed=0, index=0)
    assert "\n" not in str(caught.value)


@needs_cmaes
def test_cma_es_is_refused_for_several_objectives() -> None:
    with pytest.raises(ConfigError, match=r"CmaEsSampler takes one objective, but hydra\.sweeper\.direction has 2"):
        sampler_for_point(option("cmaes"), space=SMALL, seen=set(), study_seed=0, index=0, n_objectives=2)
