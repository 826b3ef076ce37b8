"""How long a sweep has run, and about how long it still will: arithmetic of seconds and moments.

Knows nothing of studies and of what trials are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import accumulate
from statistics import fmean

Span = tuple[datetime, datetime]


def seconds_left(ended: Sequence[float], running: Sequence[float], unstarted: int, lanes: int) -> float | None:
    """Return about how many seconds it takes until the last trial ends, None as long as nothing tells.

    Args:
        ended: seconds that each trial took; 0 for one that ended without being run, as by a broken constraint.
        running: seconds since the start of each trial that runs now.
        unstarted: how many trials are still to be started.
        lanes: how many run at the same time, 0 where nobody runs them.
    """
    ran = [seconds for seconds in ended if seconds > 0]
    if not ran or not lanes:
        return None
    left = [max(fmean(ran) - seconds, 0.0) for seconds in running]
    return max([(sum(left) + fmean(ended) * unstarted) / lanes, *left])


def most_at_once(spans: Iterable[Span]) -> int:
    """Return how many trials ran at the same time at most: between two of them a lane is empty for a moment."""
    changes = [(moment, change) for start, end in spans for moment, change in ((start, 1), (end, -1))]
    return max(accumulate(change for _, change in sorted(changes)), default=0)


def ran_seconds(spans: Iterable[Span]) -> float:
    """Return for how many seconds at least one of some trials ran; what runs at the same time counts once."""
    total, until = 0.0, datetime.min
    for start, end in sorted(spans):
        total += max((end - max(start, until)).total_seconds(), 0.0)
        until = max(until, end)
    return total


def duration_text(seconds: float) -> str:
    """Return ``0:07``, ``12:34``, ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
