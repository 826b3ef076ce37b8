"""When a sweep ends: its total, its time, its target, its patience, its failures.

Knows nothing of how trials are run; asks the study what there is.
"""

from __future__ import annotations

import time

from besom.errors import SweepStopped
from besom.sweep.settings import SweepSettings
from besom.sweep.study import SweepStudy


class Stopping:
    """The rules by which one start of a sweep starts no more trials; its clock starts now."""

    def __init__(self, settings: SweepSettings, study: SweepStudy) -> None:
        self._settings = settings
        self._study = study
        self._deadline = float("inf") if settings.timeout is None else time.monotonic() + settings.timeout

    def reason(self) -> str | None:
        """Return why no further trial is to be started, None while one is; what runs may end."""
        settings, counts = self._settings, self._study.counts
        if settings.n_trials is not None and counts.counted + counts.running >= settings.n_trials:
            return f"hydra.sweeper.n_trials={settings.n_trials} is reached"
        if self._is_on_target():
            return f"hydra.sweeper.target_value={settings.target_value} is reached"
        if settings.patience is not None and self._study.tally.since_best >= settings.patience:
            return f"no better trial in hydra.sweeper.patience={settings.patience} trials"
        if time.monotonic() > self._deadline:
            return f"hydra.sweeper.timeout={settings.timeout:g} seconds are over"
        return None

    def _is_on_target(self) -> bool:
        target, best = self._settings.target_value, self._study.best
        if target is None or best is None:
            return False
        value: float = best.values[0]
        return value >= target if self._settings.search.directions == ["maximize"] else value <= target

    def check_failures(self, last: str | None) -> None:
        """Raise `SweepStopped` where more trials failed than may; ``last`` is the reason of the last one."""
        settings, counts = self._settings, self._study.counts
        if settings.fail_fast and counts.failed:
            raise SweepStopped(f"a trial failed and hydra.sweeper.fail_fast is set: {last}")
        if counts.failure_rate > settings.max_failure_rate:
            raise SweepStopped(
                f"{counts.failed} of {counts.counted} trials failed, more than hydra.sweeper.max_failure_rate="
                f"{settings.max_failure_rate} allows; the last: {last}"
            )
