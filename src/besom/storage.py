"""Where studies are kept: Optuna's storage, opened, read and deleted by URL.

Knows nothing of what a sweep writes into its study.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import optuna
from sqlalchemy import event
from sqlalchemy.engine import Engine as SqlEngine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from besom.errors import ConfigError

optuna.logging.set_verbosity(optuna.logging.WARNING)  # what a sweep does is told by `besom.sweep.progress`


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """Open Optuna's storage; a SQLite file is put into write-ahead mode, so that readers never wait."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    storage = optuna.storages.RDBStorage(url)
    if url.startswith("sqlite"):
        _write_ahead(storage.engine)
    return storage


def _write_ahead(engine: SqlEngine) -> None:
    @event.listens_for(engine, "connect")
    def _set(connection: Any, record: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # a told trial stays told through a power cut

    engine.dispose()


def has_storage(url: str) -> bool:
    """Return whether there is a storage to read: opening a SQLite file that is not there would make it."""
    file = database_file(url)
    return file is None or file.is_file()


def database_file(url: str) -> Path | None:
    """Return the file of a SQLite storage, None for a server.

    Raises:
        ConfigError: it is no database URL.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError(f"hydra.sweeper.storage={url!r} is no database URL; expected sqlite:///FILE") from error
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
    return sorted(study.study_name for study in open_storage(url).get_all_studies())


def load_study(url: str, name: str) -> optuna.Study:
    """Return an existing study for reading."""
    return optuna.load_study(study_name=name, storage=open_storage(url))


def delete_study(url: str, name: str) -> None:
    """Delete a study if it is there."""
    if name in study_names(url):
        optuna.delete_study(study_name=name, storage=open_storage(url))


def find_study(url: str, name: str) -> optuna.Study | None:
    """Return a study for reading, None where there is none; opens the storage once and makes none."""
    if not has_storage(url):
        return None
    storage = open_storage(url)
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
