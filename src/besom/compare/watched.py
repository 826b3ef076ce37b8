"""A sweep in a store, looked at from outside while somebody runs it or nobody does: it only reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from besom.compare.catalog import open_study
from besom.lock import holder_of
from besom.paths import Store
from besom.spool.journal import n_pending
from besom.sweep.pace import most_at_once, ran_seconds
from besom.sweep.rows import status
from besom.sweep.run_ids import ids_in
from besom.sweep.standing import RunningTrial, Standing, point_text, spans_of
from besom.sweep.tally import OWN, Tally, directions_of, outcome


@dataclass(frozen=True)
class Look:
    """What there was to see of a sweep at one moment.

    Args:
        activity: ``running``: a living process runs it; ``complete``: its total is reached; ``stopped``: neither.
        trials: all of them, in order of number.
        run_ids: which runs provisional ids became, see `besom.sweep.run_ids`.
    """

    name: str
    activity: str
    standing: Standing
    tally: Tally
    trials: Sequence[FrozenTrial]
    run_ids: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the contract of ``besom status --format json``."""
        standing = self.standing
        return {
            **status(self.name, standing.total, self.tally, self.run_ids),
            "undelivered": standing.undelivered,
            "activity": self.activity,
            "elapsed_seconds": round(standing.elapsed, 1),
            "remaining_seconds": self.remaining,
            "running_trials": [_running_json(trial) for trial in standing.running],
        }

    @property
    def remaining(self) -> float | None:
        """About how many seconds there are left; 0 when it is complete, None where nothing tells."""
        if self.activity != "running":
            return 0.0 if self.activity == "complete" else None
        left = self.standing.left
        return None if left is None else round(left, 1)


class Watched:
    """A sweep to be looked at as often as one likes; finished trials are read once.

    Raises:
        NotFound: there is no store, or no such sweep in it; a look raises it too, of a sweep that is deleted meanwhile.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self.name = name
        self._open()

    def _open(self) -> None:
        self._study = open_study(self._store, self.name)
        self._attributes = self._study.user_attrs

    def look(self) -> Look:
        """Return how the sweep stands now."""
        parent = holder_of(self._store.lock(self.name))  # before the trials: once it is gone, they are final
        self._refresh()
        trials = self._study.get_trials(deepcopy=False)
        tally = Tally(directions_of(self._study), trials)
        total = self._attributes.get("n_trials")
        if total is not None and tally.counts.counted >= total and not tally.running:
            activity = "complete"
        else:
            activity = "stopped" if parent is None else "running"
        standing = _standing(trials, tally, total, parent if activity == "running" else None)
        standing = replace(standing, undelivered=n_pending(self._store, self.name))
        return Look(self.name, activity, standing, tally, trials, ids_in(self._attributes))

    def _refresh(self) -> None:
        """Read what may change; another study may have come under the name, and even under its number."""
        known = self._attributes.get("id")
        try:
            self._attributes = self._study.user_attrs
        except KeyError:  # deleted
            self._attributes = {}
        if self._attributes.get("id") != known or not self._attributes:
            self._open()


def _standing(
    trials: Sequence[FrozenTrial], tally: Tally, total: int | None, parent: Mapping[str, Any] | None
) -> Standing:
    """Return the standing of stored trials; only a living ``parent`` has some that run, and a start to measure."""
    now = datetime.now()
    since = datetime.min if parent is None else datetime.fromtimestamp(parent.get("process_start", 0.0))
    mine = [trial for trial in trials if trial.datetime_start is not None and trial.datetime_start >= since]
    running = [trial for trial in mine if trial.state is TrialState.RUNNING and parent is not None]
    ended = [trial for trial in mine if outcome(trial) in OWN]
    return Standing(
        tally.counts,
        total,
        tally.front,
        [_running(trial, now) for trial in running],
        ran_seconds([*spans_of(running, now), *spans_of(trials)]),
        [0.0 if outcome(trial) == "infeasible" else _seconds(trial, now) for trial in ended],
        0 if parent is None else most_at_once(spans_of(mine, now)),
    )


def _running(trial: FrozenTrial, now: datetime) -> RunningTrial:
    values = trial.intermediate_values
    last = (step := max(values), values[step]) if values else ()
    return RunningTrial(trial.number, point_text(trial.params), _seconds(trial, now), *last)


def _seconds(trial: FrozenTrial, now: datetime) -> float:
    return ((trial.datetime_complete or now) - (trial.datetime_start or now)).total_seconds()


def _running_json(trial: RunningTrial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "epoch": trial.epoch,
        "value": trial.value,
        "seconds": round(trial.seconds, 1),
    }
