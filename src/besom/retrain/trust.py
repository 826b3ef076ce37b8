"""Which stored configs may be trained here: one that comes out of a store or off a server is data that somebody wrote.

Nothing in it is imported, called or opened before it has passed `trusted`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from besom.compare.catalog import StoredRun
from besom.configs.config import typed
from besom.configs.project import Project
from besom.data import OWN_SOURCES
from besom.errors import ConfigError
from besom.paths import Store
from besom.uris import split_uri

TRUSTED = {
    "data": OWN_SOURCES,
    "model": ("besom.model.cnn",),
}
"""The only targets that a config out of a store may name unasked."""


def trusted(run: StoredRun, allow: Sequence[str] = (), data_path: str | None = None) -> dict[str, Any]:
    """Return a run's frozen config, ready to be trained into this store.

    Args:
        allow: packages that it may import a loader or builder from, besides besom itself.
        data_path: takes the place of its ``data.path``.

    Raises:
        NotFound: the run has no config.
        ConfigError: it is no frozen config, names code of a package that nobody allowed, or, coming from elsewhere than
            the store's own files, a file outside the project's folder.
    """
    return trusted_content(run.config(), run, allow, data_path)


def trusted_content(
    content: Mapping[str, Any], run: StoredRun, allow: Sequence[str] = (), data_path: str | None = None
) -> dict[str, Any]:
    """Return a config that comes from where a run is, ready to be trained into this store; see `trusted`."""
    return trusted_for(run.store, content, allow, data_path, is_own=lambda: _is_of_this_store(run))


def trusted_for(
    store: Store,
    content: Mapping[str, Any],
    allow: Sequence[str],
    data_path: str | None,
    *,
    is_own: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Return a config, ready to be trained into a store; see `trusted`.

    Args:
        is_own: tells whether it comes from the store's own files; asked only where that decides something.
    """
    refuse_foreign_targets(content, allow)
    typed(content)  # so that every group is there, and nothing in it that besom does not know
    if data_path is not None:
        content = {**content, "data": {**content["data"], "path": data_path}}
    elif not is_own():
        refuse_path_outside(content)
    return {**content, "paths": {"store": str(store.root)}}


def _is_of_this_store(run: StoredRun) -> bool:
    """Tell whether a run and its artifacts are in the store's own files; what is trained again goes there, too."""
    location = split_uri(str(run.client.get_run(run.run_id).info.artifact_uri))
    return run.uri == run.store.mlflow_uri and location.scheme in ("", "file")


def refuse_foreign_targets(content: Mapping[str, Any], allow: Sequence[str]) -> None:
    """Raise `ConfigError` where a stored config would import code that nobody here allowed."""
    for group, own in TRUSTED.items():
        values = content.get(group) or {}
        target = str(values.get("_target_", own[0])) if isinstance(values, Mapping) else repr(values)
        package = target.split(".", 1)[0]
        if target not in own and (package == "besom" or package not in allow):
            mend = f"; to import that code, give --allow {package}" if package != "besom" else ""
            raise ConfigError(f"the run's {group} is built by {target!r}; expected {', '.join(own)}{mend}")


def refuse_path_outside(content: Mapping[str, Any]) -> None:
    """Raise `ConfigError` where a server's config reads a file that lies outside the project around this folder.

    Pictures of the images that a trial gets wrong go back to that server.
    """
    path = (content.get("data") or {}).get("path")
    if path is None:
        return
    root = Project.around(Path.cwd()).root.resolve()
    if not is_inside(root, Path.cwd(), str(path)):
        raise ConfigError(
            f"the run's data.path={str(path)!r}, which comes from elsewhere, lies outside {root}; if these are the "
            "images that you mean, name them with --data-path"
        )


def is_inside(root: Path, base: Path, path: str) -> bool:
    """Tell whether a path, taken from a base, lies in a resolved folder; links are followed."""
    try:
        return base.joinpath(Path(path).expanduser()).resolve().is_relative_to(root)
    except (RuntimeError, ValueError, OSError):  # nobody's home, a NUL in it, links in a circle
        return False
