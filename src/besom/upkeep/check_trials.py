"""Checks of a sweep's study: trials that nobody runs any more, points that were trained twice, results on disk."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from optuna.trial import FrozenTrial

from besom.errors import StoreDamaged, one_line
from besom.files import read_bounded
from besom.results import FILE_NAME, MOST_BYTES, TrialResult
from besom.sweep.endings import Lost, job_folder_of
from besom.sweep.ownership import OWNER
from besom.sweep.tally import OWN, outcome
from besom.upkeep.books import HOME, Books, named
from besom.upkeep.findings import Finding, error, note, some, warning
from besom.upkeep.left import left_trials


def held(books: Books) -> Iterator[Finding]:
    """Who works on the sweep: what is his is not checked."""
    if books.holder is not None:
        yield note(f"sweep {books.name}", f"{named(books.holder)} works on it; it is checked when nobody does")


def elsewhere(books: Books) -> Iterator[Finding]:
    """Trials of a study in a server that ran from another store, whose files and maybe runs are there."""
    numbers = [trial.number for trial in books.trials if trial.state.is_finished() and books.ran_elsewhere(trial)]
    if numbers and books.holder is None:
        what = f"trials {some(numbers)} ran from another store: what they left is checked there"
        yield note(f"sweep {books.name}", what)


def left(books: Books) -> Iterator[Finding]:
    """Trials that are RUNNING in the study, and whose parent is dead."""
    for one in left_trials(books):
        where = f"{books.name}/{one.trial.number}"
        if one.alone is not None:
            yield note(where, f"the trial is RUNNING though nobody works on the sweep; {one.alone}")
            continue
        if one.end is None:
            what = f"the trial is RUNNING, its parent is dead, and nobody can tell how it ended: {one.unread}"
            yield warning(where, what, "put that back, mount its disk or mend the rights on it; then besom repair")
            continue
        became = "it left no result" if isinstance(one.end, Lost) else f"its result is whole: {one.end.state}"
        yield warning(
            where, f"the trial is RUNNING, its parent is dead and {became}", f"besom repair {books.name}, or resume it"
        )


def trained_twice(books: Books) -> Iterator[Finding]:
    """Two trials of one point that both ended by themselves."""
    known: dict[str, list[int]] = defaultdict(list)
    for trial in books.trials:
        if outcome(trial) in OWN and trial.params and "point" in trial.user_attrs:
            known[json.dumps(trial.params, sort_keys=True, default=str)].append(trial.number)
    for numbers in known.values():
        if len(numbers) > 1:
            yield warning(
                f"sweep {books.name}",
                f"trials {some(numbers)} are of one point, which counts {len(numbers)} times",
                "nothing is lost; tell the maintainers how it came, with 'besom runs' of the sweep",
            )


def results(books: Books) -> Iterator[Finding]:
    """``result.json`` of trials that came to their end: there, whole, of this study, and what the study says."""
    for trial in books.trials if books.home.is_dir() and books.holder is None else ():
        if outcome(trial) in ("complete", "pruned") and not books.ran_elsewhere(trial):
            folder = job_folder_of(trial, books.home)
            if wrong := _wrong_result(folder, trial, books.id):
                yield warning(
                    f"{books.name}/{trial.number}",
                    f"{folder / FILE_NAME} {wrong}",
                    "the study has the result, which counts; put the file back from a copy of the store",
                )


def _wrong_result(folder: Path, trial: FrozenTrial, study: str) -> str | None:
    file = folder / FILE_NAME
    if not file.is_file():
        return "is missing"
    try:
        result = TrialResult.read(folder, trial.number, study)
    except StoreDamaged as unreadable:
        return f"cannot be read: {one_line(unreadable.__cause__ or unreadable)}"
    if result is None:
        return _why_no_result(file, trial.number, study)
    if result.state != trial.state.name or (result.values and result.values != trial.values):
        told = f"{trial.state.name} {trial.values or ''}".strip()
        return f"says {result.state} {result.values or ''}".strip() + f", the study {told}"
    return None


def _why_no_result(file: Path, number: int, study: str) -> str:
    try:
        content = json.loads(read_bounded(file, MOST_BYTES))
        owner, of = content.get("study", ""), content.get("number")
    except (ValueError, AttributeError, RecursionError):
        return "is no whole JSON"
    if owner != study:
        return f"is of another study ({owner!r} instead of {study!r})"
    return f"is of trial {of}" if of != number else "is not whole"


def folder(books: Books) -> Iterator[Finding]:
    """The sweep's folder: its own, with the copies of the configs that a resume takes."""
    where = f"sweep {books.name}"
    if not books.home.is_dir():
        yield error(where, f"its folder {books.home} is gone", "put it back from a copy of the store")
        return
    owner = books.home / OWNER
    if owner.is_file() and owner.read_text(encoding="utf-8", errors="replace") != books.id:
        anew = "" if books.is_in_store else "; or move it away, where a --fresh from another store began anew"
        mend = f"put it back from a copy of the store{anew}"
        yield error(where, f"{books.home} holds the jobs of another study", mend)
    if HOME in books.study.user_attrs:  # another app's, which has copies of other folders
        return
    for part in ("conf", "sweeps"):
        if not (books.store.snapshot(books.name) / part).is_dir():
            yield warning(
                where,
                f"its snapshot has no {part}/: a resume would take the files as they now are",
                "put jobs/SWEEP/snapshot back from a copy of the store",
            )
            return
