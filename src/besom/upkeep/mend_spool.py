"""Tells MLflow what waits on disk since it could not be reached, see `besom.spool`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import partial

import optuna

from besom.errors import BesomError
from besom.paths import OUTSIDE_SWEEPS, Store
from besom.spool.deliver import deliver, pending
from besom.sweep import run_ids
from besom.tracker import NoteIds
from besom.upkeep.books import Books
from besom.upkeep.check_spool import told
from besom.upkeep.steps import Step


def steps(books: Books) -> Iterator[Step]:
    """Yield the step that delivers a sweep's spool, where something waits that nobody adds to any more."""
    if found := [one for one in books.waiting.values() if one.is_free]:
        what = f"tell MLflow {told(found)} that wait on disk"
        yield Step(f"sweep {books.name}", what, partial(_deliver, books, [one.run_id for one in found]))


def of_none(store: Store, uri: str) -> Iterator[Step]:
    """Yield the same for the runs of ``besom train``."""
    if found := [one for one in pending(store, OUTSIDE_SWEEPS) if one.is_free]:
        what = f"tell MLflow {told(found)} that wait on disk"
        yield Step("besom train", what, partial(_told, store, OUTSIDE_SWEEPS, uri))


def _deliver(books: Books, free: Collection[str]) -> None:
    def note(ids: Mapping[str, str]) -> None:
        study = optuna.load_study(study_name=books.name, storage=books.open_study())
        run_ids.note(study, ids)

    _told(books.store, books.name, books.uri, note, free)


def _told(store: Store, sweep: str, uri: str, note: NoteIds = lambda ids: None, free: Collection[str] = ()) -> None:
    result = deliver(store, sweep, uri, note, free=free)
    if result.reason is not None:
        raise BesomError(f"{result.reason}; {result.left} runs go on waiting")
