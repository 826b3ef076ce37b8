"""A user's own builder and loader, copied where they still are what the run was trained with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from besom.fingerprint import foreign_targets
from besom.provenance.sources import source_files
from besom.retrain.here import find_own_code


@dataclass(frozen=True)
class OwnCode:
    """The files of a run's own code.

    Args:
        files: their bytes, by their names below the folder that they are imported from.
        missing: names of those that are gone or were changed since.
    """

    files: Mapping[str, bytes]
    missing: list[str]

    @classmethod
    def of(cls, content: Mapping[str, Any], fingerprint: Mapping[str, Any]) -> OwnCode:
        """Return the code that a trusted config names, as the run had it; none where besom's own trains it.

        Which files are read is this project's to say, the run only says which hashes they had.
        """
        find_own_code()
        here = {name: file for target in foreign_targets(content) for name, file in source_files(target).items()}
        recorded = {str(name): str(sha256) for name, sha256 in dict(fingerprint.get("sources") or {}).items()}
        wanted = {name: sha256 for name, sha256 in recorded.items() if not name.startswith("besom/")}
        texts = {name: here[name].read_bytes() for name in wanted if name in here}
        same = {name: text for name, text in texts.items() if hashlib.sha256(text).hexdigest() == wanted[name]}
        return cls(same, sorted(wanted.keys() - same.keys()))
