"""Whether an array fits into the memory that is free, asked before it is made. Knows nothing of files."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from besom.errors import DataError


def check_memory(what: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise `DataError` where an array and its copy as float32 or int64 need more memory than is free.

    Args:
        what: the words for it that the message begins with.
    """
    import psutil

    needed = math.prod(shape) * (dtype.itemsize + 8)
    available = psutil.virtual_memory().available
    if needed > available:
        raise DataError(
            f"{what} of shape {shape} and {dtype} needs {needed / 2**30:.1f} GiB; "
            f"expected at most the {available / 2**30:.1f} GiB of memory that are free"
        )
