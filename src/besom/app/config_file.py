"""`besom train --config FILE`: one YAML file that is the whole config, laid into a stage in the place of the project's.

The file is data that may be somebody else's: nothing in it is run before it has passed. Its groups become options of
their own, checked against the same schemas, so that overrides work as on any other config.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from besom.configs.config import to_yaml, typed
from besom.configs.files import read_text
from besom.configs.project import Project, Stage, packaged
from besom.configs.stored import read_stored
from besom.errors import ConfigError, did_you_mean, quoted
from besom.files import Unusable
from besom.retrain.here import find_code_beside
from besom.retrain.trust import TRUSTED, is_inside, refuse_foreign_targets
from besom.uris import check_no_password, refuse_unasked_server

GROUPS = ("data", "model", "train", "tracking", "paths")
OPTION = "file"
"""Under this name a stage has what the file says of a group: ``data=file``."""


def read_config_file(file: Path, allow: Sequence[str]) -> dict[str, Any]:
    """Return the content of a config file, every group of which is known, typed and trusted.

    Args:
        allow: packages that it may import a loader or builder from, besides besom itself.

    Raises:
        ConfigError: naming the file, and the key where one is wrong.
    """
    try:
        text = read_text(file)
    except Unusable as error:
        raise ConfigError(f"config file {file} cannot be read: {error}; expected YAML of 'besom export'") from error
    content = read_stored(text, f"config file {file}")
    try:
        _refuse_unknown(content)
        refuse_foreign_targets(content, allow)
        config = typed(content)
        tracking = config.tracking
        _refuse_places_outside(config.paths.store, tracking.uri)
        if tracking.uri:
            check_no_password(tracking.uri, "tracking.uri")
            refuse_unasked_server(tracking.uri, [os.environ.get("MLFLOW_TRACKING_URI", "")], "it")
    except ConfigError as error:
        raise ConfigError(f"config file {file}: {error}") from error
    return content


def _refuse_unknown(content: Mapping[str, Any]) -> None:
    for name, values in content.items():
        if name not in GROUPS:
            raise ConfigError(f"key '{name}' is not known; expected {', '.join(GROUPS)}{did_you_mean(name, GROUPS)}")
        if not isinstance(values, Mapping):
            raise ConfigError(f"{name}={values!r} is no group; expected a mapping of keys")
        if odd := [key for key in values if key in ("defaults", "_self_")]:
            raise ConfigError(f"{name}.{odd[0]} is Hydra's own word; expected the values themselves")


def _refuse_places_outside(store: str, uri: str | None) -> None:
    """Refuse a file that says that results go somewhere outside the project around this folder."""
    root, sqlite = Project.around(Path.cwd()).root, "sqlite:///"
    places = [("paths.store", store, root, store)]
    if uri and uri.startswith("sqlite:"):
        places.append(("tracking.uri", uri, Path.cwd(), uri.removeprefix(sqlite).partition("?")[0]))
    for name, value, base, path in places:
        if not is_inside(root.resolve(), base, path):
            raise ConfigError(
                f"{name}={quoted(value)} lies outside {root}; expected a place in it, or a file without that key: "
                f"where else results are to go, you say on the command line: {name}=…"
            )


def lay_config_file(stage: Stage, file: Path, allow: Sequence[str]) -> None:
    """Lay a config file into a stage in the place of the project's ``config.yaml``.

    Code that lies beside it becomes importable, after all else, where somebody has allowed it.

    Raises:
        ConfigError: as `read_config_file`.
    """
    content = read_config_file(file, allow)
    for name, values in content.items():
        target = stage.conf / name / f"{OPTION}.yaml"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(to_yaml({"defaults": _schemas(name, values), **values}), encoding="utf-8")
    (stage.conf / "config.yaml").write_text(_table_of_contents(content), encoding="utf-8")
    if allow:
        find_code_beside(file.parent)


def _schemas(group: str, values: Mapping[str, Any]) -> list[str]:
    """Return the defaults of an option; a user's own loader or builder takes keys that no schema knows."""
    own = TRUSTED.get(group)
    is_own = own is None or str(values.get("_target_", own[0])) in own
    schema = {"model": "cnn_schema"}.get(group, f"{group}_schema")
    return [schema, "_self_"] if is_own else ["_self_"]


def _table_of_contents(content: Mapping[str, Any]) -> str:
    """Return the package's ``config.yaml`` with the file's groups for its options."""
    packaged_text = (packaged() / "conf" / "config.yaml").read_text(encoding="utf-8")
    table: dict[str, Any] = yaml.safe_load(packaged_text)
    table["defaults"] = [_chosen(entry, content) for entry in table["defaults"]]
    return to_yaml(table)


def _chosen(entry: Any, content: Mapping[str, Any]) -> Any:
    [name] = entry if isinstance(entry, dict) else [entry]
    return {name: OPTION} if name in content else entry
