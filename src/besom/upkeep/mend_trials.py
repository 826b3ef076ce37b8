"""Closes the trials that a dead parent left RUNNING in the study, by the rules of a resume (`besom.sweep.endings`).

Needs no search space and no sampler: it tells the stored study what is in ``result.json``, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from besom.results import TrialResult
from besom.search.constraints import Constraint, parse_constraints
from besom.sweep.endings import Lost, attributes_of, constrained
from besom.upkeep.books import Books
from besom.upkeep.left import left_trials
from besom.upkeep.steps import Step

CONSTRAINTS = "hydra.sweeper.constraints"


def steps(books: Books) -> Iterator[Step]:
    """Yield a step for each trial that is RUNNING in the study of a sweep that nobody works on."""
    for one in left_trials(books):
        where = f"{books.name}/{one.trial.number}"
        if one.alone is not None:
            yield Step(where, f"left alone: {one.alone}", is_living=True)
        elif one.end is None:
            yield Step(where, f"the trial stays RUNNING: {one.unread}; put that back, then call repair again")
        else:
            yield Step(where, _what(one.end), partial(_close, books, one.trial.number, one.end))


def _what(end: TrialResult | Lost) -> str:
    if isinstance(end, Lost):
        return f"close the trial as FAIL: {end.reason}"
    value = f" {end.value}" if end.value is not None else ""
    return f"tell the study its result: {end.state}{value}"


def _close(books: Books, number: int, end: TrialResult | Lost) -> None:
    """Write a trial's attributes, then its state: interrupted, the next call does it again."""
    storage = books.open_study()
    study_id = storage.get_study_id_from_name(books.name)
    trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, number)
    trial = storage.get_trial(trial_id)
    if trial.state.is_finished():
        return
    state, values, attributes = TrialState.FAIL, None, {}
    if isinstance(end, Lost):
        attributes = {"outcome": end.outcome, "reason": end.reason}
    else:
        study = optuna.load_study(study_name=books.name, storage=storage)
        result, broken = _decided(end, trial, constraints_of(study.user_attrs))
        for name, violation in broken.items():
            Trial(study, trial_id).set_constraint(name, violation)
        state, values, attributes = TrialState[result.state], result.values or None, attributes_of(result)
        if state is TrialState.PRUNED and len(study.directions) == 1:
            values = _last_value(trial)
    for key, value in attributes.items():
        storage.set_trial_user_attr(trial_id, key, value)
    storage.set_trial_state_values(trial_id, state, values)


def _last_value(trial: FrozenTrial) -> list[float] | None:
    """Return what `optuna.Study.tell` stores as a pruned trial's value: its last report, where that is a number."""
    last = trial.intermediate_values.get(trial.last_step) if trial.last_step is not None else None
    return None if last is None or math.isnan(last) else [last]


def _decided(
    result: TrialResult, trial: FrozenTrial, constraints: list[Constraint]
) -> tuple[TrialResult, Mapping[str, float]]:
    """Return a result and the constraints that only it could tell about, with how far each is broken."""
    if result.state != "COMPLETE" or not constraints:
        return result, {}
    return constrained(result, constraints, trial.constraints)


def constraints_of(attributes: Mapping[str, Any]) -> list[Constraint]:
    """Return the constraints that a sweep was started with, out of its study's attributes."""
    settings: Mapping[str, Any] = attributes.get("settings") or {}
    return parse_constraints([str(value) for key, value in settings.items() if key.startswith(f"{CONSTRAINTS}.")])
