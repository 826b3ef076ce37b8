"""How long one image takes: a clock around a call. Knows nothing of what is called."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

MOST_CALLS, MOST_SECONDS = 25, 0.01
"""It stops at the first of both; a call that takes longer is still timed once."""


def median_ms(call: Callable[[], object]) -> float:
    """Return the median of the milliseconds that some calls take, after one that is not counted."""
    call()  # it pays for what is made when first used
    taken: list[float] = []
    while len(taken) < MOST_CALLS and sum(taken) < MOST_SECONDS:
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return 1000 * median(taken)
