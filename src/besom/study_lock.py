"""One living parent a sweep whose study is in a PostgreSQL server, wherever it runs: the lock, and who has it.

A file has `besom.lock`.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import Connection
from sqlalchemy.pool import NullPool

from besom.database_server import connect_arguments, is_away, is_postgresql, reaching, with_password
from besom.errors import SweepLocked

log = logging.getLogger(__name__)

GONE_SECONDS = 10.0
"""Until a session that was told to end has ended."""
LOCK = "SELECT pg_try_advisory_lock(:key)"
HOLDER = (
    "SELECT application_name, coalesce(host(client_addr), 'local'), pid, backend_start::text FROM pg_stat_activity "
    "JOIN pg_locks USING (pid) WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND "
    "database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND "
    "(classid::bigint << 32 | objid::bigint) = :key"
)
"""Who holds a lock, as the server knows it; locks are of one database."""
OURSELVES = "SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()"


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
        self._sessions: set[tuple[int, str]] = set()  # that were ours: their processes in the server, and since when

    def acquire(self) -> None:
        """Take the lock, or see that it is still held; after the server was away it is taken anew.

        Raises:
            SweepLocked: another session holds it.
        """
        if self._is_held():
            return
        connection = self._engine.connect()
        try:
            pid, since = connection.execute(text(OURSELVES)).one()
            self._sessions.add((pid, since))
            if (connection.dialect.server_version_info or ()) >= (14,):
                connection.execute(text("SET idle_session_timeout = 0"))  # it has nothing to say for hours
            self._take(connection)
        except BaseException:
            with suppress(Exception):
                connection.close()
            raise
        self._connection = connection

    def _take(self, connection: Connection) -> None:
        """Take the lock in a session, from a session of ours that the server does not know to be dead, too."""
        until = time.monotonic() + GONE_SECONDS
        while not connection.scalar(text(LOCK), {"key": self._key}):
            found = connection.execute(text(HOLDER), {"key": self._key}).first()
            is_another = found is not None and tuple(found[2:]) not in self._sessions
            if not is_another and time.monotonic() < until:
                if found is not None:  # else it has gone between the two questions
                    connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": found[2]})
                    log.debug("the network has cut off the session that held '%s'; it is ended", self._sweep)
                time.sleep(0.1)
                continue
            holder = "another process" if found is None else f"'{found[0]}' from {found[1]}"
            raise SweepLocked(
                f"sweep '{self._sweep}' is being run by {holder}; wait for it, stop it with Ctrl-C there, or use "
                "another --name"
            )

    def holder(self) -> dict[str, str] | None:
        """Return host and process of who holds it, empty where that is no besom; None where nobody does."""
        with self._engine.connect() as connection:
            found = connection.execute(text(HOLDER), {"key": self._key}).first()
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
