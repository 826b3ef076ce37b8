"""Ctrl-C in two steps: once asks the loop to close what runs, twice stops at once. SIGTERM and SIGHUP ask likewise."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from besom.signals import handled_by, interruption


class Interrupt:
    """While entered, the first signal only sets ``asked``; a second SIGINT raises KeyboardInterrupt.

    A second SIGTERM or SIGHUP changes nothing: who sends both, as a closing session does, has not lost patience.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        """The signal that asked first."""
        self._at_once = False
        self._handled = handled_by(self._ask)

    def __enter__(self) -> Interrupt:
        self._handled.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._handled.__exit__(None, None, None)

    @contextmanager
    def at_once(self, wanted: bool) -> Iterator[None]:
        """Where ``wanted``, let the first signal raise: for code that runs long and loses nothing by it."""
        self._at_once = wanted
        try:
            if wanted:
                self.check()  # it may have come just before
            yield
        finally:
            self._at_once = False

    def check(self) -> None:
        """Raise KeyboardInterrupt where the loop can stand it."""
        if self.asked is not None:
            raise interruption(self.asked)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        first = self.asked is None
        self.asked = number if self.asked is None else self.asked
        if (number == signal.SIGINT and not first) or (first and self._at_once):
            raise interruption(self.asked)
