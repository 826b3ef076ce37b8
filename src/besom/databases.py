"""A SQLite file of the store, as it is before a library opens it and while one uses it.

Damaged, another program's, locked by one, or on a disk that cannot be written: each is found here, where the file's
name is known, and told in one line. Never changes a file. Knows nothing of Optuna's and MLflow's tables but one name.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from besom.disk import explain
from besom.errors import StoreBusy, StoreDamaged

HEADER = b"SQLite format 3\0"
TURN_SECONDS = 1.0
"""How long SQLite itself waits for a lock; between such turns Ctrl-C is heard."""
TOLD_AFTER = 3.0
READERS_WAIT = 10.0
WRITERS_WAIT = 60.0
"""Seconds: a wait is told after so many; who only reads gives up after so many, and who writes."""

Returned = TypeVar("Returned")


def tables_in(file: Path, connection: type[PatientConnection] | None = None) -> set[str]:
    """Return the names of a database's tables; none of an empty file, which is a database that nobody has filled.

    Args:
        connection: how long a locked file is waited for; by default as by who only reads.

    Raises:
        StoreDamaged: it is none, or cannot be read as one.
        StoreBusy: another program keeps it locked.
    """
    if not is_there(file):
        return set()
    if not file.is_file():
        what = "a link to nothing" if file.is_symlink() else "no file"
        raise StoreDamaged(f"{file} is {what}; expected a SQLite database: put it back from a copy of the store")
    try:
        with closing(sqlite3.connect(file, factory=connection or ReadingConnection)) as database:
            rows = database.cursor().execute("select name from sqlite_master where type = 'table'").fetchall()
    except StoreDamaged:
        _refuse_no_database(file)
        raise
    return {name for (name,) in rows}


def _refuse_no_database(file: Path) -> None:
    """Raise `StoreDamaged` where a file does not begin as SQLite's do.

    Never of a file that is sound: where this process has it open through SQLite, to close it takes away SQLite's lock,
    and whoever ends next removes the ``-wal`` that this process goes on writing into (sqlite.org/howtocorrupt.html).
    """
    with file.open("rb") as opened:
        begins = opened.read(len(HEADER))
    if begins and begins != HEADER:
        raise StoreDamaged(
            f"{file} is no SQLite database: it begins with {begins!r}; put it back from a copy of the store, or move "
            "it away"
        )


def is_there(file: Path) -> bool:
    """Return whether there is anything under a name, a link to nothing too: a database is not made over it."""
    return os.path.lexists(file)


def fold_in(file: Path) -> None:
    """Bring what is in a database's ``-wal`` into the file itself, so that a copy of that alone is whole.

    While somebody reads it stays as it is: that is no failure.
    """
    if file.is_file():
        with closing(sqlite3.connect(file, timeout=TURN_SECONDS)) as database, suppress(sqlite3.Error):
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def refuse_foreign(file: Path, tables: Iterable[str], owner: str, names: set[str]) -> None:
    """Raise `StoreDamaged` where a database has tables, and none of those that its owner makes."""
    found = sorted(set(tables))
    if found and not names & set(found):
        raise StoreDamaged(
            f"{file} is another program's database (it has the table {found[0]}); expected {owner}'s: put it back from "
            "a copy of the store, or move it away"
        )


@cache
def readable(file: Path) -> Path:
    """Return a database to read: the file itself, or a copy of it that lasts as long as this process.

    Where the folder cannot be written, SQLite reads a database in write-ahead mode only while its ``-shm`` is there.
    """
    if os.access(file.parent, os.W_OK) or _beside(file, "-shm").exists() or not file.exists():
        return file
    folder = Path(tempfile.mkdtemp(prefix="besom-read-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for one in (file, _beside(file, "-wal")):
        if one.exists():
            shutil.copyfile(one, folder / one.name)
    return folder / file.name


def _beside(file: Path, ending: str) -> Path:
    return file.with_name(file.name + ending)


_given_up: dict[str, float] = {}
"""Files that a sweep has waited for in vain, and how long; until it can write into one again it waits for it no second
time."""


class Patience:
    """Waits for a lock, in turns, up to a bound; tells of it once."""

    def __init__(self, file: str, seconds: float) -> None:
        self.file = file
        self._seconds = seconds

    def __call__(self, call: Callable[..., Returned], *arguments: Any) -> Returned:
        """Call something that SQLite may refuse; raise what is told in one line instead of what SQLite says."""
        since, told = time.monotonic(), False
        while True:
            try:
                return call(*arguments)
            except sqlite3.Error as error:
                waited = time.monotonic() - since
                if not _is_locked(error) or self.file in _given_up or waited >= self._seconds:
                    raise self._told(error, waited) from error
                if not told and waited >= min(TOLD_AFTER, self._seconds):
                    told = self._tell()

    def _tell(self) -> bool:
        sys.stderr.write(f"besom: {self.file} is locked by another program; waiting up to {self._seconds:g} s for it\n")
        sys.stderr.flush()
        return True

    def _told(self, error: sqlite3.Error, waited: float) -> Exception:
        if not _is_locked(error):
            return explain(error, self.file, [Path(self.file).parent]) or error
        if self._seconds >= WritingConnection.seconds:
            waited = _given_up[self.file] = _given_up.get(self.file, 0.0) + waited
        return StoreBusy(
            f"{self.file} has been locked by another program for {waited:.0f} s; nothing that was finished is lost: "
            "end that program (fuser names it), then the same command goes on"
        )


def _is_locked(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


class PatientConnection(sqlite3.Connection):
    """A connection of which every statement and every commit waits for a locked file, see `Patience`."""

    seconds = READERS_WAIT

    def __init__(self, database: str, timeout: float = TURN_SECONDS, *arguments: Any, **keywords: Any) -> None:
        self.patiently = Patience(str(database), self.seconds)
        self.patiently(lambda: super(PatientConnection, self).__init__(database, TURN_SECONDS, *arguments, **keywords))

    def cursor(self, factory: Any = None) -> Any:
        return super().cursor(PatientCursor)

    def commit(self) -> None:
        wrote = self.in_transaction
        self.patiently(super().commit)
        if wrote:
            _given_up.pop(self.patiently.file, None)


class PatientCursor(sqlite3.Cursor):
    """What runs a patient connection's statements, and what reads their rows."""

    connection: PatientConnection

    def execute(self, *arguments: Any) -> Any:
        return self.connection.patiently(super().execute, *arguments)

    def executemany(self, *arguments: Any) -> Any:
        return self.connection.patiently(super().executemany, *arguments)

    def fetchone(self) -> Any:
        return self.connection.patiently(super().fetchone)

    def fetchmany(self, *arguments: Any) -> Any:
        return self.connection.patiently(super().fetchmany, *arguments)

    def fetchall(self) -> Any:
        return self.connection.patiently(super().fetchall)


class WaitingConnection(PatientConnection):
    """Of a sweep that begins to read."""

    seconds = WRITERS_WAIT


class ReadingConnection(PatientConnection):
    """Of a command that looks: it does not wait for long."""


class WritingConnection(PatientConnection):
    """Of a sweep: it has something to lose, and the patience for it.

    The file is put into write-ahead mode, so that readers never wait, and a told trial stays told through a power cut.
    """

    seconds = WRITERS_WAIT

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.cursor().execute("PRAGMA journal_mode=WAL").close()
        self.cursor().execute("PRAGMA synchronous=FULL").close()
