"""Whether MLflow's server or database answers, within seconds: asked before it is trusted with a call that may hang.

Only looks: no request that changes something, no transaction that is kept. Knows nothing of what is told there.
"""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from besom.databases import is_there
from besom.errors import causes, one_line
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
    except (OSError, ValueError, sqlite3.Error) as error:  # those of requests are OSErrors
        *_, first = causes(error)  # what requests says names objects of Python
        what = "it does not speak HTTP: " if isinstance(first, HTTPException) else ""
        return without_password(what + one_line(first))


def _of_server(uri: str, seconds: float) -> str | None:
    import requests  # MLflow's own way, so that proxies and certificates are the same

    parts = urlsplit(uri)
    place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}/health"
    with requests.get(
        place,
        timeout=seconds,
        stream=True,
        allow_redirects=False,
        auth=lambda request: request,  # nobody's, ~/.netrc left out
        **_certificates(),
    ) as answer:
        status = int(answer.status_code)  # it may want a user's name, or know no such page
    return f"it answers with HTTP {status}" if status >= 500 or status in BUSY else None


def _certificates(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return how requests is to check the server, and to show itself, as MLflow is told to."""
    is_trusted = environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")
    return {
        "verify": not is_trusted and (environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True),
        "cert": environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH") or None,
    }


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
