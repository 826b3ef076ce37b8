"""Clocks in the parent of a sweep: how long asking, telling and the books about a trial take, from first to last.

Run as ``python clocks.py FILE sweep …`` it is besom's command with the clocks on; an app of its own imports it and
calls `install`. FILE has one line a call: ``what seconds when``, the last by the system's clock.
"""

from __future__ import annotations

import atexit
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from besom.sweep.ledger import Ledger
from besom.sweep.study import SweepStudy

CLOCKED = {
    "ask": (SweepStudy, "ask"),
    "tell": (SweepStudy, "finish"),
    "open run": (Ledger, "start"),
    "tell and end run": (Ledger, "finish"),
}


def install(file: Path) -> None:
    """Put the clocks on; what they say is written when the process ends."""
    readings: list[tuple[str, float, float]] = []
    for what, (owner, method) in CLOCKED.items():
        setattr(owner, method, _clocked(getattr(owner, method), what, readings))
    atexit.register(lambda: file.write_text("".join("\t".join(map(str, one)) + "\n" for one in readings), "utf-8"))


def _clocked(method: Callable[..., Any], what: str, readings: list[tuple[str, float, float]]) -> Callable[..., Any]:
    @wraps(method)
    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            readings.append((what, time.perf_counter() - start, time.time()))

    return timed


def read(file: Path) -> dict[str, list[float]]:
    """Return the seconds of each call, in order, by what was called."""
    return {what: [seconds for seconds, _ in calls] for what, calls in read_with_times(file).items()}


def read_with_times(file: Path) -> dict[str, list[tuple[float, float]]]:
    """Return for each call its seconds and when it ended, in order, by what was called."""
    found: dict[str, list[tuple[float, float]]] = {what: [] for what in CLOCKED}
    for line in file.read_text("utf-8").splitlines():
        what, seconds, when = line.split("\t")
        found[what].append((float(seconds), float(when)))
    return found


if __name__ == "__main__":
    install(Path(sys.argv[1]))
    from besom.app.cli import main

    main(sys.argv[2:])
