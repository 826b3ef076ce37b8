"""What a trusted config's result would depend on here and now, before anything is trained."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from besom.configs.config import typed
from besom.configs.project import Project
from besom.fingerprint import fingerprint
from besom.seeding import fix_runtime

CODE = "code"
"""The folder beside an exported config with the files of a user's own builder and loader."""


def fingerprint_here(content: Mapping[str, Any], *, onednn: bool = True) -> dict[str, Any]:
    """Return the fingerprint that a training would have; reads its data.

    Raises:
        UserError: the config or its data is wrong.
    """
    from besom import data

    config = typed(content)
    fix_runtime(config.train.threads, onednn=onednn)
    find_own_code()
    dataset = data.load(config.data)
    return fingerprint(asdict(config), dataset.digest, dataset.split_digest, config.train.threads)


def find_code_beside(folder: Path) -> None:
    """Make the code in an exported folder importable, after all else; call where somebody has allowed it."""
    if (code := folder.absolute() / CODE).is_dir():
        sys.path.append(str(code))


def find_own_code() -> None:
    """Make the project around the working directory importable: a user's own loader and builder are found there."""
    root = str(Project.around(Path.cwd()).root)
    if root not in sys.path:
        sys.path.insert(0, root)
