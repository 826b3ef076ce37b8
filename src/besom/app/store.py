"""Making a store: the folder with MLflow's database in it, ready for any number of processes.

The database appears whole under its name or not at all: it is written under another name, in
`.creating/`, and renamed. Knows nothing of Optuna: the sweep makes ``studies.db`` itself.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from besom.contained import refuse_linked_databases
from besom.databases import is_there
from besom.errors import ConfigError, ResumeError, StoreDamaged, StoreReadOnly, SweepLocked
from besom.lock import holder_of, is_of_another_boot, open_lock
from besom.paths import Store, write_atomically
from besom.results import TrialResult
from besom.tracking import fix_environment

if TYPE_CHECKING:
    from optuna import Study


def create_store(store: Store) -> None:
    """Make the store where there is none (2 s); parents call it before any worker starts.

    Raises:
        ConfigError: the folder cannot be made or written.
        StoreDamaged: in its lock's place is a link, or no file.
    """
    draft = store.root / ".creating"
    if store.exists and not draft.exists():
        return
    try:
        store.root.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(store):
            if not store.exists:  # another parent may have made it meanwhile
                _create_database(store)
            shutil.rmtree(draft, ignore_errors=True)  # left by a parent that was killed when it had just made it
    except StoreDamaged:  # its lock is none
        raise
    except OSError as error:
        raise ConfigError(
            f"paths.store={str(store.root)!r} cannot be made: {error.strerror}; expected a folder that can be written"
        ) from error


def refuse_read_only(store: Store) -> None:
    """Raise `StoreReadOnly` where a store, or the place for one, cannot be written; creates nothing.

    Raises:
        ConfigError: one of its databases is a link out of it.
    """
    refuse_linked_databases(store)
    places = (store.root, store.mlflow_db, store.studies_db, store.artifacts, store.root / "jobs")
    there = [place for place in places if place.exists()] or [next(one for one in store.root.parents if one.exists())]
    if closed := [place for place in there if not os.access(place, os.W_OK)]:
        raise StoreReadOnly(
            f"{closed[0]} cannot be written, and this command writes; status, runs, best, diff, predict and report "
            "--output read it as it is: make it writable, or give another store with BESOM_STORE or paths.store"
        )


def databases_of(store: Store, storage: str, tracking_uri: str) -> list[Path]:
    """Return which of the store's own files a sweep writes whose study and runs are there."""
    return [
        *([store.studies_db] if storage == store.studies_uri else []),
        *([store.mlflow_db] if tracking_uri == store.mlflow_uri else []),
    ]


def refuse_two_machines(store: Store, name: str, databases: Sequence[Path]) -> None:
    """Raise `SweepLocked` where a sweep on another machine writes into the same files, on a disk that both share.

    SQLite's write-ahead mode has its index in memory, which two machines do not share: they damage the file.

    Args:
        databases: that are to be written, see `databases_of`.
    """
    for lock in store.locks.glob("[!.]*"):
        with suppress(OSError, ConfigError):  # nobody can tell, or a file that is no lock of a sweep
            holder = None if lock.name == name else holder_of(lock)
            if holder is None or not is_of_another_boot(holder):
                continue
            elsewhere = {store.studies_db: store.storage(lock.name), store.mlflow_db: store.tracking_uri(lock.name)}
            if both := [str(file) for file in databases if not is_there(elsewhere[file])]:
                raise SweepLocked(
                    f"{' and '.join(both)} of this store may be written by one machine at a time, SQLite's files being "
                    f"such, and {holder.get('host')} runs sweep '{lock.name}' in it; wait for that, or give another "
                    "store with BESOM_STORE, or have study and runs in servers: BESOM_STORAGE and tracking.uri"
                )


def refuse_lost(store: Store, name: str, place: str, study: Study | None) -> None:
    """Raise `StoreDamaged` where a sweep's folder has results of trials that its study does not know.

    A trial is in the study before anything of it is on disk: the database has lost what was in it, and to go on would
    train other points under the same numbers.

    Args:
        place: where the study is, or was: the store's file, or a server.
    """
    is_file = place == str(store.studies_db)
    with_it = ", its -wal with it" if is_file else ""
    how = "" if is_file else " (maybe it was deleted from another store)"
    id_ = study.user_attrs.get("id") if study is not None else None
    known = len(study.get_trials(deepcopy=False)) if study is not None else 0
    jobs = [int(path.parent.name) for path in store.sweep(name).glob("*/result.json") if path.parent.name.isdecimal()]
    if id_ is None and jobs:
        raise StoreDamaged(
            f"{store.sweep(name)} has the results of {len(jobs)} trials, and {place} does not know their sweep{how}: "
            f"put that back from a copy{with_it}, or start over with --fresh, which deletes them"
        )
    lost = [job for job in jobs if job >= known and TrialResult.read(store.job(name, job), job, str(id_)) is not None]
    if lost:
        raise StoreDamaged(
            f"{place} has {known} trials of sweep '{name}', but {store.job(name, min(lost))} holds the result of a "
            f"later one: it has lost its last writes; put it back from a copy{with_it}, or start over with --fresh, "
            "which deletes them"
        )


def keep_data(store: Store, name: str, digest: str, *, is_resume: bool) -> None:
    """Store what a sweep is trained on at its start; later see that it is the same.

    Raises:
        ResumeError: a file of images was changed, or ``data.path`` names another: no trial could be compared.
    """
    file = store.data_digest(name)
    if not is_resume or not file.is_file():
        write_atomically(file, digest)
        return
    refuse_other_data(name, file.read_text(encoding="utf-8", errors="replace"), digest)


def refuse_other_data(name: str, before: str, digest: str) -> None:
    """Raise `ResumeError` where a sweep was started with other images than those of now, see `keep_data`."""
    if before != digest:
        raise ResumeError(
            f"sweep '{name}' was started with other images (SHA-256 {before[:12]}… then, {digest[:12]}… now): its "
            "trials could not be compared; name the same file with data.path, or use another --name"
        )


@contextmanager
def _one_at_a_time(store: Store) -> Iterator[None]:
    handle = open_lock(store.root / ".creating.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _create_database(store: Store) -> None:
    draft = Store(store.root / ".creating")
    shutil.rmtree(draft.root, ignore_errors=True)  # left by a parent that was killed here
    draft.root.mkdir()
    with closing(sqlite3.connect(draft.mlflow_db)) as database:
        _fill(database, store)
        database.execute("PRAGMA journal_mode = WAL")  # written into the file, so it holds for everybody
    os.replace(draft.mlflow_db, store.mlflow_db)
    shutil.rmtree(draft.root)


def _fill(database: sqlite3.Connection, store: Store) -> None:
    """Copy a freshly migrated MLflow database, the artifacts of its default experiment being the store's.

    MLflow migrates it in memory: its 200 statements wait for a busy disk three times as long as they take.
    """
    fix_environment()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    engine = SqlAlchemyStore("sqlite:///:memory:", store.artifacts.as_uri()).engine
    with closing(engine.raw_connection()) as memory:
        memory.driver_connection.backup(database)
    engine.dispose()  # MLflow keeps the engine; the next one finds its memory empty
