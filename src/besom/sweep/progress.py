"""What a person sees while a sweep runs: a live picture in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.text import Text

from besom.results import TrialResult
from besom.sweep.pace import ran_seconds
from besom.sweep.standing import RunningTrial, Standing, point_text, spans_of
from besom.sweep.study import Asked, SweepStudy
from besom.sweep.view import best_text, picture, values_text
from besom.tables import visible

NEWS_SECONDS = 0.25
IDLE_SECONDS = 1.0
"""How long a picture stands at least: after something happened, and when nothing did."""


class Progress(Protocol):
    """Hears what happens in a sweep."""

    def __enter__(self) -> Progress: ...
    def __exit__(self, *exception: object) -> None: ...
    def started(self, asked: Asked) -> None:
        """A lane got the trial."""

    def reported(self, number: int, step: int, value: float) -> None:
        """A running trial reported a value."""

    def ended(self, result: TrialResult) -> None:
        """A trial ended by itself."""

    def lost(self, number: int, text: str) -> None:
        """A trial was ended from outside."""

    def tick(self) -> None:
        """Called a few times a second."""

    def said(self, text: str) -> None:
        """Something worth a line happened."""

    def waits(self, undelivered: int) -> None:
        """So many runs wait on disk until MLflow can be reached."""


def choose_progress(study: SweepStudy, total: int | None) -> Progress:
    """Return the live view in a terminal, plain lines elsewhere; on stderr, since stdout is for results."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    return LiveView(study, total, console) if sys.stderr.isatty() else Lines(study, total, console)


class Lines:
    """One line for each trial that ended, best so far at its end."""

    def __init__(self, study: SweepStudy, total: int | None, console: Console) -> None:
        self._study = study
        self._total = total
        self._console = console
        self._points: dict[int, str] = {}
        self._undelivered = 0

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def started(self, asked: Asked) -> None:
        self._points[asked.number] = point_text(asked.point)

    def reported(self, number: int, step: int, value: float) -> None:
        return None

    def ended(self, result: TrialResult) -> None:
        self._console.print(ended_text(self._study, self._total, result, self._points.pop(result.number, "")))

    def lost(self, number: int, text: str) -> None:
        self._points.pop(number, None)
        self._console.print(Text(visible(f"trial {number}: {text}")))

    def tick(self) -> None:
        return None

    def said(self, text: str) -> None:
        self._console.print(Text(visible(text)))

    def waits(self, undelivered: int) -> None:
        self._undelivered = undelivered


def ended_text(study: SweepStudy, total: int | None, result: TrialResult, point: str) -> Text:
    """Return the line about a trial that ended."""
    value = f" {values_text(result.values)}" if result.values else ""
    line = f"[{study.counts.counted}/{total or '?'}] trial {result.number} {result.state}{value} {point}".rstrip()
    if result.reason:
        line += f" ({result.reason})"
    if best := best_text(study.tally.front):
        line += f"; {best}"
    style = {"COMPLETE": "", "PRUNED": "yellow", "FAIL": "red"}[result.state]
    return Text(visible(line), style=style)


class LiveView(Lines):
    """The same lines above a picture of the sweep, redrawn in place.

    Drawing costs some milliseconds of a core that trials could use: when a trial ends, after other news four times
    a second at most, without any once a second, for the clock.
    """

    def __init__(self, study: SweepStudy, total: int | None, console: Console) -> None:
        super().__init__(study, total, console)
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._earlier = ran_seconds(spans_of(study.trials))
        self._opened = time.monotonic()
        self._started: dict[int, float] = {}
        self._reports: dict[int, tuple[int, float]] = {}
        self._took: list[float] = []
        self._lanes = 0
        self._drawn = -IDLE_SECONDS
        self._is_news = True

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def started(self, asked: Asked) -> None:
        super().started(asked)
        self._started[asked.number] = time.monotonic()
        self._lanes = max(self._lanes, len(self._started))
        self._is_news = True

    def reported(self, number: int, step: int, value: float) -> None:
        self._reports[number] = (step, value)
        self._is_news = True

    def ended(self, result: TrialResult) -> None:
        super().ended(result)
        now, started = time.monotonic(), self._forget(result.number)
        self._took.append(0.0 if started is None else now - started)
        self._draw(now)  # at once: the start of the next trial may take a while

    def lost(self, number: int, text: str) -> None:
        super().lost(number, text)
        self._forget(number)
        self._draw(time.monotonic())

    def tick(self) -> None:
        now = time.monotonic()
        if now - self._drawn >= (NEWS_SECONDS if self._is_news else IDLE_SECONDS):
            self._draw(now)

    def _draw(self, now: float) -> None:
        self._drawn, self._is_news = now, False
        self._live.update(picture(self.standing(now), self._console.height), refresh=True)

    def standing(self, now: float) -> Standing:
        """Return how the sweep stands at a moment of the monotonic clock."""
        running = [
            RunningTrial(number, self._points.get(number, ""), now - started, *self._reports.get(number, ()))
            for number, started in self._started.items()
        ]
        study, elapsed = self._study, self._earlier + now - self._opened
        seconds = (elapsed, self._took, self._lanes)
        return Standing(study.counts, self._total, study.tally.front, running, *seconds, self._undelivered)

    def _forget(self, number: int) -> float | None:
        """Drop a trial that no longer runs; return when it was started, None where it never was."""
        self._reports.pop(number, None)
        return self._started.pop(number, None)
