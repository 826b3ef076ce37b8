"""The way from a running trial to its sweep: `report` a value, `tell` facts.

A task does not know who runs it. Inside a lane the handle's channel goes to the parent, which alone
writes the study; outside a sweep there is no handle and `report` does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from besom.errors import TrialPruned

Channel = Callable[[int, float], bool]
"""Sends (step, value) to the sweep and returns True when the trial is to be pruned."""


@dataclass
class TrialHandle:
    """What a running trial knows of its sweep.

    Args:
        number: the trial's number in the sweep.
        run_id: the MLflow run that the parent made for it, if it tracks.
        channel: where reports go.
        facts: what the task has told so far; they end up in ``result.json`` and the study.
    """

    number: int
    run_id: str | None
    channel: Channel
    facts: dict[str, Any] = field(default_factory=dict)

    def tell(self, **facts: Any) -> None:
        """Add facts (JSON values) to the trial's result."""
        self.facts.update(facts)


_current: TrialHandle | None = None


def current_trial() -> TrialHandle | None:
    """Return the handle of the trial that this process runs, None outside a sweep."""
    return _current


@contextmanager
def running(handle: TrialHandle) -> Iterator[TrialHandle]:
    """Make ``handle`` the current trial of this process for the length of a ``with``."""
    global _current  # one process runs one trial at a time, so one name is enough
    _current = handle
    try:
        yield handle
    finally:
        _current = None


def report(step: int, value: float) -> None:
    """Report an intermediate value of the objective to the sweep.

    Args:
        step: the epoch, counted from 0; each step once.
        value: the objective at that step.

    Raises:
        TrialPruned: when the sweep's pruner wants the trial to stop. Let it pass.
    """
    handle = _current
    if handle is not None and handle.channel(int(step), float(value)):
        raise TrialPruned(f"pruned at step {step} with {value:.6g}")
