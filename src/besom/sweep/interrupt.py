"""Ctrl-C in two steps: once asks the loop to close what runs, twice stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupt:
    """While entered, the first SIGINT only sets ``asked``; the second raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.asked = False
        self._at_once = False
        self._before: Any = None

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def at_once(self, wanted: bool) -> Iterator[None]:
        """Where ``wanted``, let the first SIGINT raise: for code that runs long and loses nothing by it."""
        self._at_once = wanted
        try:
            yield
        finally:
            self._at_once = False

    def check(self) -> None:
        """Raise KeyboardInterrupt where the loop can stand it."""
        if self.asked:
            raise KeyboardInterrupt

    def _ask(self, number: int, frame: FrameType | None) -> None:
        again, self.asked = self.asked, True
        if again or self._at_once:
            raise KeyboardInterrupt
