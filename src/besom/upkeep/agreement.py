"""How a trial's run has to end, and what of a run is not as the study has it. The study is the truth."""

from __future__ import annotations

import math
from collections.abc import Iterator

from optuna.trial import FrozenTrial

from besom.results import TrialResult
from besom.sweep.endings import OWN_OUTCOME, Lost, RunEnd, end_of_run
from besom.tracking import STATUS
from besom.upkeep.run_records import EPOCH_METRICS, RunRecord

HASHES = ("weights_sha256", "history_sha256", "predictions_sha256")


def end_of(trial: FrozenTrial, left: TrialResult | Lost | None = None) -> RunEnd:
    """Return how the run of a trial has to end.

    Args:
        left: how a trial that is RUNNING in the study ended by what it left.
    """
    if isinstance(left, Lost):
        return RunEnd("FAIL", left.reason, True)
    if left is not None:
        return RunEnd(left.state, left.reason, False)
    return end_of_run(trial, str(trial.user_attrs.get("run_id")))


def statuses(end: RunEnd) -> tuple[str, ...]:
    """Return the words that MLflow may have for an end, the right one first.

    A trial whose lane died too often is a failure of its own in the study, and its run was KILLED by then.
    """
    if end.state == "FAIL":
        return ("KILLED", "FAILED") if end.died else ("FAILED", "KILLED")
    return (STATUS[end.state],)


def differing(run: RunRecord, end: RunEnd) -> list[str]:
    """Return what of a run's end is not as it has to be, as words: ``status RUNNING``, ``no end``, …"""
    found = []
    if run.status not in statuses(end):
        found.append(f"status {run.status} instead of {statuses(end)[0]}")
    elif run.ended is None:
        found.append("no end")
    if run.tags.get("state") != end.state:
        found.append(f"state {run.tags.get('state')} instead of {end.state}")
    if end.reason and not run.tags.get("reason"):
        found.append("no reason")
    return found


def missing_values(trial: FrozenTrial, run: RunRecord) -> tuple[dict[str, float], dict[str, str]]:
    """Return the objective and the hashes that a complete trial's run lacks or has otherwise, as the study has them."""
    if trial.user_attrs.get("outcome") != OWN_OUTCOME["COMPLETE"] or not trial.values:
        return {}, {}
    has_objective = len(trial.values) > 1 or _is(run.metrics.get("objective"), trial.values[0])
    hashes = {key: str(trial.user_attrs[key]) for key in HASHES if key in trial.user_attrs}
    wrong = {key: value for key, value in hashes.items() if run.tags.get(key) != value}
    return ({} if has_objective else {"objective": float(trial.values[0])}), wrong


def _is(one: float | None, other: float) -> bool:
    return one is not None and (one == other or math.isclose(one, other, rel_tol=1e-12))


def epochs_wanting(trial: FrozenTrial, run: RunRecord) -> Iterator[str]:
    """Yield what is not whole in a run's metrics of each epoch, held against the trial's reports to the sweep."""
    counts = {key: len(run.steps.get(key, [])) for key in EPOCH_METRICS}
    known = len(trial.intermediate_values) or max(counts.values())
    stopping = run.params.get("train.early_stopping", "null") != "null"
    if trial.state.name == "COMPLETE" and not stopping and run.params.get("train.epochs", "").isdecimal():
        known = max(known, int(run.params["train.epochs"]))
    for key in EPOCH_METRICS:
        if run.steps.get(key, []) != list(range(known)):
            yield f"{key} has {counts[key]} of {known} epochs"
