"""How a sweep stands at a moment: what ended, what runs, what is best, how long it takes.

The same for the parent, which has it in memory, and for those who read it out of the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from besom.sweep.pace import Span, seconds_left
from besom.sweep.tally import UNASKED, Counts, outcome
from besom.tables import visible

UNSEEN = ("parent_died", UNASKED)
"""Outcomes of trials whose end nobody saw: it was written down by the next start."""


@dataclass(frozen=True)
class RunningTrial:
    """A trial on its way.

    Args:
        point: its parameters on one line.
        seconds: since it was started.
        step: the last one that it reported, from 0; None before the first report.
        value: what it reported then.
    """

    number: int
    point: str
    seconds: float
    step: int | None = None
    value: float | None = None

    @property
    def epoch(self) -> int | None:
        """How many epochs are over: steps are counted from 0, epochs from 1."""
        return None if self.step is None else self.step + 1


@dataclass(frozen=True)
class Standing:
    """A sweep at a moment.

    Args:
        total: how many trials it ends at, None where only time or the user ends it.
        front: the best trial; with several objectives those that no other one dominates.
        elapsed: seconds in which trials ran, earlier starts included.
        ended: seconds that each trial of this start took, 0 for one that was not run.
        lanes: how many trials run at the same time, 0 where nobody runs the sweep.
        undelivered: how many runs wait on disk until MLflow can be reached.
    """

    counts: Counts
    total: int | None
    front: Sequence[FrozenTrial]
    running: Sequence[RunningTrial]
    elapsed: float
    ended: Sequence[float]
    lanes: int
    undelivered: int = 0

    @property
    def left(self) -> float | None:
        """About how many seconds there are left, None where nothing tells."""
        if self.total is None:
            return None
        unstarted = self.total - self.counts.counted - len(self.running)
        return seconds_left(self.ended, [trial.seconds for trial in self.running], max(unstarted, 0), self.lanes)


def spans_of(trials: Iterable[FrozenTrial], now: datetime | None = None) -> list[Span]:
    """Return when each trial ran: until ``now`` where it still does, left out where nobody saw its end."""
    spans = []
    for trial in trials:
        end = now if trial.state is TrialState.RUNNING else trial.datetime_complete
        if trial.datetime_start is not None and end is not None and outcome(trial) not in UNSEEN:
            spans.append((trial.datetime_start, end))
    return spans


def point_text(point: Mapping[str, Any]) -> str:
    """Return a point on one line, each key by its shortest telling end."""
    return visible(" ".join(f"{short_key(key)}={value}" for key, value in point.items()))


def short_key(key: str) -> str:
    """Return ``conv.0.filters`` for ``model.conv.0.filters``: the group is plain from the rest."""
    return key.split(".", 1)[-1]
