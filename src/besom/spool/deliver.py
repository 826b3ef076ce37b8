"""Brings MLflow what waits on disk: each run's operations in order, as often interrupted as one likes.

`pending` only reads. `deliver` writes down after each operation how far it came; operations may be repeated, so a kill
at any point loses nothing and makes nothing twice. Knows nothing of studies: it is given who notes the ids of runs.
"""

from __future__ import annotations

import fcntl
import math
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from besom.errors import ConfigError, UserError, one_line, shown
from besom.experiments import import_mlflow, mlflow_client
from besom.lock import is_dead
from besom.paths import OUTSIDE_SWEEPS, Store
from besom.spool.attempt import bounded, patient
from besom.spool.classes import Failure, failure_of, is_outage
from besom.spool.journal import Journal, n_pending, remove_rests
from besom.spool.operations import CREATED_AS, Create, End, Note, Target, from_json
from besom.spool.probe import why_away
from besom.tracker import NoteIds, is_provisional
from besom.uris import absolute_uri, refuse_unasked_server
from besom.withheld import withheld, without_password

SECONDS = 90.0
FILES_SECONDS = 900.0
"""For one operation, and for one with files: twice as long as while a trial waits, for servers that are slow."""
SWEEPS_OWN = "sweep"
"""In the place of a run's id: the sweep's own run, whose id was not known."""


@dataclass(frozen=True)
class Waiting:
    """A run with something that MLflow was not told.

    Args:
        sweep: its name, `OUTSIDE_SWEEPS` where it is of none.
        run_id: MLflow's, or a provisional one where MLflow has no such run yet.
        n_operations: how many are left to be delivered.
        bytes: that its folder takes.
        trial: its number, None outside a sweep and for the sweep's own run.
        has_ended: whether its end is among what waits.
        is_free: nobody adds to it any more: it has ended, or the process that worked on it is dead.
        made: MLflow's id of the run that a delivery has made, and could not tell all.
    """

    sweep: str
    run_id: str
    n_operations: int
    bytes: int
    trial: int | None = None
    has_ended: bool = True
    is_free: bool = True
    made: str | None = None


@dataclass(frozen=True)
class Delivered:
    """What a delivery came to.

    Args:
        delivered: runs of which MLflow now has everything.
        left: runs that still wait.
        reason: why, on one line; None where nothing is left, or nothing but runs that somebody still works on.
        is_away: whether that is MLflow's absence.
        run_ids: {provisional id: MLflow's id} of the runs that were delivered, as noted.
    """

    delivered: int = 0
    left: int = 0
    reason: str | None = None
    is_away: bool = False
    run_ids: dict[str, str] = field(default_factory=dict)


def pending(store: Store, sweep: str | None = None) -> list[Waiting]:
    """Return the runs of a sweep, or of all and of none, that wait; only reads. In order of sweeps and trials."""
    folders = sorted(store.spools.glob("[!.]*")) if sweep is None else [store.spool(sweep)]
    return [_waiting(folder.name, one) for folder in folders for one in _journals(folder) if one.exists]


def is_waiting(run_id: str, tags: Mapping[str, str], waiting: Iterable[Waiting]) -> bool:
    """Tell whether MLflow was not told all of a run that it has, be it one that was made out of what waits.

    Args:
        tags: the run's.
    """
    names = {run_id, tags.get(CREATED_AS)}
    return any(one.run_id in names or one.made == run_id for one in waiting)


def deliver(
    store: Store,
    sweep: str,
    uri: str,
    note: NoteIds,
    *,
    is_asked: bool = False,
    seconds: float = math.inf,
    run_id: str | None = None,
    free: Collection[str] = (),
) -> Delivered:
    """Tell MLflow what waits of a sweep, or of `OUTSIDE_SWEEPS`.

    Runs that somebody still works on are left. MLflow is asked first whether it is there at all, for 5 seconds at most.

    Args:
        uri: where runs are made that MLflow does not have yet; of the others it is told where they are.
        note: is told {provisional id: MLflow's id} of runs that were made, before their journals go, maybe twice: for a
            sweep `besom.sweep.run_ids.note` of its study, for `OUTSIDE_SWEEPS` nobody needs it.
        is_asked: somebody here has given ``uri``, not the store alone.
        seconds: begin no further run after so many.
        run_id: deliver that run alone; the caller says that nobody works on it any more.
        free: ids of other runs of which the caller says so.
    """
    delivery = _Delivery(store, sweep, uri, note, is_asked=is_asked)
    folder = store.spool(sweep)
    if links := [one for one in (store.spools, folder) if one.is_symlink()]:
        left = n_pending(store, sweep)
        return Delivered(left=left, reason=f"{links[0]} is a link; expected a folder of the store" if left else None)
    asked = None if run_id is None else Journal(folder / run_id)
    with _alone(folder) as is_alone, patient():
        if not is_alone:
            delivery.reason = "another process delivers it now"
        else:
            remove_rests(folder)
        end = time.monotonic() + seconds
        for journal in ([asked] if asked else _journals(folder)) if is_alone else []:
            if time.monotonic() >= end:
                break
            delivery.take(journal, is_free=asked is not None or journal.folder.name in free)
    with suppress(OSError):  # something is left
        folder.rmdir()
        store.spools.rmdir()
    left = int(asked.exists) if asked else n_pending(store, sweep)
    why = delivery.reason if left else None
    return Delivered(delivery.delivered, left, why, delivery.is_away, delivery.run_ids)


class _Delivery:
    """One attempt to deliver what waits of a sweep."""

    def __init__(self, store: Store, sweep: str, uri: str, note: NoteIds, *, is_asked: bool) -> None:
        self.delivered = 0
        self.reason: str | None = None
        self.run_ids: dict[str, str] = {}
        self._store = store
        self._sweep = sweep
        self._uri = uri
        self._note = note
        named = os.environ.get("MLFLOW_TRACKING_URI")
        self._asked = [*([uri] if is_asked else []), *([absolute_uri(named)] if named else [])]
        self._away: dict[str, str | None] = {}
        self._experiments: dict[str, dict[str, str]] = {}

    def take(self, journal: Journal, *, is_free: bool = False) -> None:
        """Deliver one run, unless somebody works on it or MLflow is away.

        Args:
            is_free: it is known that nobody works on it.
        """
        try:
            journal.refuse_links()
            uri = self._uri_of(journal)
        except UserError as error:  # whoever made it may have meant harm; the others are told all the same
            self.reason = _reason(error)
            return
        if not journal.exists:
            if is_dead(journal.head()):
                journal.remove()
            return
        if not (is_free or _is_free(journal)) or self._is_away(uri):
            return
        try:
            self._run(journal, uri)
        except Exception as error:  # of MLflow, of any kind, or of the disk: what waits goes on waiting
            self.reason = _reason(error)
            if failure_of(error) is Failure.AWAY and (is_outage(error) or why_away(uri)):
                self._away[uri] = self.reason

    def _uri_of(self, journal: Journal) -> str:
        """Return where a run is, or will be made.

        Raises:
            ConfigError: the journal alone says so, which may be somebody else's.
        """
        run_id = journal.folder.name
        if self._sweep != OUTSIDE_SWEEPS and (is_provisional(run_id) or run_id == SWEEPS_OWN):
            return self._uri
        kept = str(journal.head().get("uri") or self._uri)
        if kept in (self._uri, self._store.mlflow_uri, *self._asked):
            return kept
        who = f"the journal {journal.folder.relative_to(self._store.root)}"
        if kept.startswith("sqlite:"):
            raise ConfigError(
                f"{who} says that its run is in {kept}, outside the store; if that is yours, say so: "
                f"MLFLOW_TRACKING_URI={kept} besom …"
            )
        refuse_unasked_server(kept, [self._uri, *self._asked], who)
        return kept

    @property
    def is_away(self) -> bool:
        return any(self._away.values())

    def _is_away(self, uri: str) -> bool:
        if uri not in self._away:
            self._away[uri] = why_away(uri)
        self.reason = self._away[uri] or self.reason
        return self._away[uri] is not None

    def _run(self, journal: Journal, uri: str) -> None:
        run_id, name, operations = self._tell(journal, uri)
        if run_id and is_provisional(name):
            self.run_ids[name] = run_id
            self._note({name: run_id})
        journal.remove()
        self.delivered += 1 if operations else 0

    def _tell(self, journal: Journal, uri: str) -> tuple[str, str, int]:
        """Tell one operation after the other; return MLflow's id of the run, its name on disk, how many there were."""
        name, operations = journal.folder.name, journal.whole_operations()
        done, made = journal.progress()
        run_id = made or ("" if is_provisional(name) or name == SWEEPS_OWN else name)
        if not run_id and operations[:1] and operations[0].get("op") != Create.name:
            return run_id, name, 0  # of a run that nobody can make any more
        known = self._experiments.setdefault(uri, {})
        import_mlflow(uri)
        client = bounded(partial(mlflow_client, uri), SECONDS)
        is_stored = uri.startswith("sqlite:") and (uri == self._store.mlflow_uri or uri not in self._asked)
        target = Target(client, uri, self._store, run_id, experiments=known, is_stored=is_stored)
        for place, content in enumerate(operations[done:], done):
            files = journal.files(content["files"]) if "files" in content else None
            told = self._told(replace(target, files=files), content)
            if told is None:
                break
            target = replace(target, run_id=told)
            journal.note_progress(place + 1, target.run_id)
        return target.run_id, name, len(operations)

    @staticmethod
    def _told(target: Target, content: Mapping[str, Any]) -> str | None:
        """Tell one operation; return the id of its run, None where that is gone and nobody wants to hear the rest.

        What MLflow refuses is left out, with a tag that says so: it would refuse it each time.
        """
        operation = from_json(content)
        try:
            apply = partial(operation.apply, target, again=True)
            made: str | None = bounded(apply, SECONDS if target.files is None else FILES_SECONDS)
        except Exception as error:
            failure = failure_of(error)
            if isinstance(operation, Create) or failure in (None, Failure.AWAY):
                raise
            if failure is Failure.GONE or _is_deleted(target):
                return None
            with suppress(Exception):
                Note(f"{operation.name}: {without_password(one_line(error))}").apply(target, again=True)
            return target.run_id
        return made or target.run_id


def _reason(error: Exception) -> str:
    """Return an error on one line; of what somebody can mend here all of it, with how."""
    return withheld(shown(error)) if isinstance(error, UserError) else without_password(one_line(error))


def _is_deleted(target: Target) -> bool:
    return bool(target.client.get_run(target.run_id).info.lifecycle_stage != "active")


def _journals(folder: Path) -> list[Journal]:
    """Return the journals of a sweep in order of trials, the sweep's own run last: its end is that of all."""
    found = [Journal(file.parent) for file in folder.glob("[!.]*/operations.jsonl")]
    heads = {journal: journal.head() for journal in found}

    def rank(journal: Journal) -> tuple[bool, int, str]:
        trial = heads[journal].get("trial")
        return trial is None, trial if isinstance(trial, int) else -1, journal.folder.name

    return sorted(found, key=rank)


def _waiting(sweep: str, journal: Journal) -> Waiting:
    (head, operations), (done, made) = journal.head_and_operations(), journal.progress()
    left, ended = max(len(operations) - done, 0), _has_ended(operations)
    free = ended or _is_nobodys(head)
    return Waiting(sweep, journal.folder.name, left, journal.n_bytes, head.get("trial"), ended, free, made)


def _has_ended(operations: Sequence[Mapping[str, Any]]) -> bool:
    return bool(operations) and operations[-1].get("op") == End.name


def _is_free(journal: Journal) -> bool:
    head, operations = journal.head_and_operations()
    return _has_ended(operations) or _is_nobodys(head)


def _is_nobodys(head: Mapping[str, Any]) -> bool:
    return not head or is_dead(head)  # a damaged one is nobody's


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Hold a sweep's spool locked against other deliveries; False where another one goes on, or nothing waits."""
    is_alone = False
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        yield False
        return
    try:
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_alone = True
        yield is_alone
    finally:
        os.close(handle)
