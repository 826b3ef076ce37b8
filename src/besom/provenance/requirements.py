"""Every installed distribution with its version, as a requirements file that names no index and no folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import Distribution, distributions, version
from pathlib import Path

from besom.code_watch import LIBRARIES
from besom.provenance.git import GitFailed, WorkTree
from besom.provenance.uncommitted import PLAIN

PACKAGE = Path(__file__).parents[1]
UNKNOWN = "unknown"
CHANGED = ", with uncommitted changes"


@cache  # what is imported does not change any more
def requirements() -> str:
    """Return ``name==version`` of every installed distribution, sorted by normalized names.

    besom itself is a comment, with the commit that its code is of: no index has that. So is what was installed out of
    a folder, such as a project of the user's own.
    """
    lines = [f"# besom=={version('besom')}, commit {_commit_of_besom()}"]
    for name, (released, is_local) in sorted(_installed().items()):
        lines.append(f"# {name}=={released}, installed from a folder" if is_local else f"{name}=={released}")
    return "".join(f"{line}\n" for line in lines)


def _installed() -> dict[str, tuple[str, bool]]:
    """Return version and whether it comes from a folder, by name; the first one on the path is the one that counts."""
    found: dict[str, tuple[str, bool]] = {}
    for distribution in distributions():
        about = distribution.metadata
        if "Name" in about and "Version" in about:  # else it is what a broken uninstall has left
            name = re.sub(r"[-_.]+", "-", about["Name"]).lower()
            found.setdefault(name, (about["Version"], "dir_info" in _origin(distribution)))
    found.pop("besom", None)
    return found


def _origin(distribution: Distribution) -> dict[str, object]:
    """Return where pip had it from, PEP 610; it holds paths and URLs, which stay here."""
    try:
        found = json.loads(distribution.read_text("direct_url.json") or "{}")
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _commit_of_besom() -> str:
    """Return the commit of the checkout that besom is imported from, or that pip installed it from."""
    if not any(part in LIBRARIES for part in PACKAGE.parts):  # there it could be the commit of somebody's project
        tree = WorkTree.of(PACKAGE)
        return UNKNOWN if tree is None else tree.commit + (CHANGED if _is_changed(tree) else "")
    return next(_commits(Distribution.from_name("besom")), UNKNOWN)


def _is_changed(tree: WorkTree) -> bool:
    """Tell whether besom's own checkout has uncommitted changes, which are in no trial's diff if it works elsewhere."""
    try:
        return bool(tree.output("diff", "--name-only", *PLAIN, "HEAD"))
    except GitFailed:
        return False


def _commits(distribution: Distribution) -> Iterator[str]:
    about = _origin(distribution).get("vcs_info")
    if isinstance(about, dict) and re.fullmatch(r"[0-9a-f]{40,64}", str(about.get("commit_id"))):
        yield str(about["commit_id"])
