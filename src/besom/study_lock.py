"""One living parent a sweep whose study is in a PostgreSQL server, wherever it runs: the lock, and who has it.

A file has `besom.lock`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import Connection
from sqlalchemy.pool import NullPool

from besom.database_server import connect_arguments, is_away, is_postgresql, reaching, with_password
from besom.errors import SweepLocked


class StudyLock:
    """Held in the server for a study by one session at a time; ends with the session, so with its process.

    Args:
        url: of the storage.
        sweep: the study's name.
    """

    def __init__(self, url: str, sweep: str) -> None:
        self._sweep = sweep
        parsed = with_password(url)
        self._engine: Engine = create_engine(
            parsed, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=connect_arguments(parsed)
        )
        self._key = int.from_bytes(hashlib.sha256(f"besom/{sweep}".encode()).digest()[:8], "big", signed=True)
        self._connection: Connection | None = None

    def acquire(self) -> None:
        """Take the lock, or see that it is still held; after the server was away it is taken anew.

        Raises:
            SweepLocked: another session holds it.
        """
        if self._is_held():
            return
        connection = self._engine.connect()
        if not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": self._key}):
            found = self._session(connection)
            connection.close()
            holder = "another process" if found is None else f"'{found[0]}' from {found[1]}"
            raise SweepLocked(
                f"sweep '{self._sweep}' is being run by {holder}; wait for it, stop it with Ctrl-C there, or use "
                "another --name"
            )
        if (connection.dialect.server_version_info or ()) >= (14,):
            connection.execute(text("SET idle_session_timeout = 0"))  # it has nothing to say for hours
        self._connection = connection

    def holder(self) -> dict[str, str] | None:
        """Return host and process of who holds it, empty where that is no besom; None where nobody does."""
        with self._engine.connect() as connection:
            found = self._session(connection)
        if found is None:
            return None
        named = re.fullmatch(r"besom (\S+) (\d+)", found[0])
        return {} if named is None else {"host": named[1], "pid": named[2]}

    def release(self) -> None:
        """Let go of it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.close()
        self._engine.dispose()

    def _is_held(self) -> bool:
        if self._connection is None:
            return False
        try:
            self._connection.execute(text("SELECT 1"))
        except Exception as error:
            if not is_away(error):
                raise
            with suppress(Exception):
                self._connection.invalidate()
                self._connection.close()
            self._connection = None
            return False
        return True

    def _session(self, connection: Connection) -> tuple[str, str] | None:
        """Return name and address of the session that holds it, as the server knows it; locks are of one database."""
        found = connection.execute(
            text(
                "SELECT application_name, coalesce(host(client_addr), 'local') FROM pg_stat_activity JOIN pg_locks "
                "USING (pid) WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND "
                "database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND "
                "(classid::bigint << 32 | objid::bigint) = :key"
            ),
            {"key": self._key},
        ).first()
        return None if found is None else (str(found[0]), str(found[1]))


_held: dict[tuple[str, str], StudyLock] = {}


@contextmanager
def study_lock(url: str, sweep: str) -> Iterator[StudyLock | None]:
    """Hold a study's lock in its server for the length of a ``with``; in one process again and again.

    Gives None where the storage is not of PostgreSQL: a file is locked by `besom.lock`.

    Raises:
        SweepLocked: a living process holds it, maybe on another machine.
        ConfigError: the server cannot be reached.
    """
    known = _held.get((url, sweep))
    if known is not None or not is_postgresql(url):
        yield known
        return
    with reaching(url):
        lock = StudyLock(url, sweep)
    try:
        with reaching(url):
            lock.acquire()
        _held[url, sweep] = lock
        yield lock
    finally:
        _held.pop((url, sweep), None)
        lock.release()


def study_holder(url: str, sweep: str) -> dict[str, str] | None:
    """Return who holds a study's lock in its server, see `StudyLock.holder`; only looks.

    Raises:
        ConfigError: the server cannot be reached.
    """
    if not is_postgresql(url):
        return None
    with reaching(url):
        lock = StudyLock(url, sweep)
        try:
            return lock.holder()
        finally:
            lock.release()
