"""The signals that end a command: Ctrl-C, a terminal that is closed, and the `kill` of schedulers and containers.

All three are one exception, so that whatever cleans up after Ctrl-C does so after each of them. Knows nothing of
sweeps.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Handler = Callable[[int, FrameType | None], Any]


class Terminated(KeyboardInterrupt):
    """What SIGTERM and SIGHUP raise; ``number`` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number


def interruption(number: int) -> KeyboardInterrupt:
    """Return the exception that stands for a signal."""
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)


def exit_code_of(error: KeyboardInterrupt) -> int:
    """Return what a shell expects of a command that a signal has ended: 128 and the signal's number, 130 of Ctrl-C."""
    return 128 + (error.number if isinstance(error, Terminated) else signal.SIGINT)


def interruption_behind(error: BaseException) -> KeyboardInterrupt | None:
    """Return the interruption that an error came of: a library that is left in the middle may fail at cleaning up."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, KeyboardInterrupt):
            return one
        if one is not None and one not in seen:
            seen.append(one)
            waiting += [one.__cause__, one.__context__]
    return None


@contextmanager
def handled_by(handler: Handler, numbers: tuple[signal.Signals, ...] = ENDING) -> Iterator[None]:
    """Handle signals for the length of a ``with``, in the main thread only.

    An ignored SIGHUP stays ignored: that is what ``nohup`` is for.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [one for one in numbers if one == signal.SIGINT or signal.getsignal(one) is not signal.SIG_IGN]
    before = {one: signal.signal(one, handler) for one in taken}
    try:
        yield
    finally:
        for one, old in before.items():
            signal.signal(one, signal.SIG_DFL if old is None else old)


def ended_by_signals() -> Any:
    """Return a context in which SIGTERM and SIGHUP raise, as SIGINT does in Python anyway."""
    return handled_by(_raise, (signal.SIGTERM, signal.SIGHUP))


def _raise(number: int, frame: FrameType | None) -> None:
    raise Terminated(number)


@contextmanager
def put_off() -> Iterator[None]:
    """Have a signal that comes meanwhile act at the end of the ``with``: what is made here is known by then."""
    came: list[int] = []
    try:
        with handled_by(lambda number, frame: came.append(number)):
            yield
    finally:
        for number in came:
            signal.raise_signal(number)


@contextmanager
def passed_over() -> Iterator[None]:
    """As `put_off`, and processes that are started here are deaf from their first instruction: their parent acts.

    To be deaf is to block, which is inherited; one that wants to hear calls `heard`. To block is not enough here, where
    another thread may take the signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with put_off():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def heard() -> None:
    """In a process that was started under `passed_over`: let signals end it and what it starts, as anywhere else.

    Only SIGINT is ignored, the terminal's Ctrl-C being the parent's.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
