"""Making a store: the folder with MLflow's database in it, ready for any number of processes.

The database appears whole under its name or not at all: it is written under another name, in
`.creating/`, and renamed. Knows nothing of Optuna: the sweep makes ``studies.db`` itself.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from besom.errors import ConfigError
from besom.paths import Store
from besom.tracking import fix_environment


def create_store(store: Store) -> None:
    """Make the store where there is none (2 s); parents call it before any worker starts.

    Raises:
        ConfigError: the folder cannot be made or written.
    """
    if store.exists:
        return
    try:
        store.root.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(store):
            if not store.exists:  # another parent may have made it meanwhile
                _create_database(store)
    except OSError as error:
        raise ConfigError(
            f"paths.store={str(store.root)!r} cannot be made: {error.strerror}; expected a folder that can be written"
        ) from error


@contextmanager
def _one_at_a_time(store: Store) -> Iterator[None]:
    handle = os.open(store.root / ".creating.lock", os.O_RDWR | os.O_CREAT, 0o644)
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
