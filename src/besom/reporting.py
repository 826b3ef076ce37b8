"""The way from a running trial to its sweep: `report` a value, `tell` facts.

A task does not know who runs it. Inside a lane the handle's channel goes to the parent, which alone
writes the study; outside a sweep there is no handle and `report` does nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from besom.errors import TrialPruned
from besom.results import RESERVED

log = logging.getLogger(__name__)

Channel = Callable[[int, float], bool]
"""Sends (step, value) to the sweep and returns True when the trial is to be pruned."""


@dataclass
class TrialHandle:
    """What a running trial knows of its sweep.

    Args:
        number: the trial's number in the sweep.
        run_id: the MLflow run that the parent made for it, if it tracks.
        channel: where reports go.
        is_elsewhere: whether its sweep's parent is on another machine.
        facts: what the task has told so far; they end up in ``result.json`` and the study.
    """

    number: int
    run_id: str | None
    channel: Channel
    is_elsewhere: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    _logged: BaseException | None = None

    def tell(self, **facts: Any) -> None:
        """Add facts to the trial's result.

        Raises:
            ValueError: a fact is not JSON (text, a finite number, a bool, None, a list or dict of them).
        """
        for name in facts:
            if name in RESERVED:
                raise ValueError(f"{name} is a name of besom's own and cannot be told; expected another name")
        self.facts.update({name: _json(name, value) for name, value in facts.items()})

    def log_failure(self, error: BaseException) -> None:
        """Leave an exception with its traceback in the job's log, once: the study keeps one line of it."""
        if error is not self._logged:
            log.error("the trial failed", exc_info=error)
            self._logged = error


def _json(name: str, value: Any) -> Any:
    plain = value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value  # a NumPy scalar
    try:
        json.dumps(plain, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}={value!r} cannot be told ({error}); expected text or finite numbers") from error
    return plain


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


def tell(**facts: Any) -> None:
    """Tell the sweep facts about this trial, such as ``n_params=203068``: columns of its table, and what constraints
    are about. Outside a sweep it does nothing.

    Raises:
        ValueError: a fact is not JSON (text, a finite number, a bool, None, a list or dict of them).
    """
    if _current is not None:
        _current.tell(**facts)


def report(step: int, value: float) -> None:
    """Report an intermediate value of the objective to the sweep; outside a sweep it does nothing.

    Args:
        step: the epoch, counted from 0; each step once.
        value: the objective at that step.

    Raises:
        TrialPruned: when the sweep's pruner wants the trial to stop. Let it pass.
        ValueError: the step is negative.
    """
    if step < 0:
        raise ValueError(f"step {step} is negative; expected one counted from 0")
    handle = _current
    if handle is not None and handle.channel(int(step), float(value)):
        raise TrialPruned(f"pruned at step {step} with {value:.6g}")
