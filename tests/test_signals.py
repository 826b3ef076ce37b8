"""Signals that end a command: one exception, the exit codes of a shell, nothing ignored that was not, nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from besom.signals import (
    ENDING,
    Terminated,
    ended_by_signals,
    exit_code_of,
    handled_by,
    heard,
    interruption_behind,
    passed_over,
)
from besom.sweep.interrupt import Interrupt


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """Each test leaves the handlers and the mask as it found them."""
    before = [signal.getsignal(number) for number in ENDING], signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    assert ([signal.getsignal(number) for number in ENDING], signal.pthread_sigmask(signal.SIG_BLOCK, ())) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_raises_what_ends_a_command_with_its_exit_code(number: signal.Signals, code: int) -> None:
    with ended_by_signals(), pytest.raises(KeyboardInterrupt, match=f"ended by {number.name}") as raised:
        os.kill(os.getpid(), number)
    assert exit_code_of(raised.value) == code


def test_ctrl_c_is_130() -> None:
    assert exit_code_of(KeyboardInterrupt()) == 130
    assert isinstance(Terminated(15), KeyboardInterrupt)


def test_an_ignored_sighup_stays_ignored_and_an_ignored_sigint_does_not() -> None:
    before = [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGINT)]
    heard_of: list[int] = []
    try:
        with handled_by(lambda number, frame: heard_of.append(number)):
            for number in (signal.SIGHUP, signal.SIGINT):
                os.kill(os.getpid(), number)
    finally:
        signal.signal(signal.SIGHUP, before[0])
        signal.signal(signal.SIGINT, before[1])
    assert heard_of == [signal.SIGINT]


def test_another_thread_than_the_main_one_handles_nothing() -> None:
    codes: list[object] = []

    def look() -> None:
        with handled_by(lambda number, frame: None), passed_over():
            codes.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert codes == [signal.getsignal(signal.SIGTERM)]


def test_a_signal_that_comes_while_it_is_passed_over_is_handled_afterwards() -> None:
    heard_of: list[int] = []
    with handled_by(lambda number, frame: heard_of.append(number)):
        with passed_over():
            os.kill(os.getpid(), signal.SIGTERM)
            assert not heard_of
        assert heard_of == [signal.SIGTERM]


CHILD = """
import os, signal, sys
from besom.signals import heard
os.kill(os.getpid(), signal.SIGTERM)
print("deaf", flush=True)
heard()
os.kill(os.getpid(), signal.SIGINT)
print("deaf to the terminal", flush=True)
os.kill(os.getpid(), signal.SIGTERM)
print("not here", flush=True)
"""


def test_a_process_that_is_started_meanwhile_is_deaf_until_it_wants_to_hear() -> None:
    with passed_over():
        child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True)
    said, _ = child.communicate(timeout=60)
    assert said.splitlines()[0] == "deaf"
    assert "not here" not in said
    assert child.returncode == -signal.SIGTERM
    assert callable(heard)


def test_a_first_signal_asks_and_only_a_second_ctrl_c_raises() -> None:
    with Interrupt() as interrupt:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert interrupt.asked == signal.SIGTERM
        with pytest.raises(Terminated, match="SIGTERM"):
            interrupt.check()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_what_runs_long_is_left_at_the_first_signal_and_not_begun_after_one() -> None:
    with Interrupt() as interrupt:
        with pytest.raises(Terminated), interrupt.at_once(True):
            os.kill(os.getpid(), signal.SIGHUP)
        with pytest.raises(Terminated), interrupt.at_once(True):
            raise AssertionError("not begun")
        with interrupt.at_once(False):
            pass


def test_an_error_of_a_library_that_was_left_in_the_middle_is_the_interruption() -> None:
    def left_in_the_middle() -> None:
        try:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                raise AttributeError("while cleaning up")
        except AttributeError as error:
            raise ValueError("what a library makes of that") from error

    with ended_by_signals(), pytest.raises(ValueError, match="what a library") as raised:
        left_in_the_middle()
    found = interruption_behind(raised.value)
    assert isinstance(found, Terminated)
    assert exit_code_of(found) == 143
    assert interruption_behind(ValueError("by itself")) is None
