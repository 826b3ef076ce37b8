"""Whether MLflow's server or database answers, within seconds: asked before it is trusted with a call that may hang.

Only looks: no request that changes something, no transaction that is kept. Knows nothing of what is told there.
"""

from __future__ import annotations

import socket
import sqlite3
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from besom.databases import is_there
from besom.errors import one_line
from besom.uris import HTTP
from besom.withheld import without_password

SECONDS = 5.0
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
BUSY = (408, 429)


def why_away(uri: str, seconds: float = SECONDS) -> str | None:
    """Return on one line why MLflow does not answer, None where it does, or where only a call can tell.

    Args:
        seconds: about how long an answer may take.
    """
    try:
        if uri.startswith(HTTP):
            return _of_server(uri, seconds)
        if uri.startswith("sqlite:///"):
            return _of_file(Path(uri.removeprefix("sqlite:///")), seconds)
        return _of_database(uri, seconds)
    except (OSError, ValueError, sqlite3.Error) as error:
        return without_password(one_line(error))


def _of_server(uri: str, seconds: float) -> str | None:
    parts = urlsplit(uri)
    place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}/health"
    try:
        with urllib.request.urlopen(place, timeout=seconds):
            return None
    except urllib.error.HTTPError as error:  # it may want a user's name, or know no such page
        return f"it answers with HTTP {error.code}" if error.code >= 500 or error.code in BUSY else None


def _of_file(file: Path, seconds: float) -> str | None:
    if not is_there(file):
        return f"there is no file {file}"
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True, timeout=min(seconds, 2.0))) as database:
        database.execute("BEGIN IMMEDIATE")
        database.rollback()
    return None


def _of_database(uri: str, seconds: float) -> str | None:
    parts = urlsplit(uri)
    port = parts.port or PORTS.get(parts.scheme.partition("+")[0])
    if parts.hostname and port:
        with socket.create_connection((parts.hostname, port), timeout=seconds):
            pass
    return None
