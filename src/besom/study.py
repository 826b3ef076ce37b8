"""The truth about a sweep: an Optuna study, with the accounting that resuming and retrying need.

The parent is its only writer. Beside Optuna's state every trial carries user attributes: ``point``
(the index its suggestion was seeded by), ``outcome`` (why it ended), ``retry_of``, ``run_id``,
``reason`` and what the task told (``n_params``, …). They are set before the state, so a finished trial
is always whole.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import event
from sqlalchemy.engine import Engine as SqlEngine

from besom.errors import ConfigError
from besom.results import TrialResult
from besom.samplers import PointSampler, sampler_for_point
from besom.space import Space

OWN = ("complete", "pruned", "infeasible", "failed")
"""Outcomes that are the trial's own: they count towards ``n_trials``."""
LOST = ("lane_died", "parent_died", "interrupted")
"""Outcomes that came from outside: the point is tried again."""
UNASKED = "unasked"
"""Killed inside ``ask``: there is no point yet, nothing to try again."""

optuna.logging.set_verbosity(optuna.logging.WARNING)  # what a sweep does is told by `besom.progress`

STATES = {state.name: state for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)}


@dataclass(frozen=True)
class Counts:
    """How many trials ended how; ``counted`` is what ``n_trials`` is compared with."""

    complete: int = 0
    pruned: int = 0
    failed: int = 0
    running: int = 0

    @property
    def counted(self) -> int:
        return self.complete + self.pruned + self.failed

    @property
    def failure_rate(self) -> float:
        return self.failed / self.counted if self.counted else 0.0


@dataclass(frozen=True)
class Asked:
    """A trial that has its point and waits to be run."""

    number: int
    point: dict[str, Any]
    retry_of: int | None = None


def outcome(trial: FrozenTrial) -> str | None:
    """Return why a trial ended, None while it has not."""
    value = trial.user_attrs.get("outcome")
    return value if trial.state.is_finished() and isinstance(value, str) else None


def counts(trials: list[FrozenTrial]) -> Counts:
    """Count trials by what they are: lost attempts are in none of the numbers."""
    own = [trial.state for trial in trials if outcome(trial) in OWN]
    return Counts(
        complete=own.count(TrialState.COMPLETE),
        pruned=own.count(TrialState.PRUNED),
        failed=own.count(TrialState.FAIL),
        running=sum(trial.state is TrialState.RUNNING for trial in trials),
    )


def open_storage(url: str) -> optuna.storages.BaseStorage:
    """Open Optuna's storage; a SQLite file is put into write-ahead mode, so that readers never wait."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    storage = optuna.storages.RDBStorage(url)
    if url.startswith("sqlite"):
        _write_ahead(storage.engine)
    return storage


def _write_ahead(engine: SqlEngine) -> None:
    @event.listens_for(engine, "connect")
    def _set(connection: Any, record: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # a told trial stays told through a power cut

    engine.dispose()


def has_storage(url: str) -> bool:
    """Return whether there is a storage to read: opening a SQLite file that is not there would make it."""
    return not url.startswith("sqlite:///") or Path(url.removeprefix("sqlite:///")).is_file()


def study_names(url: str) -> list[str]:
    """Return the names of the studies in a storage that exists."""
    return sorted(study.study_name for study in open_storage(url).get_all_studies())


def load_study(url: str, name: str) -> optuna.Study:
    """Return an existing study for reading."""
    return optuna.load_study(study_name=name, storage=open_storage(url))


def delete_study(url: str, name: str) -> None:
    """Delete a study if it is there."""
    if name in study_names(url):
        optuna.delete_study(study_name=name, storage=open_storage(url))


def best_trial(trials: list[FrozenTrial], direction: str) -> FrozenTrial | None:
    """Return the COMPLETE trial with the best value, the first of equals."""
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.value is not None]
    sign = -1.0 if direction == "maximize" else 1.0
    return min(complete, key=lambda trial: (sign * (trial.value or 0.0), trial.number), default=None)


class SweepStudy:
    """One sweep's study, opened for writing by its parent.

    Args:
        url: Optuna's storage URL, None to keep the study in memory.
        name: the sweep's name.
        direction: ``maximize`` or ``minimize``.
        settings: what must not change between starts, as `besom.settings` writes it; stored at the first.
        pruner: Optuna's; it is not stored with the study.
    """

    def __init__(
        self, url: str | None, name: str, direction: str, settings: Mapping[str, Any], pruner: BasePruner
    ) -> None:
        if direction not in ("maximize", "minimize"):
            raise ConfigError(f"hydra.sweeper.direction={direction!r} is not known; expected maximize or minimize")
        self.name = name
        self.direction = direction
        self._storage = open_storage(url) if url else optuna.storages.InMemoryStorage()
        self.study = optuna.create_study(
            storage=self._storage,
            study_name=name,
            direction=StudyDirection[direction.upper()],
            pruner=pruner,
            load_if_exists=True,
        )
        self._study_id = self._storage.get_study_id_from_name(name)
        self._running: dict[int, Trial] = {}
        if "settings" not in self.study.user_attrs:
            self.study.set_user_attr("settings", dict(settings))

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    @property
    def settings(self) -> dict[str, Any]:
        """What the sweep was started with, by dotted key."""
        return dict(self.study.user_attrs["settings"])

    @property
    def counts(self) -> Counts:
        return counts(self.trials)

    @property
    def best(self) -> FrozenTrial | None:
        return best_trial(self.trials, self.direction)

    def aim_at(self, n_trials: int | None) -> None:
        """Store how many trials this start ends at, for `besom status`."""
        self.study.set_user_attr("n_trials", n_trials)

    def seed(self, given: int | None) -> int:
        """Return the study's seed: the given one, or one that is drawn once and stored."""
        stored = self.study.user_attrs.get("seed")
        if stored is None:
            stored = secrets.randbelow(2**31) if given is None else given
            self.study.set_user_attr("seed", stored)
        return int(stored)

    def ask(self, space: Space, sampler: Mapping[str, Any], seed: int) -> Asked | None:
        """Take the next point that nobody has tried: a trial of the study, RUNNING.

        Returns None when a finite space is used up; no trial is made then.
        """
        trials = self.trials
        seen = self._seen(space, trials)
        if space.size is not None and len(seen) >= space.size:
            return None
        index = self._next_point(trials)
        self.study.sampler = sampler_for_point(sampler, space=space, seen=seen, study_seed=seed, index=index)
        return self._take(space, index)

    def retry(self, space: Space, lost: FrozenTrial) -> Asked:
        """Try the point of a lost trial again, as a new trial."""
        self.study.sampler = PointSampler(space, lost.params)
        return self._take(space, lost.user_attrs["point"], lost.number)

    def take(self, space: Space, point: Mapping[str, Any]) -> Asked | None:
        """Take a point that the user named; None when it was taken before."""
        trials = self.trials
        if space.key(point) in self._seen(space, trials):
            return None
        self.study.sampler = PointSampler(space, point)
        return self._take(space, self._next_point(trials))

    def _take(self, space: Space, index: int, retry_of: int | None = None) -> Asked:
        trial = self.study.ask(space.params)
        self._running[trial.number] = trial
        if retry_of is not None:
            self.note(trial.number, retry_of=retry_of)
        self.note(trial.number, point=index)  # last: only with it is the trial fully asked
        return Asked(trial.number, dict(trial.params), retry_of)

    @staticmethod
    def _seen(space: Space, trials: list[FrozenTrial]) -> set[str]:
        return {space.key(trial.params) for trial in trials if trial.params and outcome(trial) != UNASKED}

    @staticmethod
    def _next_point(trials: list[FrozenTrial]) -> int:
        return 1 + max((trial.user_attrs["point"] for trial in trials if "point" in trial.user_attrs), default=-1)

    def note(self, number: int, **attributes: Any) -> None:
        """Store attributes with a trial that has not ended."""
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        for key, value in attributes.items():
            self._storage.set_trial_user_attr(trial_id, key, value)

    def report(self, number: int, step: int, value: float) -> bool:
        """Store an intermediate value; return True when the pruner wants the trial to stop."""
        trial = self._running[number]
        trial.report(value, step)
        return trial.should_prune()

    def finish(self, result: TrialResult, why: str | None = None) -> None:
        """Tell the study how a trial ended by itself."""
        own = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}[result.state]
        self.note(
            result.number, **result.facts, outcome=why or own, **({"reason": result.reason} if result.reason else {})
        )
        self.study.tell(result.number, result.value, STATES[result.state])
        self._running.pop(result.number, None)

    def lose(self, number: int, why: str, reason: str, retries: int) -> bool:
        """Close a trial that did not end by itself as FAIL; return True when its point is to be tried again.

        A point that kills its lane more than ``retries`` times is an own failure from then on.
        """
        trials = self.trials
        if why == "lane_died" and self._lane_deaths(trials, number) >= retries:
            why, reason = "failed", f"{reason}; given up after {retries} retries"
        self.note(number, outcome=why, reason=reason)
        self.study.tell(number, state=TrialState.FAIL)
        self._running.pop(number, None)
        return why in LOST

    @staticmethod
    def _lane_deaths(trials: list[FrozenTrial], number: int) -> int:
        point = trials[number].user_attrs.get("point")
        return sum(outcome(trial) == "lane_died" and trial.user_attrs.get("point") == point for trial in trials)

    def left_running(self) -> list[FrozenTrial]:
        """Return the trials that are RUNNING in the study but not in this process: those of a dead parent."""
        return [trial for trial in self.trials if not trial.state.is_finished() and trial.number not in self._running]

    def to_retry(self) -> list[FrozenTrial]:
        """Return the last attempt of every point that was lost and not tried again since, in order of points."""
        last = {trial.user_attrs["point"]: trial for trial in self.trials if "point" in trial.user_attrs}
        return [last[point] for point in sorted(last) if outcome(last[point]) in LOST]
