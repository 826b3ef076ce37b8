"""`besom relocate`: a store that was moved or copied works where it is now.

MLflow keeps the addresses of artifacts absolute, in six columns; besom itself keeps one path, with a study whose sweep
began elsewhere, and the address of a tracking database that was the store's own. All else in a store is relative, or a
record that nobody reads: ``.hydra/``, ``config.yaml``, ``MLmodel``.

``mlflow.db`` goes last, in one transaction: by it a store is known as moved, so that a killed call is made again.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from besom.contained import linked_databases
from besom.databases import tables_in
from besom.errors import ConfigError, SweepLocked, shown
from besom.experiments import checked_file
from besom.files import read_bounded
from besom.lock import holder_of, parent_lock
from besom.paths import SWEEP_NAME, Store, write_atomically
from besom.upkeep.books import HOME, MOST_BYTES, named
from besom.upkeep.leftovers import is_own
from besom.upkeep.moved import former_homes, old_addresses
from besom.withheld import without_password

COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)
"""Where MLflow's database has addresses; a test looks for others, and for those of `besom.contained.LOCATIONS`."""
MOST_OF_JOURNAL = 256_000_000
"""Bytes; no run waits to tell so much."""


@dataclass(frozen=True)
class Change:
    """What was brought after the move: how many addresses or paths of what."""

    what: str
    number: int


@dataclass(frozen=True)
class Elsewhere:
    """A sweep whose runs are not in the store: what nobody here can change."""

    sweep: str
    uri: str


def relocate(store: Store) -> tuple[list[Path], list[Change], list[Elsewhere]]:
    """Bring every path of a store that was moved after it; return from where, what was changed, and what could not be.

    Nothing was moved where the first is empty; nothing is changed then.

    Raises:
        SweepLocked: a sweep of it runs.
        ConfigError: another process, such as its UI, has a database of it open, or one is a link out of the store.
        StoreDamaged: a database of it cannot be read.
    """
    for _, link in linked_databases(store):
        raise ConfigError(f"{link}: put it there in the place of the link")
    former = _former(store)
    if not former:
        return [], [], []
    _refuse_users(store)
    with _all_locked(store):
        changes = [*_studies(store, former), *_tracking_uris(store, former), *_spools(store, former)]
        changes += _mlflow(store)
    return former, [one for one in changes if one.number], list(_elsewhere(store))


def _former(store: Store) -> list[Path]:
    """Return the folders that the store's addresses name."""
    checked_file(store.mlflow_uri)
    with closing(_opened(store.mlflow_db)) as database:
        return former_homes(database, store)


def _opened(file: Path) -> sqlite3.Connection:
    """Open a database that is there: it is not made where it has gone meanwhile."""
    return sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True, isolation_level=None)


def _refuse_users(store: Store) -> None:
    """Raise `ConfigError` where a process has a database of it open: it would go on with the old addresses."""
    files = (store.mlflow_db, store.studies_db)
    wanted = {name: file for file in files for name in (str(file), os.path.realpath(file))}
    for process in psutil.process_iter(["pid", "name"]):
        try:
            names = [] if process.pid == os.getpid() else [one.path for one in process.open_files()]
        except psutil.Error:  # somebody else's, or it ended just now
            continue
        if used := [wanted[name] for name in names if name in wanted]:
            raise ConfigError(
                f"process {process.pid} ({process.info['name']}) has {used[0]} open; expected nobody at work "
                "there: end it ('besom ui' with Ctrl-C), then call this again"
            )


@contextmanager
def _all_locked(store: Store) -> Iterator[None]:
    """Hold the locks of all sweeps."""
    folder = store.root / "jobs" / ".locks"
    names = sorted(lock.name for lock in folder.iterdir()) if folder.is_dir() else []
    names = [name for name in names if SWEEP_NAME.fullmatch(name)]  # others are a file system's own
    for name in names:  # before one of them is taken
        if (holder := holder_of(store.lock(name))) is not None:
            raise SweepLocked(
                f"sweep '{name}' is being run by {named(holder)}; wait for it, or stop it with Ctrl-C there"
            )
    with ExitStack() as locks:
        for name in names:
            locks.enter_context(parent_lock(store.lock(name), name))
        yield


@contextmanager
def _changing(file: Path) -> Iterator[sqlite3.Connection]:
    """Give a database in one transaction that nobody else writes into."""
    with closing(_opened(file)) as database:
        database.execute("BEGIN IMMEDIATE")
        try:
            yield database
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")


def _mlflow(store: Store) -> Iterator[Change]:
    with _changing(store.mlflow_db) as database:
        pairs = [(old, _new(old, store)) for old in old_addresses(database, store)]
        there = {name for (name,) in database.execute("select name from sqlite_master where type = 'table'")}
        for table, column in COLUMNS:
            if table not in there:  # of an older MLflow
                continue
            number = sum(_replace(database, table, column, old, new) for old, new in pairs)
            yield Change(f"mlflow.db: {table}.{column}", number)


def _new(old: str, store: Store) -> str:
    """Return the address that takes an old one's place, in the same form."""
    return store.artifacts.as_uri() if old.startswith("file:") else str(store.artifacts)


def _replace(database: sqlite3.Connection, table: str, column: str, old: str, new: str) -> int:
    """Put one beginning in the place of another; return how many there were."""
    return database.execute(
        f"update {table} set {column} = ? || substr({column}, ?) where {column} = ? or substr({column}, 1, ?) = ?",
        (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
    ).rowcount


def _studies(store: Store, former: list[Path]) -> Iterator[Change]:
    """Change the one path that studies have; of a sweep of this store there is none, so in its server neither."""
    if "study_user_attributes" not in tables_in(store.studies_db):  # there is no study yet
        return
    with _changing(store.studies_db) as database:
        query = "select study_user_attribute_id, value_json from study_user_attributes where key = ?"
        rows = [(number, _from_json(text)) for number, text in database.execute(query, [HOME])]
        moved = [(number, after) for number, path in rows if (after := _inside(path, store, former))]
        for number, path in moved:
            database.execute(
                "update study_user_attributes set value_json = ? where study_user_attribute_id = ?",
                (json.dumps(path), number),
            )
        yield Change("studies.db: home", len(moved))


def _from_json(text: object) -> object:
    try:
        return json.loads(str(text))
    except (ValueError, RecursionError):
        return None


def _inside(path: object, store: Store, former: list[Path]) -> str | None:
    """Return where a path of a former place is now, None where it is of none, or was brought after the store before."""
    for old in former:
        if not isinstance(path, str) or not Path(path).is_relative_to(old):
            continue
        # a store that was moved into its own old folder has its new paths there, too: of a call that was killed
        is_new = store.root.is_relative_to(old) and Path(path).is_relative_to(store.root)
        if not is_new:
            return str(store.root / Path(path).relative_to(old))
    return None


def _tracking_uris(store: Store, former: list[Path]) -> Iterator[Change]:
    """Change the addresses of tracking databases that lay in the store."""
    number = 0
    for file in _tracking_files(store):
        uri = _text_of(file, MOST_BYTES) or ""
        if uri.startswith("sqlite:///") and (after := _inside(uri.removeprefix("sqlite:///"), store, former)):
            write_atomically(file, f"sqlite:///{after}")
            number += 1
    yield Change("jobs/SWEEP/tracking_uri", number)


def _spools(store: Store, former: list[Path]) -> Iterator[Change]:
    """Change where runs go of which MLflow was not told all yet: the first line of each journal says that."""
    number = 0
    for file in sorted(file for file in store.spools.glob("*/*/operations.jsonl") if is_own(store, file)):
        head, _, operations = (_text_of(file, MOST_OF_JOURNAL) or "").partition("\n")
        content = _from_json(head)
        if not isinstance(content, dict):
            _say_skipped(file, "it has no first line")
            continue
        uri = str(content.get("uri") or "")
        if uri.startswith("sqlite:///") and (after := _inside(uri.removeprefix("sqlite:///"), store, former)):
            write_atomically(file, json.dumps({**content, "uri": f"sqlite:///{after}"}) + "\n" + operations)
            number += 1
    yield Change("spool: journals", number)


def _text_of(file: Path, most: int) -> str | None:
    """Return what a small file says; None of one that cannot be read, of which that is told."""
    try:
        return read_bounded(file, most).decode()
    except ValueError as error:
        _say_skipped(file, str(error))
        return None


def _say_skipped(file: Path, reason: str) -> None:
    sys.stderr.write(f"besom: {shown(ValueError(f'{file} is left as it is: {reason}'))}\n")


def _tracking_files(store: Store) -> list[Path]:
    return sorted(file for file in (store.root / "jobs").glob("*/tracking_uri") if is_own(store, file))


def _elsewhere(store: Store) -> Iterator[Elsewhere]:
    """Yield the sweeps whose runs are on a server or in another database, where addresses of this store may be."""
    for file in _tracking_files(store):
        with suppress(ValueError):  # who cannot read it was told so
            uri = read_bounded(file, MOST_BYTES).decode()
            if uri == store.mlflow_uri:
                continue
            yield Elsewhere(file.parent.name, without_password(uri))
