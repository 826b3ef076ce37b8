"""Whether what a store's databases name lies in that store: a store may come from others, and so may the links in it.

Read and written is what is in the store, through the links ``artifacts`` and ``jobs`` at its top, which people make to
use a larger disk; through no link further down. Deleted is through no link at all. Knows nothing of MLflow.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from besom.errors import ConfigError, quoted
from besom.paths import Store

LOCATIONS = (
    "select artifact_location from experiments where experiment_id = :id",
    "select artifact_uri from runs where experiment_id = :id",
    "select artifact_location from logged_models where experiment_id = :id",
    "select value from trace_tags join trace_info using (request_id) where experiment_id = :id "
    "and key = 'mlflow.artifactLocation'",
)
"""Where MLflow's tables say that files of an experiment are; its collector deletes what is there."""
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
MISREAD = re.compile(r"[\x00-\x1f\x7f?#]")
MEND = "; expected files in the store itself: 'besom relocate' mends one that was moved, others are best not used"


def local_path(location: str) -> Path | None:
    """Return the path that a location of artifacts stands for, None where it is no file of this machine."""
    found = _readings(location)
    return found[0] if found else None


def _readings(location: str) -> list[Path]:
    """Return every path that a location may be taken for: MLflow unquotes ``%2e`` once to read, twice to delete.

    None of what is no file of this machine, nor of what holds characters that end a path or are passed over in one.
    """
    if MISREAD.search(location):
        return []
    try:
        parts = urlsplit(location)
    except ValueError:  # such as //[x
        return []
    if (parts.scheme and not location.startswith("file:")) or parts.netloc not in ("", "localhost"):
        return []
    text = parts.path if parts.scheme else location
    found = [unquote(text)]
    while (again := unquote(found[-1])) != found[-1]:
        found.append(again)
    return [] if CONTROL.search(found[-1]) else [Path(one) for one in found]


def refuse_outside(store: Store, location: str, path: str = "", *, everything: bool = True) -> None:
    """Refuse artifacts that a store's database says are elsewhere, or that are links out of the store.

    Args:
        location: of a run's or a model's artifacts.
        path: of one of them, or of a folder with them.
        everything: look at all that is in it, too.

    Raises:
        ConfigError: naming what lies outside.
    """
    readings = _readings(location)
    if not readings:
        raise ConfigError(f"the artifacts are at {quoted(location)}, as the store's database says{MEND}")
    homes = [os.path.realpath(home) for home in (store.root, store.artifacts)]
    for base in readings:
        for file in _with_all_in(base / path) if everything else [str(base / path)]:
            real = os.path.realpath(file)
            if not any(_is_in(real, home) for home in homes):
                raise ConfigError(f"{file}, which the store names, is {real}, outside {store.root}{MEND}")


def _with_all_in(path: Path) -> Iterator[str]:
    yield str(path)
    for folder, folders, files in os.walk(path):
        yield from (os.path.join(folder, name) for name in (*folders, *files))  # noqa: PTH118  # of many files


def refuse_deleting_outside(store: Store, name: str, database: Path | None, experiment_id: str | None) -> None:
    """Refuse to delete a sweep whose files lie outside the store, as its database says or a link does.

    Args:
        database: MLflow's SQLite file, None where MLflow is a server that somebody here has named.
        experiment_id: of the sweep; None where it has none.

    Raises:
        ConfigError: naming what lies outside.
    """
    refuse_linked_databases(store)
    home = os.path.realpath(store.root)
    for own in (store.artifacts / name, store.sweep(name), store.reports / name, store.spool(name)):
        if not _is_in(os.path.realpath(own), home):
            raise _outside(store, name, str(own))
    for location in [] if database is None or experiment_id is None else _named(database, experiment_id):
        readings = _readings(location)
        if not readings or not all(_is_in(os.path.realpath(path), home) for path in readings):
            raise _outside(store, name, location)


def _outside(store: Store, name: str, location: str) -> ConfigError:
    return ConfigError(
        f"sweep '{name}' has files at {location}, outside {store.root}, which besom does not delete{MEND}"
    )


def refuse_linked_databases(store: Store) -> None:
    """Refuse to write into databases that are links out of the store: they may be those of another one.

    Raises:
        ConfigError: naming the link.
    """
    for _, link in linked_databases(store):
        raise ConfigError(link)


def linked_databases(store: Store) -> Iterator[tuple[Path, str]]:
    """Yield the databases of a store that are links out of it, and what is said of each."""
    for file in (store.mlflow_db, store.studies_db):
        if file.is_symlink() and not _is_in(real := os.path.realpath(file), os.path.realpath(store.root)):
            yield file, f"{file} is a link to {real}, outside the store; expected the database itself"


def _named(database: Path, experiment_id: str) -> list[str]:
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as opened:
        tables = {row[0] for row in opened.execute("select name from sqlite_master")}
        asked = [query for query in LOCATIONS if query.split(" from ")[1].split()[0] in tables]
        rows = [row for query in asked for row in opened.execute(query, {"id": int(experiment_id)})]
    return [str(row[0]) for row in rows if row[0]]


def _is_in(real: str, home: str) -> bool:
    return real == home or real.startswith(home.rstrip("/") + "/")
