"""What a person sees while a sweep runs: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from besom.results import TrialResult
from besom.sweep.study import Asked, SweepStudy


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


def choose_progress(study: SweepStudy, total: int | None) -> Progress:
    """Return the live view in a terminal, plain lines elsewhere; on stderr, since stdout is for results."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    return LiveView(study, total, console) if sys.stderr.isatty() else Lines(study, total, console)


def point_text(point: Mapping[str, Any]) -> str:
    """Return a point on one line, each key by its shortest telling end."""
    return " ".join(f"{short_key(key)}={value}" for key, value in point.items())


def short_key(key: str) -> str:
    """Return ``conv.0.filters`` for ``model.conv.0.filters``: the group is plain from the rest."""
    return key.split(".", 1)[-1]


class Lines:
    """One line for each trial that ended, best so far at its end."""

    def __init__(self, study: SweepStudy, total: int | None, console: Console) -> None:
        self._study = study
        self._total = total
        self._console = console
        self._points: dict[int, str] = {}

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
        self._console.print(Text(f"trial {number}: {text}"))

    def tick(self) -> None:
        return None

    def said(self, text: str) -> None:
        self._console.print(Text(text))


def ended_text(study: SweepStudy, total: int | None, result: TrialResult, point: str) -> Text:
    """Return the line about a trial that ended."""
    counts, best = study.counts, study.best
    value = f" {_values_text(result.values)}" if result.values else ""
    line = f"[{counts.counted}/{total or '?'}] trial {result.number} {result.state}{value} {point}".rstrip()
    if result.reason:
        line += f" ({result.reason})"
    if best is not None and len(best.values) == 1:
        line += f"; best {_values_text(best.values)}, trial {best.number}"
    elif best is not None:
        line += f"; {len(study.tally.front)} on the front"
    style = {"COMPLETE": "", "PRUNED": "yellow", "FAIL": "red"}[result.state]
    return Text(line, style=style)


def _values_text(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


class LiveView(Lines):
    """The same lines above a table of the running trials, redrawn as they report."""

    def __init__(self, study: SweepStudy, total: int | None, console: Console) -> None:
        super().__init__(study, total, console)
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._reports: dict[int, tuple[int, float]] = {}
        self._start = time.monotonic()
        self._ended = 0

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def reported(self, number: int, step: int, value: float) -> None:
        self._reports[number] = (step, value)

    def ended(self, result: TrialResult) -> None:
        super().ended(result)
        self._reports.pop(result.number, None)
        self._ended += 1

    def tick(self) -> None:
        self._live.update(Group(self._table(), self._footer()), refresh=True)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for title in ("running", "epoch", "value", "point"):
            table.add_column(title, style="cyan" if title == "running" else "")
        for number, point in self._points.items():
            step, value = self._reports.get(number, (None, None))
            row = ("-", "-") if step is None else (str(step + 1), f"{value:.4f}")
            table.add_row(str(number), *row, point)
        return table

    def _footer(self) -> Text:
        counts = self._study.counts
        text = f"{counts.complete} complete, {counts.pruned} pruned, {counts.failed} failed"
        if self._total and self._ended:
            left = (self._total - counts.counted) * (time.monotonic() - self._start) / self._ended
            text += f"; about {left:.0f} s left"
        return Text(text, style="dim")
