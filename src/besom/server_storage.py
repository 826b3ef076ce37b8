"""A study in a database server: waited for while the server is away, and one living parent a sweep there, too.

Knows nothing of what a sweep writes into its study, and of SQLite.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Engine, create_engine, inspect, text
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.pool import NullPool

from besom.errors import BesomError, ConfigError, SweepLocked, causes, discreet
from besom.withheld import without_password

log = logging.getLogger(__name__)

GIVEN = "BESOM_STORAGE"
"""The variable with the whole URL of a storage, its password included."""
PATIENCE = 600.0
"""Seconds that a server may be away while a sweep runs."""
READERS_PATIENCE = 5.0
"""Likewise while somebody reads, who would rather be told."""
PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)
CONNECT_SECONDS = 10
ALIVE = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
"""Of libpq: a server that vanished without a word is given up within half a minute."""
SERVERS_ALIVE = "-c tcp_keepalives_idle=15 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
"""Of the server, for this session: so is a parent whose machine vanished, and with it its lock."""
FORBIDDEN = "42501"
"""PostgreSQL's code of a right that is missing."""

Result = TypeVar("Result")


def is_postgresql(url: str) -> bool:
    """Tell whether a URL is of a PostgreSQL server."""
    return make_url(url).get_backend_name() == "postgresql"


def server_of(url: str) -> tuple[Any, ...]:
    """Return which server a URL leads to, to be compared: of two that differ in their query nobody knows it."""
    parsed = make_url(url)
    return parsed.host, parsed.port, sorted(parsed.query.items())  # ?host=… wins over the host before it


def with_password(url: str, environ: Mapping[str, str] = os.environ) -> URL:
    """Return a URL with the password that ``BESOM_STORAGE`` has for the same user and server, if there is one.

    PostgreSQL's own ``PGPASSWORD`` and ``~/.pgpass`` need no help.
    """
    parsed = make_url(url)
    given = environ.get(GIVEN)
    if parsed.password is None and given:
        other = make_url(given)
        if server_of(url) == server_of(given) and other.username == parsed.username:
            return parsed.set(password=other.password)
    return parsed


def connect_arguments(url: URL) -> dict[str, Any]:
    """Return what a driver is to be told: give up soon, notice a dead connection, say who asks."""
    if url.get_backend_name() != "postgresql":
        return {}
    name = f"besom {socket.gethostname()} {os.getpid()}"[:63]
    own = {} if "options" in url.query else {"options": SERVERS_ALIVE}
    return {"connect_timeout": CONNECT_SECONDS, "application_name": name, **ALIVE, **own}


def is_away(error: BaseException) -> bool:
    """Tell whether an error means that the server cannot be reached, or has ended the connection."""
    return any(
        isinstance(cause, OperationalError | InterfaceError)
        or (isinstance(cause, DBAPIError) and cause.connection_invalidated)
        for cause in causes(error)
    )


def _is_forbidden(error: BaseException) -> bool:
    """Tell whether the server says that its user lacks a right."""
    return any(getattr(cause, "sqlstate", None) == FORBIDDEN for cause in causes(error))


class ServerStorage(optuna.storages.RDBStorage):
    """Optuna's storage that waits for its server while that is away, up to ten minutes.

    A write that the server may have done before it went is not done twice: a sweep's parent is the only one that
    writes into its study.

    Args:
        url: without a password, see `with_password`.
        on_return: called when the server answers again, before anything else is written.
        is_read: for who only reads: makes no tables, which must be there, and gives up soon.

    Raises:
        ConfigError: the server cannot be reached, or its driver is not installed.
    """

    def __init__(self, url: str, on_return: Callable[[], None] | None = None, *, is_read: bool = False) -> None:
        self._on_return = on_return
        self._given_up: BesomError | None = None  # once it is lost, or was waited for, nothing more is written
        self._shown = without_password(url)
        self._patience = READERS_PATIENCE if is_read else PATIENCE
        whole = with_password(url)
        with _reaching(url):
            super().__init__(
                whole.render_as_string(hide_password=False),
                engine_kwargs={"connect_args": connect_arguments(whole)},
                skip_table_creation=is_read,
            )

    def patiently(self, call: Callable[[], Result], again: Callable[[], Result] | None = None) -> Result:
        """Return what a call returns, made again while the server is away.

        Args:
            again: made in place of ``call`` once that may have been done.

        Raises:
            ConfigError: the server stayed away.
            SweepLocked: another parent has taken the sweep meanwhile.
        """
        if self._given_up is not None:
            raise self._given_up
        try:
            return self._patiently(call, again or call)
        except (SweepLocked, ConfigError) as error:
            self._given_up = error
            raise

    def _patiently(self, call: Callable[[], Result], again: Callable[[], Result]) -> Result:
        end, pauses, was_away = time.monotonic() + self._patience, iter(PAUSES), False
        while True:
            try:
                if was_away and self._on_return is not None:
                    self._on_return()
                return again() if was_away else call()
            except Exception as error:
                if not is_away(error):
                    raise
                if time.monotonic() > end:
                    raise ConfigError(
                        f"{self._shown} has not answered for {_told(self._patience)}: {_first_line(error)}; the same "
                        "command goes on once it does"
                    ) from error
                if not was_away:
                    log.warning("%s does not answer, waiting for it: %s", self._shown, _first_line(error))
                was_away = True
                self._drop_connections()
                time.sleep(next(pauses, PAUSES[-1]))

    def _drop_connections(self) -> None:
        with suppress(Exception):
            self.scoped_session.remove()
        with suppress(Exception):
            self.engine.dispose()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        create = super().create_new_trial
        # a sweep's trials have their numbers already: to count those that are stored, all would be read
        known = -1 if template_trial is None else template_trial.number
        number = known if known >= 0 else self.get_n_trials(study_id)

        def again() -> int:
            try:
                return self.get_trial_id_from_study_id_trial_number(study_id, number)  # the server had done it
            except KeyError:
                return create(study_id, template_trial)

        if self._on_return is not None:  # the lock's session may have ended alone, by a timeout of the server's
            self.patiently(self._on_return)
        return self.patiently(lambda: create(study_id, template_trial), again)

    def delete_study(self, study_id: int) -> None:
        delete = super().delete_study

        def again() -> None:
            with suppress(KeyError):  # the server had done it
                delete(study_id)

        self.patiently(lambda: delete(study_id), again)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        tell = super().set_trial_state_values

        def again() -> bool:
            if super(ServerStorage, self).get_trial(trial_id).state == state:
                return True
            return tell(trial_id, state, values)

        return self.patiently(lambda: tell(trial_id, state, values), again)


def _patient(name: str) -> Any:
    """Return a method of Optuna's storage that may be called again whatever became of the first call."""
    method = getattr(optuna.storages.RDBStorage, name)

    def call(self: ServerStorage, *arguments: Any, **keywords: Any) -> Any:
        return self.patiently(lambda: method(self, *arguments, **keywords))

    call.__name__, call.__doc__ = name, method.__doc__
    return call


for _name in (
    *("set_study_user_attr", "set_study_system_attr", "set_trial_param", "set_trial_intermediate_value"),
    *("set_trial_user_attr", "set_trial_system_attr", "get_study_id_from_name", "get_study_name_from_id"),
    *("get_study_directions", "get_study_user_attrs", "get_study_system_attrs", "get_all_studies", "get_trial"),
    *("get_trial_id_from_study_id_trial_number", "get_all_trials", "get_n_trials"),
):
    setattr(ServerStorage, _name, _patient(_name))


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
    with _reaching(url):
        lock = StudyLock(url, sweep)
    try:
        with _reaching(url):
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
    with _reaching(url):
        lock = StudyLock(url, sweep)
        try:
            return lock.holder()
        finally:
            lock.release()


def tables_of(url: str) -> set[str]:
    """Return the names of the tables in a server's database.

    Raises:
        ConfigError: the server cannot be reached, or its driver is not installed.
    """
    whole = with_password(url)
    with _reaching(url):
        engine = create_engine(whole, poolclass=NullPool, connect_args=connect_arguments(whole))
        return set(inspect(engine).get_table_names())


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    """Turn what a driver says of a server that is away, or that it is not there itself, into one line."""
    shown = without_password(url)
    try:
        yield
    except ImportError as error:
        raise ConfigError(
            f"hydra.sweeper.storage={shown} needs a driver that is not installed: {error}; "
            "pip install 'besom[postgresql]'"
        ) from error
    except Exception as error:
        if _is_forbidden(error):
            raise ConfigError(
                f"hydra.sweeper.storage={shown} cannot be used: {_first_line(error)}; expected a user with the rights "
                "to make tables in that database, and to read and write them"
            ) from error
        if not is_away(error):
            raise
        raise ConfigError(
            f"hydra.sweeper.storage={shown} cannot be reached: {_first_line(error)}; expected a server that answers, "
            f"its password in {GIVEN} or PGPASSWORD"
        ) from error


def _told(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds > 60 else f"{seconds:.0f} seconds"


def _first_line(error: BaseException) -> str:
    """Return what the driver says, which Optuna and SQLAlchemy wrap."""
    while error.__cause__ is not None:
        error = error.__cause__
    return discreet(error)[:300] or type(error).__name__
