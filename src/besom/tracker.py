"""The contract between a sweep and whatever records its runs, with the null object beside it.

The sweeper knows only this file: in besom's own app the tracker is `besom.tracking.MlflowTracker`,
in other people's apps it is `NoTracker`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Tracker(Protocol):
    """Records a sweep as one parent run and each trial as a child run.

    ``state`` is Optuna's word: COMPLETE, PRUNED or FAIL. ``died`` is True where the trial's process
    died or was stopped from outside, so that its end is not its own doing.
    """

    def open_sweep(self, name: str, config: Mapping[str, Any]) -> None:
        """Start or take up the sweep's parent run; ``config`` is the master config, resolved, without hydra."""

    def start_trial(self, number: int, config: Mapping[str, Any], tags: Mapping[str, str]) -> str | None:
        """Create the RUNNING run of a trial and return its id."""

    def end_trial(self, run_id: str, state: str, reason: str | None, died: bool) -> None:
        """End a trial's run in the state that the study has for it. Ending it twice is harmless."""

    def running_trials(self) -> list[tuple[str, int]]:
        """Return (run id, trial number) of the sweep's runs that are still RUNNING."""

    def close_sweep(self, summary: Mapping[str, float], best_number: int | None, finished: bool) -> None:
        """End the parent run with its counts; ``finished`` is False where the sweep can be resumed."""


class NoTracker:
    """Records nothing."""

    def open_sweep(self, name: str, config: Mapping[str, Any]) -> None:
        return None

    def start_trial(self, number: int, config: Mapping[str, Any], tags: Mapping[str, str]) -> str | None:
        return None

    def end_trial(self, run_id: str, state: str, reason: str | None, died: bool) -> None:
        return None

    def running_trials(self) -> list[tuple[str, int]]:
        return []

    def close_sweep(self, summary: Mapping[str, float], best_number: int | None, finished: bool) -> None:
        return None
