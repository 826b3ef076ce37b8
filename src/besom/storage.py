"""Where studies are kept: Optuna's storage, opened, read and deleted by URL.

Knows nothing of what a sweep writes into its study.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from besom.database_server import tables_of
from besom.databases import (
    PatientConnection,
    ReadingConnection,
    WritingConnection,
    is_there,
    readable,
    refuse_foreign,
    tables_in,
)
from besom.errors import ConfigError, StoreDamaged, one_line
from besom.server_storage import ServerStorage
from besom.withheld import without_password

optuna.logging.set_verbosity(optuna.logging.WARNING)  # what a sweep does is told by `besom.sweep.progress`


TABLES = {"studies", "trials", "trial_values", "version_info", "alembic_version"}
"""Optuna makes them one after another; a database with all of them is whole, one with none of them somebody else's."""


def open_storage(url: str, on_return: Callable[[], None] | None = None) -> optuna.storages.RDBStorage:
    """Open Optuna's storage for writing, made where there is none.

    A SQLite file is put into write-ahead mode; a locked one is waited for, see `besom.databases`. So is a server, see
    `besom.server_storage`.

    Args:
        on_return: called when a server answers that was away.

    Raises:
        StoreDamaged: the file is no database, another program's, or one of another version of Optuna.
        StoreBusy: another program keeps it locked.
    """
    return _opened(url, WritingConnection, on_return)


def read_storage(url: str) -> optuna.storages.RDBStorage | None:
    """Open Optuna's storage for reading; None where nothing has been written into it yet.

    A server that goes away meanwhile is waited for a few seconds only.

    Raises: as `open_storage`.
    """
    if (file := database_file(url)) is None:
        if not tables_of(url) >= TABLES:
            return None
        with _of_this_optuna(without_password(url)):
            return ServerStorage(url, is_read=True)
    if not is_there(file):
        return None
    there = readable(file)
    if not tables_in(there) >= TABLES:
        refuse_foreign(file, tables_in(there), "Optuna", TABLES)
        return None
    return _opened(str(make_url(url).set(database=str(there))), ReadingConnection)


def _opened(
    url: str, connection: type[PatientConnection], on_return: Callable[[], None] | None = None
) -> optuna.storages.RDBStorage:
    logging.getLogger("alembic").setLevel(logging.WARNING)
    file = database_file(url)
    if file is None:
        with _of_this_optuna(without_password(url)):
            return ServerStorage(url, on_return)
    tables = tables_in(file)
    refuse_foreign(file, tables, "Optuna", TABLES)
    with _of_this_optuna(file):
        return optuna.storages.RDBStorage(
            url, engine_kwargs={"connect_args": {"factory": connection}}, skip_table_creation=tables >= TABLES
        )


@contextmanager
def _of_this_optuna(place: Path | str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, AssertionError) as error:  # of another version of Optuna; its message says what to do
        raise StoreDamaged(f"{place} is of another version of Optuna: {one_line(error)}") from error


def has_storage(url: str) -> bool:
    """Return whether there is a storage to read: opening a SQLite file that is not there would make it."""
    file = database_file(url)
    return file is None or is_there(file)


def database_file(url: str) -> Path | None:
    """Return the file of a SQLite storage, None for a server.

    Raises:
        ConfigError: it is no database URL.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError(
            f"hydra.sweeper.storage={without_password(url)!r} is no database URL; expected sqlite:///FILE, or "
            "postgresql://USER@HOST/DATABASE"
        ) from error
    is_file = parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:")
    return Path(str(parsed.database)) if is_file else None


def absolute(url: str) -> str:
    """Return a storage's URL so that it means the same in every working directory."""
    file = database_file(url)
    if file is None or file.is_absolute():
        return url
    return make_url(url).set(database=os.path.abspath(file)).render_as_string(hide_password=False)


def study_names(url: str) -> list[str]:
    """Return the names of the studies in a storage that exists."""
    storage = read_storage(url)
    return [] if storage is None else sorted(study.study_name for study in storage.get_all_studies())


def load_study(url: str, name: str) -> optuna.Study:
    """Return an existing study for reading."""
    storage = read_storage(url)
    assert storage is not None, "it exists"
    return optuna.load_study(study_name=name, storage=storage)


def delete_study(url: str, name: str) -> None:
    """Delete a study if it is there."""
    if name in study_names(url):
        optuna.delete_study(study_name=name, storage=open_storage(url))


def find_study(url: str, name: str) -> optuna.Study | None:
    """Return a study for reading, None where there is none; opens the storage once and makes none."""
    storage = read_storage(url)
    if storage is None:
        return None
    try:
        storage.get_study_id_from_name(name)
    except KeyError:
        return None
    return optuna.load_study(study_name=name, storage=storage)


def settings_of(study: optuna.Study | None) -> dict[str, Any] | None:
    """Return what a sweep was started with, by dotted key; None where it was not.

    Raises:
        ConfigError: the study is not a sweep's and holds trials.
    """
    if study is None:
        return None
    settings: dict[str, Any] | None = study.user_attrs.get("settings")
    if settings is None and study.get_trials(deepcopy=False):
        raise ConfigError(
            f"study '{study.study_name}' holds trials that besom did not run; expected another "
            "hydra.sweeper.study_name, or another hydra.sweeper.storage"
        )
    return settings
