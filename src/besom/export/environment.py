"""The packages of a run as a requirements file: the project's lock with its hashes where that is what was installed.

What a run says of its packages is data: only ``name==version`` gets through, no option and no address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from besom.compare.catalog import StoredRun
from besom.configs.project import PACKAGE, Project
from besom.errors import NotFound
from besom.provenance.origin import REQUIREMENTS

LOCK = "requirements.lock"
PIN = re.compile(r"([a-z0-9](?:[a-z0-9-]*[a-z0-9])?)==([0-9][A-Za-z0-9.!+_-]*)")
COMMIT = re.compile(r"# besom==\S+, commit ([0-9a-f]{40,64})(, with uncommitted changes)?")
SENTENCE = {
    True: "every package with its hashes",
    False: "name and version of every package, without hashes: no lock with just these versions was at hand",
}


@dataclass(frozen=True)
class Environment:
    """The text of ``requirements.lock``.

    Args:
        is_hashed: whether every entry has its hashes.
        commit: of besom, None where nobody knows.
        is_changed: whether besom itself had uncommitted changes.
    """

    text: str
    is_hashed: bool
    commit: str | None
    is_changed: bool

    @classmethod
    def of(cls, run: StoredRun, fingerprint: Mapping[str, Any]) -> Environment:
        """Return what was installed when a run was trained; of one that did not write it down, the packages that its
        result depends on."""
        packages = dict(fingerprint.get("packages") or {})
        try:
            lines = run.artifact(REQUIREMENTS).splitlines()
        except NotFound:
            lines = [f"{name}=={version}" for name, version in packages.items() if name not in ("python", "besom")]
        pins = {found[1]: found[2] for line in lines if (found := PIN.fullmatch(line))}
        besom = next((found for line in lines if (found := COMMIT.fullmatch(line))), None)
        lock = _lock_with(pins, str(packages.get("python", "")))
        text = lock or "".join(f"{name}=={version}\n" for name, version in sorted(pins.items()))
        commit, is_changed = (besom[1], besom[2] is not None) if besom else (None, False)
        return cls(text, lock is not None, commit, is_changed)


def _lock_with(pins: Mapping[str, str], python: str) -> str | None:
    """Return the text of the project's lock, or of besom's own, that pins just these versions with their hashes."""
    for folder in (Project.around(Path.cwd()).root, PACKAGE.parents[1]):
        try:
            text = (folder / LOCK).read_text(encoding="utf-8")
            if pins and dict(_locked(text, python)) == pins:
                return text
        except (OSError, ValueError):  # ValueError: an entry that is no pin, or has no hash
            continue
    return None


def _locked(text: str, python: str) -> Iterator[tuple[str, str]]:
    """Yield name and version of the entries of a lock that count for a Python.

    Raises:
        ValueError: the lock has something else in it, such as an option, an address, or a pin without a hash.
    """
    here = {"python_version": ".".join(python.split(".")[:2]), "python_full_version": python}
    for entry in text.replace("\\\n", " ").splitlines():
        if not entry.strip() or entry.lstrip().startswith("#"):
            continue
        pin, *hashes = re.split(r"\s+--hash=", entry.strip())
        if not hashes or not all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes):
            raise ValueError(entry)
        try:
            requirement = Requirement(pin)
        except InvalidRequirement as error:
            raise ValueError(entry) from error
        if requirement.marker is None or requirement.marker.evaluate(here):
            yield canonicalize_name(requirement.name), str(requirement.specifier).removeprefix("==")
