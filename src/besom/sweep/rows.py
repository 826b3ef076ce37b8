"""A sweep's trials as flat rows, the form of ``besom runs``: out of the study, which is the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial

from besom.sweep.run_ids import NONE, run_id_of
from besom.sweep.tally import OWN, Tally, outcome

FACTS = ("n_params", "n_macs", "fit_seconds")
OBJECTIVE = "objective"
FIXED_COLUMNS = ("number", "state", OBJECTIVE, *FACTS, "run_id", "weights_sha256")


def row(trial: FrozenTrial, run_ids: Mapping[str, str] = NONE) -> dict[str, Any]:
    """Return one trial as a flat row: the fixed columns, then its dotted params.

    Args:
        run_ids: which runs provisional ids became, see `besom.sweep.run_ids`.
    """
    facts = {name: trial.user_attrs.get(name) for name in FACTS}
    return {
        "number": trial.number,
        "state": trial.state.name,
        "objective": _objective(trial) if trial.state.name == "COMPLETE" else None,
        **facts,
        "run_id": run_id_of(trial, run_ids),
        "weights_sha256": trial.user_attrs.get("weights_sha256"),
        **trial.params,
    }


def _objective(trial: FrozenTrial) -> float | list[float]:
    return list(trial.values) if len(trial.values) > 1 else trial.values[0]


def rows(
    trials: Sequence[FrozenTrial], run_ids: Mapping[str, str] = NONE, *, lost_too: bool = False
) -> list[dict[str, Any]]:
    """Return the trials in order of number; attempts that died with their lane or parent only when asked for."""
    return [
        row(trial, run_ids) for trial in trials if lost_too or not trial.state.is_finished() or outcome(trial) in OWN
    ]


def parted_objectives(one: Mapping[str, Any], n_objectives: int) -> dict[str, Any]:
    """Return a row in which each of several objectives has a column, ``objective_0``, …; with one the row as it is."""
    if n_objectives == 1:
        return dict(one)
    values = one[OBJECTIVE] or [None] * n_objectives
    own = {f"{OBJECTIVE}_{place}": value for place, value in enumerate(values)}
    return {new: value for key, old in one.items() for new, value in (own if key == OBJECTIVE else {key: old}).items()}


def status(name: str, total: int | None, tally: Tally, run_ids: Mapping[str, str] = NONE) -> dict[str, Any]:
    """Return the counts of a sweep, with which ``besom status --format json`` begins.

    Args:
        total: how many trials it ends at, None where only time or the user ends it.
    """
    number, best = tally.counts, tally.best
    return {
        "name": name,
        "n_trials": total,
        "complete": number.complete,
        "pruned": number.pruned,
        "failed": number.failed,
        "running": number.running,
        "best": row(best, run_ids) if best is not None else None,
    }


def leaderboard(some: Sequence[Mapping[str, Any]], directions: Sequence[str]) -> list[dict[str, Any]]:
    """Return rows sorted best first, by the first objective; those without one last, in order of number."""
    sign = -1.0 if directions[0] == "maximize" else 1.0

    def rank(one: Mapping[str, Any]) -> tuple[bool, float, int]:
        value = one["objective"]
        first = value[0] if isinstance(value, list) else value
        return value is None, sign * (first or 0.0), one["number"]

    return [dict(one) for one in sorted(some, key=rank)]


def differing(some: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the columns worth reading: number, state, objective, costs, and what differs between rows."""
    always = ("number", "state", "objective", *FACTS)
    keys = list(dict.fromkeys(key for one in some for key in one))
    params = [key for key in keys if key not in FIXED_COLUMNS and len({repr(one.get(key)) for one in some}) > 1]
    return [*always, *params]
