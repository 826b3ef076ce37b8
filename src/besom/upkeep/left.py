"""What a process left RUNNING, and whether it can be said that this process lives no more. Nothing is written."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from besom.errors import StoreDamaged
from besom.lock import is_dead
from besom.results import TrialResult
from besom.sweep.endings import Lost, end_of_left
from besom.upkeep.books import Books
from besom.upkeep.run_records import RunRecord


@dataclass(frozen=True)
class Left:
    """A trial that is RUNNING in the study of a sweep that nobody works on.

    Args:
        end: how it ended, by what it left; None where nobody can say, and ``unread`` says why.
        alone: why it must be left alone all the same, None where it need not.
    """

    trial: FrozenTrial
    end: TrialResult | Lost | None
    alone: str | None
    unread: str | None = None


def left_trials(books: Books) -> list[Left]:
    """Return the trials that a dead parent left; none of a sweep that somebody works on."""
    if books.holder is not None:
        return []
    running = [trial for trial in books.trials if trial.state is TrialState.RUNNING]
    return [_left(books, trial) for trial in running]


def _left(books: Books, trial: FrozenTrial) -> Left:
    alone = _why_alone(books, trial)
    if not books.home.is_dir() or not any(books.home.iterdir()):  # removed, or a disk that is not mounted
        return Left(trial, None, alone, f"its sweep's folder {books.home} is gone, where its result may be")
    try:
        return Left(trial, end_of_left(trial, books.home, books.id), alone)
    except StoreDamaged as error:
        return Left(trial, None, alone, str(error))


def left_runs(books: Books) -> list[RunRecord]:
    """Return the runs that are RUNNING though nobody works on the sweep, those of the study's RUNNING trials too."""
    if books.holder is not None:
        return []
    return [run for run in (books.runs or {}).values() if run.status == "RUNNING" and run.kind]


def why_alone(identity: Mapping[str, Any]) -> str | None:
    """Return why what a process left is to be left alone: it may live. None where it does not, or nobody named it."""
    host = identity.get("host")
    if host is None or "pid" not in identity:
        return None
    if host != socket.gethostname():
        return f"its process {identity['pid']} was one of host '{host}', of which nobody here knows whether it lives"
    return None if is_dead(identity) else f"its process {identity['pid']} lives"


def _why_alone(books: Books, trial: FrozenTrial) -> str | None:
    if books.ran_elsewhere(trial):
        return "it may have run from another store, since it has no folder here; repair that one, or resume the sweep"
    run = books.run_of(trial)
    return why_alone(run.tags if run is not None else books.last_parent)
