"""Checks of MLflow's side of a sweep against its study: every run there, ended as its trial, its numbers whole."""

from __future__ import annotations

from collections.abc import Iterator

from optuna.trial import FrozenTrial

from besom.upkeep.agreement import differing, end_of, epochs_wanting, missing_values
from besom.upkeep.books import Books
from besom.upkeep.findings import Finding, error, note, some, warning
from besom.upkeep.left import left_runs, why_alone
from besom.upkeep.run_records import RunRecord
from besom.withheld import without_password


def readable(books: Books) -> Iterator[Finding]:
    """Whether the runs can be read at all."""
    if books.unread is not None:
        where = without_password(books.uri) or "tracking.uri"
        yield error(
            f"sweep {books.name}",
            f"its runs cannot be read: {where}: {books.unread}",
            "start the server, or set MLFLOW_TRACKING_URI to where they are; what is in the study stays",
        )


def lost(books: Books) -> Iterator[Finding]:
    """Runs that the study names and MLflow has no more."""
    if books.runs is None or books.holder is not None:
        return
    for trial in books.trials:
        if not books.has_lost_run_of(trial):
            continue
        yield error(
            f"{books.name}/{trial.number}",
            f"MLflow has no run {books.run_id_of(trial)}: it was deleted, or its database is an older copy",
            "mlflow runs restore, or a copy of mlflow.db; the result itself is in the study",
        )


def ends(books: Books) -> Iterator[Finding]:
    """Runs of ended trials that did not end as their trials."""
    for trial, run in _ended(books):
        if wrong := differing(run, end_of(trial)):
            yield warning(
                f"{books.name}/{trial.number}", f"its run has {' and '.join(wrong)}", f"besom repair {books.name}"
            )


def numbers(books: Books) -> Iterator[Finding]:
    """What a complete trial's run lacks, or has otherwise than the study; metrics of epochs that are not whole."""
    for trial, run in _ended(books):
        where = f"{books.name}/{trial.number}"
        objective, hashes = missing_values(trial, run)
        if objective:
            has = run.metrics.get("objective", "no")
            yield warning(
                where, f"its run has {has} objective, the study {trial.values[0]}", f"besom repair {books.name}"
            )
        if hashes:
            told = some(f"{'another' if key in run.tags else 'no'} {key}" for key in hashes)
            yield warning(where, f"its run has {told}", f"besom repair {books.name}")
        if trial.user_attrs.get("outcome") in ("complete", "pruned") and (wanting := list(epochs_wanting(trial, run))):
            yield error(where, some(wanting), f"besom reproduce {where} trains it again and logs every epoch")


def _ended(books: Books) -> Iterator[tuple[FrozenTrial, RunRecord]]:
    """Yield the ended trials that have a run, of which nothing waits; none of a sweep that somebody works on."""
    if books.holder is not None:
        return
    for trial in books.trials:
        if trial.state.is_finished() and not books.is_waiting(trial) and (run := books.run_of(trial)) is not None:
            yield trial, run


def dead(books: Books) -> Iterator[Finding]:
    """Runs that are RUNNING, and whose process is dead: a trial's that the study has not, the sweep's own, others."""
    ended = {run.run_id for _, run in _ended(books)}  # told by `ends`
    for run in left_runs(books):
        trial = books.trial_of(run)
        is_told = run.run_id in ended or (trial is not None and books.run_id_of(trial) == run.run_id)
        if not is_told and not (books.waiting and run.kind == "sweep"):  # its end waits
            yield dead_run(run, f"besom repair {books.name}", whose=f" of sweep {books.name}")


def dead_run(run: RunRecord, mend: str, whose: str = "") -> Finding:
    """Return the finding about a RUNNING run that no trial has."""
    if alone := why_alone(run.tags):
        return note(f"run {run.run_id}", f"{run.name}{whose} is RUNNING; {alone}")
    return warning(f"run {run.run_id}", f"{run.name}{whose} is RUNNING, its process is dead", mend)


def parent(books: Books) -> Iterator[Finding]:
    """The sweep's own run: one, and no more."""
    if books.runs is None or books.holder is not None or not books.trials:
        return
    parents = [run for run in books.runs.values() if run.kind == "sweep"]
    where = f"sweep {books.name}"
    if not parents and not books.waiting and any("run_id" in trial.user_attrs for trial in books.trials):
        yield warning(where, "MLflow has no run of the sweep itself", f"besom sweep {books.name} makes it anew")
    if len(parents) > 1:
        others = some(run.run_id for run in parents[1:])
        yield warning(where, f"MLflow has {len(parents)} runs of it", f"delete what is too much: mlflow runs: {others}")


def unknown(books: Books) -> Iterator[Finding]:
    """Ended runs of trials that the study has not, or has with another run: more runs than trials."""
    if books.runs is None or books.holder is not None or books.waiting:  # whose ids are not noted yet
        return
    known = {books.run_id_of(trial) for trial in books.trials}
    for run in books.runs.values():
        is_own = run.kind == "trial" and run.run_id not in known and run.status == "FINISHED"
        if is_own:
            yield warning(
                f"run {run.run_id}",
                f"{run.name} is FINISHED, and no trial of sweep {books.name} has it",
                "the study is older than MLflow's database: put back both of one copy",
            )
