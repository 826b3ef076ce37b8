"""Arrays on disk that several processes map into memory: decoded once, there once, whoever reads them.

A folder is written whole or not at all. Mapped arrays can be written to, but then the page is copied:
no process sees another's changes. Knows nothing of what the arrays are.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ABOUT = "about.json"


def keep(folder: Path, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> None:
    """Write arrays and a few plain facts about them; where another process was faster its folder stays.

    A disk that is full is no reason to stop: then nothing is kept.
    """
    with suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent))
        try:
            for key, array in arrays.items():
                np.save(made / f"{key}.npy", array)
            (made / ABOUT).write_text(json.dumps(about), encoding="utf-8")
            made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)  # of a failure, or of the slower of two


def mapped(folder: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
    """Return what `keep` wrote, None where there is nothing; each array starts at a multiple of 64 bytes."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        files = sorted(folder.glob("*.npy"))
        return {file.stem: np.asarray(np.load(file, mmap_mode="c")) for file in files}, about
    except (OSError, ValueError):
        return None
