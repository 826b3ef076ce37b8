"""URIs that users give: none holds a password, none means another file after a change of directory.

Only text; knows nothing of what is behind a URI.
"""

from __future__ import annotations

import os
import re

from besom.errors import ConfigError

HTTP = ("http://", "https://")


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


def without_password(text: str) -> str:
    """Return a URI, or a message that quotes some, with ``***`` for each password."""
    hidden = re.sub(r"(https?://[^:/@?#\s]*):[^@/?#\s]+@", r"\1:***@", text)
    # in a database's URL a password may hold a slash
    hidden = re.sub(r"(?<!http)(?<!https)(://[^:/@?#\s]*):[^@\s]+@", r"\1:***@", hidden)
    return re.sub(r"([?&]password=)[^&\s]+", r"\1***", hidden)


def refuse_remote_artifacts(uri: str, location: str) -> None:
    """Refuse artifacts that a database says are on a web server: MLflow would send it the user's token.

    Args:
        uri: MLflow's, where the run is.
        location: of its artifacts, as that says.

    Raises:
        ConfigError: naming the location.
    """
    if not uri.lower().startswith(HTTP) and location.lower().startswith(HTTP):
        raise ConfigError(
            f"the artifacts are at {without_password(location)!r}, as a database says; expected files, an object "
            "store, or a run of that server itself (MLFLOW_TRACKING_URI)"
        )


def absolute_uri(uri: str) -> str:
    """Return an SQLite URI with an absolute path; any other as it is."""
    if not uri.startswith("sqlite:///"):
        return uri
    return "sqlite:///" + os.path.abspath(uri.removeprefix("sqlite:///"))
