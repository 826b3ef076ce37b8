"""Pruners: each named option stops a bad trial and not a good one; mistakes are told in one line."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import optuna
import pytest
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, PatientPruner
from optuna.trial import TrialState

from besom.errors import ConfigError
from besom.options import PRUNERS
from besom.search.pruners import build_pruner

EPOCHS = 9


def option(name: str, **changed: Any) -> dict[str, Any]:
    return {**PRUNERS[name], **changed}


def run(study: optuna.Study, quality: float) -> TrialState:
    """Run a trial that gets better by ``quality`` with each epoch, or is stopped."""
    trial = study.ask()
    for epoch in range(EPOCHS):
        trial.report(10 - quality * epoch, epoch)
        if trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return TrialState.PRUNED
    study.tell(trial, 10 - quality * EPOCHS)
    return TrialState.COMPLETE


CHANGED: dict[str, dict[str, Any]] = {"threshold": {"upper": 10.5}, "patient": {"patience": 1}}
"""What an option needs to do anything here: no bound and five epochs of patience are too little and too much."""


@pytest.mark.parametrize("name", sorted(set(PRUNERS) - {"none"}))
def test_a_named_pruner_stops_bad_trials_and_no_good_one(name: str) -> None:
    study = optuna.create_study(study_name="s", pruner=build_pruner(option(name, **CHANGED.get(name, {}))))
    assert {run(study, 0.5 + 0.001 * number) for number in range(8)} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert TrialState.PRUNED in {run(study, -0.5) for _ in range(4)}
    assert run(study, 1.0) is TrialState.COMPLETE


def test_no_pruner_stops_nothing() -> None:
    pruner = build_pruner(PRUNERS["none"])
    assert isinstance(pruner, NopPruner)
    study = optuna.create_study(pruner=pruner)
    assert [run(study, quality) for quality in (1.0, -9.0)] == [TrialState.COMPLETE] * 2


@pytest.mark.parametrize("name", sorted(set(PRUNERS) - {"none"}))
def test_an_option_has_all_of_optunas_arguments_and_its_defaults(name: str) -> None:
    config = dict(PRUNERS[name])
    kind = getattr(optuna.pruners, config.pop("_target_").rpartition(".")[2])
    arguments = inspect.signature(kind).parameters
    assert set(config) == set(arguments)
    defaults = {key: value.default for key, value in arguments.items() if value.default is not value.empty}
    assert {key: config[key] for key in defaults} == defaults


def test_a_wrapped_pruner_is_described_or_named() -> None:
    plain = build_pruner(PRUNERS["patient"])
    assert isinstance(plain, PatientPruner)
    assert vars(plain._wrapped_pruner) == vars(MedianPruner())
    for wrapped in ("optuna.pruners.HyperbandPruner", option("hyperband")):
        pruner = build_pruner(option("patient", wrapped_pruner=wrapped))
        assert isinstance(pruner, PatientPruner)
        assert isinstance(pruner._wrapped_pruner, HyperbandPruner)
    alone = build_pruner(option("patient", wrapped_pruner=None))
    assert isinstance(alone, PatientPruner)
    assert alone._wrapped_pruner is None


class AtNight(BasePruner):
    """A user's own."""

    def __init__(self, hour: int = 23) -> None:
        if hour > 24:
            raise RuntimeError("a day has\n24 hours")
        self.hour = hour

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return True


def at_night(**arguments: Any) -> AtNight:
    return AtNight(**arguments)


@pytest.mark.parametrize("target", ["AtNight", "at_night"])
def test_a_users_own_pruner_is_built(target: str) -> None:
    pruner = build_pruner({"_target_": f"{__name__}.{target}", "hour": 3})
    assert isinstance(pruner, AtNight)
    assert pruner.hour == 3


def brackets(study: optuna.Study) -> list[int]:
    pruner = study.pruner
    assert isinstance(pruner, HyperbandPruner)
    if not pruner._pruners:
        pruner._try_initialization(study)
    return [pruner._get_bracket_id(study, trial) for trial in study.trials]


@pytest.mark.parametrize("max_resource", ["auto", EPOCHS])
def test_hyperband_puts_a_rebuilt_studys_trials_into_the_same_brackets(max_resource: Any) -> None:
    config: Mapping[str, Any] = option("hyperband", max_resource=max_resource)
    study = optuna.create_study(study_name="sweep", pruner=build_pruner(config))
    for number in range(12):
        run(study, math.sin(number))
    again = optuna.create_study(study_name="sweep", pruner=build_pruner(config))
    again.add_trials(study.trials)
    assert brackets(again) == brackets(study)
    assert len(set(brackets(study))) > 1
    assert [run(copy, -1.0) for copy in (study, again)] in ([TrialState.PRUNED] * 2, [TrialState.COMPLETE] * 2)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (option("threshold"), "ThresholdPruner refuses its arguments: Either lower or upper must be specified"),
        (option("median", n_warm_steps=3), "the argument='n_warm_steps' is not known; .*did you mean 'n_warmup_steps'"),
        (option("percentile", percentile=101), "PercentilePruner refuses its arguments: Percentile must be between"),
        (option("patient", patience=-1), "patience cannot be negative but got -1"),
        (
            option("patient", wrapped_pruner=option("median", n_startup=3)),
            r"hydra\.sweeper\.pruner\.wrapped_pruner: .*'n_startup' is not known",
        ),
        (
            option("patient", wrapped_pruner="optuna.pruners.MedianPrune"),
            "has no function 'MedianPrune'; did you mean 'Me",
        ),
        ({"_target_": "optuna.pruners.MedianPrunner"}, "has no function 'MedianPrunner'; did you mean 'MedianPruner'"),
        ({"n_startup_trials": 3}, r"hydra\.sweeper\.pruner\._target_='None' cannot be imported"),
        ({"_target_": "optuna.samplers.RandomSampler"}, "makes a RandomSampler; expected an Optuna pruner"),
        ({"_target_": f"{__name__}.AtNight", "hour": 25}, "AtNight refuses its arguments: a day has 24 hours"),
    ],
)
def test_a_pruner_that_cannot_be_built_is_refused_in_one_line(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_pruner(config)
    assert "\n" not in str(caught.value)
