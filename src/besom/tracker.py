"""The contract between a sweep and whatever records its runs, with the null object beside it.

The sweeper knows only this file: in besom's own app the tracker is `besom.tracking.MlflowTracker`,
in other people's apps it is `NoTracker`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

PROVISIONAL = "spooled-"
"""How the id begins of a run that nobody could make yet."""
NoteIds = Callable[[Mapping[str, str]], None]
"""Takes {provisional id: the run's id}."""


def is_provisional(run_id: str | None) -> bool:
    """Tell whether an id stands for a run that could not be made yet."""
    return run_id is not None and run_id.startswith(PROVISIONAL)


class Tracker(Protocol):
    """Records a sweep as one parent run and each trial as a child run.

    ``state`` is Optuna's word: COMPLETE, PRUNED or FAIL. ``died`` is True where the trial's process
    died or was stopped from outside, so that its end is not its own doing.
    """

    def open_sweep(self, name: str, config: Mapping[str, Any], *, is_resume: bool = False) -> None:
        """Start or take up the sweep's parent run; ``config`` is the master config, resolved, without hydra.

        Raises:
            UserError: it cannot be reached, and ``is_resume`` is False: the address may be wrong.
        """

    def start_trial(self, number: int, config: Mapping[str, Any], tags: Mapping[str, str]) -> str | None:
        """Create the RUNNING run of a trial and return its id, a provisional one while nobody answers."""

    def end_trial(self, run_id: str, state: str, reason: str | None, died: bool) -> None:
        """End a trial's run in the state that the study has for it. Ending it twice is harmless."""

    def running_trials(self) -> list[tuple[str, int]]:
        """Return (run id, trial number) of the sweep's runs that are still RUNNING."""

    def close_sweep(self, summary: Mapping[str, float], best_number: int | None, finished: bool) -> None:
        """End the parent run with its counts; ``finished`` is False where the sweep can be resumed."""

    def deliver(self, note: NoteIds, seconds: float = math.inf) -> bool:
        """Pass on what waits, if somebody answers again; return whether that is so for the first time.

        Args:
            note: is told what provisional ids became.
            seconds: begin no further run after so many.
        """

    @property
    def undelivered(self) -> int:
        """How many runs have something that waits to be passed on."""

    def news(self) -> list[str]:
        """Return what is worth a line, once: that nobody answers, that all was delivered."""


class NoTracker:
    """Records nothing."""

    undelivered = 0

    def open_sweep(self, name: str, config: Mapping[str, Any], *, is_resume: bool = False) -> None:
        return None

    def start_trial(self, number: int, config: Mapping[str, Any], tags: Mapping[str, str]) -> str | None:
        return None

    def end_trial(self, run_id: str, state: str, reason: str | None, died: bool) -> None:
        return None

    def running_trials(self) -> list[tuple[str, int]]:
        return []

    def close_sweep(self, summary: Mapping[str, float], best_number: int | None, finished: bool) -> None:
        return None

    def deliver(self, note: NoteIds, seconds: float = math.inf) -> bool:
        return False

    def news(self) -> list[str]:
        return []
