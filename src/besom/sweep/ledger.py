"""Keeps the study and the tracker in step: the study is told first, the run follows.

Whatever dies in between leaves the study right, and `Ledger.open` brings the runs after it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from besom.errors import ConfigError
from besom.results import TrialResult
from besom.search.constraints import untold, violations
from besom.sweep import optimization_results
from besom.sweep.settings import SweepSettings
from besom.sweep.study import Asked, SweepStudy
from besom.sweep.tally import LOST, UNASKED, outcome
from besom.tracker import Tracker


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

    def open(self, config: Mapping[str, Any]) -> None:
        """Open the tracker's side of the sweep and close what a dead parent left open."""
        self._tracker.open_sweep(self.study.name, config)
        self._is_open = True
        self._mend()
        self._write_results()

    def start(self, asked: Asked, config: Mapping[str, Any]) -> str | None:
        """Make the trial's run and store its id with the trial, before anything is trained."""
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
        decided = self.study.constraints_of(result.number)
        left = [constraint for constraint in self._constraints if constraint.text not in decided]
        missing = untold(left, result.facts)
        try:
            broken = {} if missing else violations(left, result.facts)
        except ConfigError as error:
            missing = str(error)
        if missing:
            return replace(result, state="FAIL", values=[], reason=missing)
        self.study.constrain(result.number, broken)
        return result

    def _write_results(self) -> None:
        study = self.study
        prefix = os.path.relpath(self._home, self._folder)
        optimization_results.write(
            self._folder, study.tally.front, len(study.search.directions), study.search.space, prefix
        )

    def lose(self, number: int, run_id: str | None, why: str, reason: str) -> bool:
        """Write down a trial that was ended from outside; return True when its point is to be tried again."""
        again = self.study.lose(number, why, reason, self._retries)
        if run_id is not None:
            self._tracker.end_trial(run_id, "FAIL", reason, died=True)
        return again

    def close(self, finished: bool) -> None:
        """Write the counts and the best trial to the parent run and end it."""
        if not self._is_open:
            return
        counts, best = self.study.counts, self.study.best
        summary: dict[str, float] = {
            "n_complete": counts.complete,
            "n_pruned": counts.pruned,
            "n_failed": counts.failed,
        }
        if best is not None and len(best.values) == 1:
            summary["best_objective"] = best.values[0]
        self._tracker.close_sweep(summary, best.number if best else None, finished)

    def _mend(self) -> None:
        for trial in self.study.left_running():
            if "point" not in trial.user_attrs:
                self.study.lose(trial.number, UNASKED, "its parent died before it had a point", self._retries)
            elif (result := self._result_of(trial)) is not None:
                self.finish(result, None)
            else:
                self.study.lose(trial.number, "parent_died", "its parent died", self._retries)
        for run_id, number in self._tracker.running_trials():
            self._end_as_study_has_it(run_id, number)

    def _result_of(self, trial: FrozenTrial) -> TrialResult | None:
        folder = self._home / str(trial.user_attrs.get("job", trial.number))
        return TrialResult.read(folder, trial.number, self.study.id)

    def _end_as_study_has_it(self, run_id: str, number: int) -> None:
        trials = self.study.trials
        trial = trials[number] if number < len(trials) else None
        if trial is not None and trial.user_attrs.get("run_id") == run_id:
            died = outcome(trial) in LOST
            self._tracker.end_trial(run_id, trial.state.name, trial.user_attrs.get("reason"), died=died)
        else:  # its parent died between making the run and storing its id
            self._tracker.end_trial(run_id, "FAIL", "its parent died", died=True)
