"""Brings MLflow's runs after the study: how they ended, what they lack; and closes those whose process is dead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import cache, partial
from typing import Any

from optuna.trial import FrozenTrial

from besom.experiments import log_tags, log_values, mlflow_client
from besom.results import TrialResult
from besom.spool.deliver import is_waiting
from besom.sweep.endings import PARENT_DIED, Lost, RunEnd
from besom.sweep.tally import Tally, summary
from besom.upkeep.agreement import differing, end_of, missing_values, statuses
from besom.upkeep.books import Books
from besom.upkeep.findings import some
from besom.upkeep.left import left_runs, left_trials, why_alone
from besom.upkeep.run_records import RunRecord
from besom.upkeep.steps import Step
from besom.withheld import without_password

client_of = cache(mlflow_client)
INTERRUPTED = RunEnd("FAIL", "interrupted", True)
"""The end of a run that no trial has: a reproduction, a confirmation, a training."""


def steps(books: Books) -> Iterator[Step]:
    """Yield what is to be done about the runs of a sweep that nobody works on."""
    if books.runs is None:
        where = without_password(books.uri) or "tracking.uri"
        yield Step(f"sweep {books.name}", f"MLflow cannot be reached: {where}: {books.unread}; call repair again then")
        return
    left: dict[int, TrialResult | Lost] = {}
    for one in left_trials(books):
        if one.alone is None and one.end is not None:  # a dry run finds it RUNNING still
            left[one.trial.number] = one.end
    seen = set()
    for trial in books.trials:
        seen.add(books.run_id_of(trial))
        is_ended = trial.state.is_finished() or trial.number in left
        if books.run_id_of(trial) and is_ended and not books.is_waiting(trial):
            yield from _of_trial(books, trial, left.get(trial.number))
    for run in left_runs(books):
        waits = is_waiting(run.run_id, run.tags, books.waiting.values()) or (books.waiting and run.kind == "sweep")
        if run.run_id not in seen and not waits:
            yield from closing(books.uri, run, partial(_close_other, books, run))


def _of_trial(books: Books, trial: FrozenTrial, left: TrialResult | Lost | None) -> Iterator[Step]:
    where, run = f"{books.name}/{trial.number}", books.run_of(trial)
    if run is None:
        if not books.has_lost_run_of(trial):
            return
        what = f"MLflow has lost run {books.run_id_of(trial)}"
        yield Step(where, f"{what}; restore it there, or a copy of its database: the result itself is in the study")
        return
    end = end_of(trial, left)
    if wrong := differing(run, end):
        yield Step(where, f"end its run as {end.state}: it has {' and '.join(wrong)}", partial(_end, books, run, end))
    objective, hashes = missing_values(trial, run)
    if objective or hashes:
        yield Step(where, f"log {some([*objective, *hashes])} into its run", partial(_log, books, run, trial))


def _end(books: Books, run: RunRecord, end: RunEnd) -> None:
    trial = books.trial_of(run)
    at = trial.datetime_complete if trial is not None else None
    end_run(client_of(books.uri), run, end, at)


def end_run(client: Any, run: RunRecord, end: RunEnd, at: datetime | None = None) -> None:
    """Tell MLflow how a run ended; ``at`` is when, by default now. A right end is not moved."""
    log_tags(client, run.run_id, {"state": end.state, **({"reason": end.reason} if end.reason else {})})
    if run.status not in statuses(end) or run.ended is None:
        when = run.ended or (int(at.timestamp() * 1000) if at is not None else None)
        client.set_terminated(run.run_id, statuses(end)[0], when)


def _log(books: Books, run: RunRecord, trial: FrozenTrial) -> None:
    objective, hashes = missing_values(trial, run)
    client = client_of(books.uri)
    if objective:
        log_values(client, run.run_id, objective)
    if hashes:
        log_tags(client, run.run_id, hashes)


def closing(uri: str, run: RunRecord, close: Callable[[], None]) -> Iterator[Step]:
    """Yield the step about a RUNNING run that no trial has."""
    where = f"run {run.run_id}"
    if alone := why_alone(run.tags):
        yield Step(where, f"{run.name} is left alone: {alone}", is_living=True)
    else:
        yield Step(where, f"close {run.name}: its process is dead", close)


def _close_other(books: Books, run: RunRecord) -> None:
    client = client_of(books.uri)
    if run.kind == "sweep":
        _close_parent(client, books, run)
    elif run.kind == "trial":  # its parent died between making it and storing its id
        end_run(client, run, RunEnd("FAIL", PARENT_DIED, True))
    else:
        end_run(client, run, INTERRUPTED)


def _close_parent(client: Any, books: Books, run: RunRecord) -> None:
    """End the sweep's own run with what the study comes to, as its parent would have."""
    tally, total = Tally.of(books.study), books.study.user_attrs.get("n_trials")
    log_values(client, run.run_id, summary(tally))
    if tally.best is not None:
        log_tags(client, run.run_id, {"best_trial": str(tally.best.number)})
    is_complete = total is not None and tally.counts.counted >= total
    client.set_terminated(run.run_id, "FINISHED" if is_complete else "KILLED")


def of_others(uri: str, runs: Iterable[RunRecord]) -> Iterator[Step]:
    """Yield what is to be done about runs that are of no sweep, such as those of ``besom train``."""
    for run in runs:
        if run.status == "RUNNING" and run.kind:
            yield from closing(uri, run, partial(_interrupt, uri, run))


def _interrupt(uri: str, run: RunRecord) -> None:
    end_run(client_of(uri), run, INTERRUPTED)
