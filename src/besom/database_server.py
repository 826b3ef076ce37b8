"""A database server: which one a URL leads to, how it is reached, and what it says where it is not.

Knows nothing of studies, and of SQLite.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import create_engine, inspect
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.pool import NullPool

from besom.errors import ConfigError, causes, discreet
from besom.withheld import without_password

GIVEN = "BESOM_STORAGE"
"""The variable with the whole URL of a storage, its password included."""
CONNECT_SECONDS = 10
ALIVE = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
"""Of libpq: a server that vanished without a word is given up within half a minute."""
SERVERS_ALIVE = "-c tcp_keepalives_idle=15 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
"""Of the server, for this session: so is a parent whose machine vanished, and with it its lock."""
FORBIDDEN = "42501"
"""PostgreSQL's code of a right that is missing."""


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


def tables_of(url: str) -> set[str]:
    """Return the names of the tables in a server's database.

    Raises:
        ConfigError: the server cannot be reached, or its driver is not installed.
    """
    whole = with_password(url)
    with reaching(url):
        engine = create_engine(whole, poolclass=NullPool, connect_args=connect_arguments(whole))
        return set(inspect(engine).get_table_names())


@contextmanager
def reaching(url: str) -> Iterator[None]:
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
                f"hydra.sweeper.storage={shown} cannot be used: {first_line(error)}; expected a user with the rights "
                "to make tables in that database, and to read and write them"
            ) from error
        if not is_away(error):
            raise
        raise ConfigError(
            f"hydra.sweeper.storage={shown} cannot be reached: {first_line(error)}; expected a server that answers, "
            f"its password in {GIVEN} or PGPASSWORD"
        ) from error


def first_line(error: BaseException) -> str:
    """Return what the driver says, which Optuna and SQLAlchemy wrap."""
    while error.__cause__ is not None:
        error = error.__cause__
    return discreet(error)[:300] or type(error).__name__
