"""`besom relocate`: a store that was moved or copied works where it is now.

MLflow keeps the addresses of artifacts absolute, in five columns; besom itself keeps one path, with a study whose sweep
began elsewhere, and the address of a tracking database that was the store's own. All else in a store is relative, or a
record that nobody reads: ``.hydra/``, ``config.yaml``, ``MLmodel``.

``mlflow.db`` goes last, in one transaction: by it a store is known as moved, so that a killed call is made again.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from besom.errors import ConfigError, SweepLocked
from besom.lock import holder_of, parent_lock
from besom.paths import Store, write_atomically
from besom.upkeep.moved import former_homes, old_addresses
from besom.withheld import without_password

COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Where MLflow's database has addresses; a test looks for others."""
HOME = "home"
"""The study's attribute that is a path, see `besom.sweep.study.SweepStudy.home`."""
COPY = ".before-relocate"


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
        ConfigError: another process, such as its UI, has its database open.
    """
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
    with closing(sqlite3.connect(store.mlflow_db)) as database:
        return former_homes(database, store)


def _refuse_users(store: Store) -> None:
    """Raise `ConfigError` where a process has MLflow's database open: it would go on with the old addresses."""
    wanted = {str(store.mlflow_db), os.path.realpath(store.mlflow_db)}
    for process in psutil.process_iter(["pid", "name"]):
        try:
            is_user = process.pid != os.getpid() and any(one.path in wanted for one in process.open_files())
        except psutil.Error:  # somebody else's, or it ended just now
            continue
        if is_user:
            raise ConfigError(
                f"process {process.pid} ({process.info['name']}) has {store.mlflow_db} open; expected nobody at work "
                "there: end it ('besom ui' with Ctrl-C), then call this again"
            )


@contextmanager
def _all_locked(store: Store) -> Iterator[None]:
    """Hold the locks of all sweeps."""
    folder = store.root / "jobs" / ".locks"
    names = sorted(lock.name for lock in folder.iterdir()) if folder.is_dir() else []
    for name in names:  # before one of them is taken
        if (holder := holder_of(store.lock(name))) is not None:
            who = f"process {holder['pid']} of {holder['host']}" if holder else "another process"
            raise SweepLocked(f"sweep '{name}' is being run by {who}; wait for it, or stop it with Ctrl-C there")
    with ExitStack() as locks:
        for name in names:
            locks.enter_context(parent_lock(store.lock(name), name))
        yield


@contextmanager
def _changing(file: Path) -> Iterator[sqlite3.Connection]:
    """Give a database in one transaction that nobody else writes into; a copy of it is there until that is done."""
    copy = file.with_name(file.name + COPY)
    copy.unlink(missing_ok=True)  # half of one, of a call that was killed
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        with closing(sqlite3.connect(copy)) as other:
            database.backup(other)
        database.execute("BEGIN IMMEDIATE")
        try:
            yield database
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")
    copy.unlink()


def _mlflow(store: Store) -> Iterator[Change]:
    with _changing(store.mlflow_db) as database:
        pairs = [(old, _new(old, store)) for old in old_addresses(database, store)]
        for table, column in COLUMNS:
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
    """Change the one path that studies have; of a sweep of this store there is none."""
    if not store.studies_db.is_file():
        return
    with _changing(store.studies_db) as database:
        query = "select study_user_attribute_id, value_json from study_user_attributes where key = ?"
        rows = [(number, json.loads(text)) for number, text in database.execute(query, [HOME])]
        moved = [(number, after) for number, path in rows if (after := _inside(path, store, former))]
        for number, path in moved:
            database.execute(
                "update study_user_attributes set value_json = ? where study_user_attribute_id = ?",
                (json.dumps(path), number),
            )
        yield Change("studies.db: home", len(moved))


def _inside(path: object, store: Store, former: list[Path]) -> str | None:
    """Return where a path of a former place is now, None where it is of none."""
    for old in former:
        if isinstance(path, str) and Path(path).is_relative_to(old):
            return str(store.root / Path(path).relative_to(old))
    return None


def _tracking_uris(store: Store, former: list[Path]) -> Iterator[Change]:
    """Change the addresses of tracking databases that lay in the store."""
    number = 0
    for file in _tracking_files(store):
        uri = file.read_text(encoding="utf-8")
        if uri.startswith("sqlite:///") and (after := _inside(uri.removeprefix("sqlite:///"), store, former)):
            write_atomically(file, f"sqlite:///{after}")
            number += 1
    yield Change("jobs/SWEEP/tracking_uri", number)


def _spools(store: Store, former: list[Path]) -> Iterator[Change]:
    """Change where runs go of which MLflow was not told all yet: the first line of each journal says that."""
    number = 0
    for file in sorted(store.spools.glob("*/*/operations.jsonl")):
        head, _, operations = file.read_text(encoding="utf-8").partition("\n")
        content = json.loads(head)
        uri = str(content.get("uri") or "")
        if uri.startswith("sqlite:///") and (after := _inside(uri.removeprefix("sqlite:///"), store, former)):
            write_atomically(file, json.dumps({**content, "uri": f"sqlite:///{after}"}) + "\n" + operations)
            number += 1
    yield Change("spool: journals", number)


def _tracking_files(store: Store) -> list[Path]:
    return sorted((store.root / "jobs").glob("*/tracking_uri"))


def _elsewhere(store: Store) -> Iterator[Elsewhere]:
    """Yield the sweeps whose runs are on a server or in another database, where addresses of this store may be."""
    for file in _tracking_files(store):
        uri = file.read_text(encoding="utf-8")
        if uri != store.mlflow_uri:
            yield Elsewhere(file.parent.name, without_password(uri))
