"""Keeps the study and the tracker in step: the study is told first, the run follows.

Whatever dies in between leaves the study right, and `Ledger.open` brings the runs after it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from besom.results import TrialResult
from besom.sweep import optimization_results
from besom.sweep.endings import Lost, constrained, end_of_left, end_of_run
from besom.sweep.settings import SweepSettings
from besom.sweep.study import Asked, SweepStudy
from besom.sweep.tally import summary
from besom.tracker import Tracker

DELIVERY_SECONDS = 5.0
"""For what waits, before a trial starts: the lanes that report wait as long."""
LAST_SECONDS = 30.0
"""The same at the end of a sweep that was stopped; one that is finished delivers all."""

Hearing = Callable[[], AbstractContextManager[None]]


class Ledger:
    """The two books of a sweep, written together.

    Args:
        home: the folder of the sweep's first start, by which the folders of jobs are stored.
        folder: that of this start, where the results go; mostly the same.
    """

    def __init__(self, study: SweepStudy, tracker: Tracker, home: Path, folder: Path, settings: SweepSettings) -> None:
        self.study = study
        self._tracker = tracker
        self._home = home
        self._folder = folder
        self._retries = settings.retries
        self._constraints = settings.constraints
        self._is_open = False

    def open(self, config: Mapping[str, Any], while_delivered: Hearing = nullcontext) -> None:
        """Open the tracker's side of the sweep and close what a dead parent left open.

        Args:
            while_delivered: gives what is entered while all that waits is passed on: that may take long.
        """
        self._tracker.open_sweep(self.study.name, config, is_resume=bool(self.study.trials))
        self._is_open = True
        self._mend()
        with while_delivered():
            self.deliver()
        self._write_results()

    def start(self, asked: Asked, config: Mapping[str, Any]) -> str | None:
        """Make the trial's run and store its id with the trial, before anything is trained."""
        self.deliver(DELIVERY_SECONDS)
        tags = {} if asked.retry_of is None else {"retry_of": str(asked.retry_of)}
        run_id = self._tracker.start_trial(asked.number, config, tags)
        if run_id is not None:
            self.study.note(asked.number, {"run_id": run_id})
        return run_id

    def note_folder(self, number: int, folder: Path) -> None:
        """Store where the trial's ``result.json`` will be, by the sweep's folder, unless its number says it."""
        relative = os.path.relpath(folder, self._home)
        if relative != str(number):
            self.study.note(number, {"job": relative})

    def finish(self, result: TrialResult, run_id: str | None, why: str | None = None) -> TrialResult:
        """Write down how a trial ended by itself; return that, or the failure to tell what a constraint needs."""
        if result.state == "COMPLETE":
            result = self._constrained(result)
        self.study.finish(result, why)
        if run_id is not None:
            self._tracker.end_trial(run_id, result.state, result.reason, died=False)
        self._write_results()
        return result

    def _constrained(self, result: TrialResult) -> TrialResult:
        """Decide the constraints that only the trial itself could tell about."""
        result, broken = constrained(result, self._constraints, self.study.constraints_of(result.number))
        self.study.constrain(result.number, broken)
        return result

    def _write_results(self) -> None:
        study = self.study
        prefix = os.path.relpath(self._home, self._folder)
        optimization_results.write(
            *(self._folder, study.tally.front, len(study.search.directions), study.search.space, prefix),
            run_ids=study.run_ids,
        )

    def lose(self, number: int, run_id: str | None, why: str, reason: str) -> bool:
        """Write down a trial that was ended from outside; return True when its point is to be tried again."""
        again = self.study.lose(number, why, reason, self._retries)
        if run_id is not None:
            self._tracker.end_trial(run_id, "FAIL", reason, died=True)
        return again

    def close(self, finished: bool, while_delivered: Hearing = nullcontext) -> None:
        """Write the counts and the best trial to the parent run and end it; ``while_delivered`` as in `open`."""
        if not self._is_open:
            return
        best = self.study.best
        self._tracker.close_sweep(summary(self.study.tally), best.number if best else None, finished)
        try:
            with while_delivered():
                self.deliver(math.inf if finished else LAST_SECONDS)
        finally:
            self._write_results()

    def deliver(self, seconds: float = math.inf) -> None:
        """Let the tracker pass on what it could not, if it can now; no further run is begun after so many seconds."""
        if self._tracker.deliver(self.study.note_run_ids, seconds):
            self._end_runs()

    @property
    def undelivered(self) -> int:
        """How many runs wait to be passed on."""
        return self._tracker.undelivered

    def news(self) -> list[str]:
        """Return what the tracker has to say since it was asked last, a line each."""
        return self._tracker.news()

    def _mend(self) -> None:
        for trial in self.study.left_running():
            end = end_of_left(trial, self._home, self.study.id)
            if isinstance(end, Lost):
                self.study.lose(trial.number, end.outcome, end.reason, self._retries)
            else:
                self.finish(end, None)
        self._end_runs()

    def _end_runs(self) -> None:
        """End the runs whose trials have ended, which a dead parent left, or which nobody could be told of."""
        trials, became = self.study.trials, self.study.run_ids
        for run_id, number in self._tracker.running_trials():
            trial = trials[number] if number < len(trials) else None
            if trial is not None and not trial.state.is_finished():
                continue
            run_end = end_of_run(trial, run_id, became)
            self._tracker.end_trial(run_id, run_end.state, run_end.reason, died=run_end.died)
