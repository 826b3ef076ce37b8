"""The frozen config of a run as one YAML file for somebody else: without what says where things go on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from besom.configs.config import to_yaml
from besom.data import OWN_SOURCES

GROUPS = ("data", "model", "train")


def without_places(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trusted config's data, model and train; of ``data.path`` the name of the file alone."""
    groups = {name: dict(content[name]) for name in GROUPS}
    if path := groups["data"].get("path"):
        groups["data"]["path"] = PurePath(str(path)).name
    return groups


def config_text(groups: Mapping[str, Any], title: str) -> str:
    """Return the file's text, with comments on how to use it and what has to be given."""
    lines = [title, f"{command(groups)}"]
    if path := groups["data"].get("path"):
        lines.append(f"data.path has to be given: {path} is its name only, and the file is not in this folder")
    return "".join(f"# {line}\n" for line in lines) + to_yaml(groups)


def command(groups: Mapping[str, Any]) -> str:
    """Return the command that trains it again, in the exported folder."""
    allowed = [f" --allow {package}" for package in packages(groups)]
    path = groups["data"].get("path")
    given = f" data.path=FOLDER/{path}" if path else ""
    return f"besom train --config config.yaml{''.join(allowed)}{given}"


def packages(groups: Mapping[str, Any]) -> list[str]:
    """Return the packages of a user's own loader and builder."""
    targets = [str(groups[name].get("_target_", "")) for name in ("data", "model")]
    foreign = [target for target in targets if target and target not in (*OWN_SOURCES, "besom.model.cnn")]
    return list(dict.fromkeys(target.split(".", 1)[0] for target in foreign))
