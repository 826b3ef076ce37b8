"""URIs that users give: none holds a password, none means another file after a change of directory.

Only text; knows nothing of what is behind a URI.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from besom.errors import ConfigError, quoted
from besom.withheld import secret_in, without_password

HTTP = ("http://", "https://")
SERVERS = ("http", "https", "mlflow-artifacts", "ftp", "sftp")
"""Schemes of artifacts behind which is a host that the location itself names."""
PORTS = {"http": 80, "https": 443}
LOOPBACK = ("localhost", "127.0.0.1", "::1")
CREDENTIALS = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_AUTH")
"""Environment variables that MLflow sends to whatever server it is pointed at, or makes what it sends of."""


def split_uri(uri: str) -> SplitResult:
    """Return the parts of a URI of anybody's.

    Raises:
        ConfigError: it is none, such as ``http://[foo``.
    """
    try:
        return urlsplit(uri)
    except ValueError as error:
        raise ConfigError(
            f"{quoted(without_password(uri))} is no URI: {error}; expected such as http://HOST"
        ) from error


def check_no_password(uri: str, name: str) -> None:
    """Refuse a URI with a password in it, because configs are stored, shown and shared.

    Args:
        name: the key that it was given for: ``tracking.uri`` or ``hydra.sweeper.storage``.

    Raises:
        ConfigError: naming the environment variable to use; the password is not repeated.
    """
    hidden = without_password(uri)
    if hidden == uri:
        return
    if name == "hydra.sweeper.storage":
        instead = "put the whole URL into the environment variable BESOM_STORAGE"
    elif uri.startswith(HTTP):
        instead = "set the environment variables MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    else:
        instead = "put the whole URL into the environment variable MLFLOW_TRACKING_URI"
    raise ConfigError(f"{name}={hidden!r} holds a password; expected a URL without one: {instead}")


def refuse_secrets(values: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> None:
    """Refuse config values that hold a secret: configs are stored, shown and shared.

    Args:
        values: of a config by dotted key.

    Raises:
        ConfigError: naming the key, and where the secret is from; it is not repeated.
    """
    for key, value in values.items():
        if isinstance(value, str) and (what := secret_in(value, environ)):
            source = what if what.startswith("a ") else f"the value of the environment variable {what}"
            raise ConfigError(
                f"{key} holds {source}; expected a config without secrets, which is stored, shown and shared: let your "
                "loader or builder read os.environ itself"
            )


def refuse_remote_artifacts(uri: str, location: str) -> None:
    """Refuse artifacts that are said to be on another server than the run: MLflow would send it the user's token.

    Args:
        uri: MLflow's, where the run is.
        location: of its artifacts, as that says.

    Raises:
        ConfigError: naming the location.
    """
    parts = split_uri(location)
    is_server = parts.scheme.lower() in SERVERS and bool(parts.netloc or parts.scheme.lower() != "mlflow-artifacts")
    if is_server and (not uri.lower().startswith(HTTP) or not is_same_server(uri, location)):
        who = without_password(uri) if uri.lower().startswith(HTTP) else "a database"
        raise ConfigError(
            f"the artifacts are at {without_password(location)!r}, as {who} says; expected files, an object store, or "
            "a run of that server itself (MLFLOW_TRACKING_URI)"
        )


def is_same_server(one: str, other: str) -> bool:
    """Tell whether two URIs name one host and port; the protocol of ``mlflow-artifacts`` is that of the other."""
    first, second = _server(one, other), _server(other, one)
    return first is not None and first == second


def _server(uri: str, other: str) -> tuple[str, str, int | None] | None:
    parts = split_uri(uri)
    scheme = split_uri(other).scheme if parts.scheme.lower() == "mlflow-artifacts" else parts.scheme
    try:
        port = parts.port or PORTS.get(scheme.lower())
    except ValueError:
        return None
    return scheme.lower(), (parts.hostname or uri).lower(), port


def refuse_unasked_server(uri: str, given: Iterable[str], who: str, environ: Mapping[str, str] = os.environ) -> None:
    """Refuse a server that only a store or a file names: it would get the user's token, and what is logged.

    One on this machine is used as it is, as long as there is no token or password to send.

    Args:
        uri: where runs are said to be; an SQLite file passes.
        given: the URIs that somebody here has given.
        who: says so.

    Raises:
        ConfigError: naming the server, and how to go on.
    """
    if uri.startswith("sqlite:") or any(is_same_server(uri, one) for one in given):
        return
    is_here = split_uri(uri).hostname in LOOPBACK and uri.lower().startswith(HTTP)
    if not is_here or any(environ.get(name) for name in CREDENTIALS):
        shown = without_password(uri)
        raise ConfigError(
            f"{who} says that its runs are at {shown!r}, which would get your credentials and what is logged; if that "
            f"is your server, say so: MLFLOW_TRACKING_URI={shown} besom …"
        )


def absolute_uri(uri: str) -> str:
    """Return an SQLite URI with an absolute path; any other as it is."""
    if not uri.startswith("sqlite:///"):
        return uri
    return "sqlite:///" + os.path.abspath(uri.removeprefix("sqlite:///"))
