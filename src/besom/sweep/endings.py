"""How a trial ended, decided from what it left: the rules that a sweep follows and `besom repair` follows after it.

Pure functions of a trial and its ``result.json``; nothing is written. Knows nothing of search spaces and MLflow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from besom.errors import ConfigError
from besom.results import TrialResult
from besom.search.constraints import Constraint, untold, violations
from besom.sweep.run_ids import NONE, run_id_of
from besom.sweep.tally import LOST, UNASKED, outcome

OWN_OUTCOME = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
PARENT_DIED = "its parent died"


@dataclass(frozen=True)
class Lost:
    """A trial that did not end by itself: ``outcome`` is one of `besom.sweep.tally.LOST`, or UNASKED."""

    outcome: str
    reason: str


@dataclass(frozen=True)
class RunEnd:
    """How a trial's run has to end; ``state`` is Optuna's word, ``died`` as `besom.tracker.Tracker` has it."""

    state: str
    reason: str | None
    died: bool


def job_folder_of(trial: FrozenTrial, home: Path) -> Path:
    """Return where a trial's ``result.json`` is, ``home`` being the folder of the sweep's first start."""
    return home / str(trial.user_attrs.get("job", trial.number))


def end_of_left(trial: FrozenTrial, home: Path, study: str) -> TrialResult | Lost:
    """Return how a trial ended whose parent died while it was RUNNING.

    Args:
        study: the id of its study; a ``result.json`` of another one does not count.

    Raises:
        StoreDamaged: nobody can say whether it left a result.
    """
    if "point" not in trial.user_attrs:
        return Lost(UNASKED, "its parent died before it had a point")
    result = TrialResult.read(job_folder_of(trial, home), trial.number, study)
    return result if result is not None else Lost("parent_died", PARENT_DIED)


def constrained(
    result: TrialResult, constraints: Sequence[Constraint], decided: Mapping[str, float]
) -> tuple[TrialResult, dict[str, float]]:
    """Decide the constraints of a COMPLETE trial that only the trial itself could tell about.

    Args:
        decided: by how much it breaks those that were decided before it was trained.

    Returns:
        the result, or the failure to tell what a constraint needs; and by how much it breaks each that was left.
    """
    left = [constraint for constraint in constraints if constraint.text not in decided]
    missing = untold(left, result.facts)
    try:
        broken = {} if missing else violations(left, result.facts)
    except ConfigError as error:
        missing, broken = str(error), {}
    return (replace(result, state="FAIL", values=[], reason=missing), {}) if missing else (result, broken)


def attributes_of(result: TrialResult, why: str | None = None) -> dict[str, Any]:
    """Return what is stored with a trial that ended by itself, before its state."""
    reason = {"reason": result.reason} if result.reason else {}
    return {**result.facts, **reason, "outcome": why or OWN_OUTCOME[result.state]}


def end_of_run(trial: FrozenTrial | None, run_id: str, became: Mapping[str, str] = NONE) -> RunEnd:
    """Return how a run has to end whose tag names this trial, which has ended; None where the study has none.

    Args:
        became: which runs provisional ids became, see `besom.sweep.run_ids`.
    """
    if trial is not None and run_id in (trial.user_attrs.get("run_id"), run_id_of(trial, became)):
        return RunEnd(trial.state.name, trial.user_attrs.get("reason"), outcome(trial) in LOST)
    return RunEnd("FAIL", PARENT_DIED, True)  # that parent died between making the run and storing its id
