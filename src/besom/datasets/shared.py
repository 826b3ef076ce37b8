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
ARRAYS = "arrays"
LEFT_FREE = 3
"""A disk has room for arrays where they would fit on it so often."""


def keep(folder: Path, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> None:
    """Write arrays and a few plain facts about them; where another process was faster its folder stays.

    A disk that is full is no reason to stop: then nothing is kept. Nor where they would fill it, or nearly: others
    write there too.
    """
    with suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder.parent).free < LEFT_FREE * sum(array.nbytes for array in arrays.values()):
            return
        made = Path(tempfile.mkdtemp(dir=folder.parent))
        try:
            for key, array in arrays.items():
                np.save(made / f"{key}.npy", array)
            (made / ABOUT).write_text(json.dumps({ARRAYS: list(arrays), **about}), encoding="utf-8")
            made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)  # of a failure, or of the slower of two


def mapped(folder: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
    """Return what `keep` wrote, None where it is not whole; each array starts at a multiple of 64 bytes."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        names = about.pop(ARRAYS)
        return {name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="c")) for name in names}, about
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
