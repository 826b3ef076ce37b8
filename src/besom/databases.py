"""A SQLite file of the store, as it is before a library opens it and while one uses it.

Damaged, another program's, locked by one, or on a disk that cannot be written: each is found here, where the file's
name is known, and told in one line. Never changes a file. Knows nothing of Optuna's and MLflow's tables but one name.
"""

from __future__ import annotations

import atexit
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, TypeVar

from besom.disk import explain
from besom.errors import StoreBusy, StoreDamaged, StoreReadOnly
from besom.temporary import temporary_folder

HEADER = b"SQLite format 3\0"
TURN_SECONDS = 1.0
"""How long SQLite itself waits for a lock; between such turns Ctrl-C is heard."""
TOLD_AFTER = 3.0
READERS_WAIT = 10.0
WRITERS_WAIT = 60.0
"""Seconds: a wait is told after so many; who only reads gives up after so many, and who writes."""
PAUSE = 0.05
"""Seconds between two attempts where SQLite has not waited itself."""
BESIDE = ("-wal", "-journal")
"""How the files end that hold what is not in a database yet."""
COPY_TRIES = 5
ABORTING = re.compile(r"(?is)CREATE TRIGGER (?:(?!\bBEGIN\b).)*\bBEGIN\s+SELECT\s+RAISE\(ABORT, '[^']*'\);\s*END")
"""A trigger that does nothing but refuse, such as the one that MLflow makes of its secrets."""

Returned = TypeVar("Returned")


def tables_in(file: Path, connection: type[PatientConnection] | None = None) -> set[str]:
    """Return the names of a database's tables; none of an empty file, which is a database that nobody has filled.

    Args:
        connection: how long a locked file is waited for; by default as by who only reads.

    Raises:
        StoreDamaged: it is none, cannot be read as one, or changes by itself what is written into it.
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
            rules = rules_in(database)
    except StoreDamaged:
        _refuse_no_database(file)
        raise
    if rules:
        raise StoreDamaged(f"{file} has {rules[0]}, {OF_NOBODY}: put it back from a copy of the store")
    return {name for (name,) in rows}


OF_NOBODY = "which no library makes and which may change what is written or read; expected tables alone"


def rules_in(database: sqlite3.Connection) -> list[str]:
    """Return the triggers and views of a database that neither Optuna nor MLflow makes: a store may come from others.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    query = "select type, name, sql from sqlite_master where type in ('trigger', 'view') order by name"
    rows = database.cursor().execute(query).fetchall()
    return [f"the {kind} {name!r}" for kind, name, sql in rows if not ABORTING.fullmatch(str(sql))]


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


Stamps = dict[Path, tuple[int, int]]
_until_the_end = ExitStack()
atexit.register(_until_the_end.close)
_copies: dict[Path, tuple[Stamps, Path]] = {}
"""Databases that can only be read by way of a copy: how they were when they were copied, and the copy."""


def readable(file: Path) -> Path:
    """Return a database to read: the file itself, or a copy of it as it is now, there until this process ends.

    Where the folder cannot be written, SQLite reads a database in write-ahead mode only while its ``-shm`` is there.

    Raises:
        StoreReadOnly: there is no room for the copy.
    """
    if os.access(file.parent, os.W_OK) or _beside(file, "-shm").exists() or not os.access(file, os.R_OK):
        return file
    now = stamps_of(file)
    if file not in _copies or _copies[file][0] != now:
        try:
            folder = _until_the_end.enter_context(temporary_folder())
            is_copied = copied(file, folder / file.name)
        except OSError:
            is_copied = False
        if is_copied is False:
            raise StoreReadOnly(
                f"{file} can be read only by way of a copy, its folder cannot be written, and there is no room for "
                "one: expected some where temporary files go; TMPDIR names another place"
            )
        if is_copied is None:  # SQLite tells what it makes of that
            return file
        _copies[file] = now, folder / file.name
    return _copies[file][1]


def copied(file: Path, copy: Path) -> bool | None:
    """Copy a database with what is not in it yet, as it is at one moment; return whether that went well.

    None where it was written to each time meanwhile. Another process does it: for one that has the database open
    through SQLite, to open and close the file itself takes away SQLite's locks (sqlite.org/howtocorrupt.html).

    Raises:
        OSError: no process can be started.
    """
    for _ in range(COPY_TRIES):
        before = stamps_of(file)
        for ending in BESIDE:  # of the attempt before
            _beside(copy, ending).unlink(missing_ok=True)
        lost = [one for one in before if not _is_one_copied(one, _beside(copy, one.name.removeprefix(file.name)))]
        if stamps_of(file) == before:  # else a -wal may just have gone
            return not lost
    return None


def _is_one_copied(file: Path, copy: Path) -> bool:
    return subprocess.run(["cp", "--", str(file), str(copy)], capture_output=True, check=False).returncode == 0


def stamps_of(file: Path) -> Stamps:
    """Return time and size of a database and of the files beside it that hold something."""
    found = {}
    for one in (file, *(_beside(file, ending) for ending in BESIDE)):
        with suppress(OSError):  # there is none, or none any more
            stats = one.stat()
            if stats.st_size or one == file:
                found[one] = (stats.st_mtime_ns, stats.st_size)
    return found


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
            began = time.monotonic()
            try:
                return call(*arguments)
            except sqlite3.Error as error:
                waited = time.monotonic() - since
                if not _is_locked(error) or _is_outdated(error) or self.file in _given_up or waited >= self._seconds:
                    raise self._told(error, waited) from error
                if not told and waited >= min(TOLD_AFTER, self._seconds):
                    told = self._tell()
                time.sleep(max(0.0, PAUSE - (time.monotonic() - began)))

    def _tell(self) -> bool:
        sys.stderr.write(f"besom: {self.file} is locked by another program; waiting up to {self._seconds:g} s for it\n")
        sys.stderr.flush()
        return True

    def _told(self, error: sqlite3.Error, waited: float) -> Exception:
        if not _is_locked(error):
            return explain(error, self.file, [Path(self.file).parent]) or error
        if _is_outdated(error):
            return StoreBusy(
                f"{self.file} was written by another program while this one read it; nothing that was finished is "
                "lost: the same command goes on"
            )
        if self._seconds >= WritingConnection.seconds:
            waited = _given_up[self.file] = _given_up.get(self.file, 0.0) + waited
        return StoreBusy(
            f"{self.file} has been locked by another program for {waited:.0f} s; nothing that was finished is lost: "
            "end that program (fuser names it), then the same command goes on"
        )


def _is_locked(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def _is_outdated(error: sqlite3.Error) -> bool:
    """Tell of a transaction that has read what others have changed since: no attempt more can write in it."""
    return getattr(error, "sqlite_errorname", "") == "SQLITE_BUSY_SNAPSHOT"


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
