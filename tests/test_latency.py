"""A clock around a call: the first one does not count, and it is soon enough."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from besom.trial import latency


def steps_of(*seconds: float) -> Iterator[float]:
    """Readings of a clock between which so much time passes, one call after another."""
    now = 100.0
    for second in seconds:
        yield now
        now += second
        yield now


def calls_until_known(monkeypatch: pytest.MonkeyPatch, *seconds: float) -> tuple[int, float]:
    """Return how many calls were made that take so long each, and what was found."""
    calls: list[None] = []
    readings = steps_of(*seconds)
    monkeypatch.setattr(time, "perf_counter", lambda: next(readings))
    found = latency.median_ms(lambda: calls.append(None))
    return len(calls), found


def test_it_is_the_median_of_the_calls_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, found = calls_until_known(monkeypatch, *[0.002, 0.001, 0.0001] * 2, 0.02)
    assert calls == 1 + 6 + 1
    assert found == pytest.approx(1.0)


def test_of_a_quick_call_there_are_25(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, found = calls_until_known(monkeypatch, *[0.0003] * 100)
    assert calls == 1 + 25
    assert found == pytest.approx(0.3)


def test_a_slow_call_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, found = calls_until_known(monkeypatch, 0.3, 0.3)
    assert calls == 1 + 1
    assert found == pytest.approx(300)
