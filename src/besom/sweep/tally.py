"""What the trials of a sweep come to: how many ended how, and which are the best.

Pure functions of Optuna's trials, and `Tally`, which keeps the same numbers as trials end, so that a
sweep of 10,000 trials does not read them all at every step. Beside Optuna's state a trial has an
*outcome*, the user attribute that says why it ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

OWN = ("complete", "pruned", "infeasible", "failed")
"""Outcomes that are the trial's own: they count towards ``n_trials``."""
LOST = ("lane_died", "batch_lost", "parent_died", "interrupted")
"""Outcomes that came from outside: the point is tried again."""
UNASKED = "unasked"
"""Closed before it had a point: there is nothing to try again."""


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


class Tally:
    """Counts and front of a sweep, kept up to date trial by trial.

    Args:
        directions: ``maximize`` or ``minimize``, one for each objective.
        trials: those there are, in order of number.
    """

    def __init__(self, directions: Sequence[str], trials: Iterable[FrozenTrial] = ()) -> None:
        self._signs = [-1.0 if direction == "maximize" else 1.0 for direction in directions]
        self._ended = dict.fromkeys(OWN, 0)
        self.running = 0
        self.front: list[FrozenTrial] = []
        """The best trial, the first of equals; with several objectives all that no other trial dominates."""
        self.since_best = 0
        """How many trials ended by themselves since the front last changed."""
        for trial in trials:
            self.running += 1
            if trial.state.is_finished():
                self.end(trial)

    @classmethod
    def of(cls, study: Study) -> Tally:
        """Return the tally of a study as it is now."""
        return cls(directions_of(study), study.get_trials(deepcopy=False))

    @property
    def counts(self) -> Counts:
        ended = self._ended
        return Counts(ended["complete"], ended["pruned"] + ended["infeasible"], ended["failed"], self.running)

    @property
    def best(self) -> FrozenTrial | None:
        """The best trial; with several objectives the first of the front."""
        return self.front[0] if self.front else None

    def end(self, trial: FrozenTrial) -> None:
        """Take in a trial that was running and has ended."""
        self.running -= 1
        why = outcome(trial)
        if why not in OWN:
            return
        self._ended[why] += 1
        self.since_best += 1
        if trial.state is TrialState.COMPLETE and is_feasible(trial):
            self._compare(trial)

    def _compare(self, trial: FrozenTrial) -> None:
        losses = self._losses(trial)
        others = [(other, self._losses(other)) for other in self.front]
        if any(_dominates(theirs, losses) or (theirs == losses and len(losses) == 1) for _, theirs in others):
            return
        self.front = [other for other, theirs in others if not _dominates(losses, theirs)] + [trial]
        self.since_best = 0

    def _losses(self, trial: FrozenTrial) -> list[float]:
        return [sign * value for sign, value in zip(self._signs, trial.values, strict=True)]


def summary(tally: Tally) -> dict[str, float]:
    """Return the numbers that a sweep's own run shows: its counts, and its best value where there is one objective."""
    counts, best = tally.counts, tally.best
    found: dict[str, float] = {
        "n_complete": counts.complete,
        "n_pruned": counts.pruned,
        "n_failed": counts.failed,
    }
    return found if best is None or len(best.values) > 1 else {**found, "best_objective": best.values[0]}


def directions_of(study: Study) -> list[str]:
    """Return ``maximize`` or ``minimize`` for each objective of a study."""
    return [direction.name.lower() for direction in study.directions]


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Return whether ``one`` is nowhere worse and somewhere better; smaller is better."""
    return one != other and all(mine <= theirs for mine, theirs in zip(one, other, strict=True))


def outcome(trial: FrozenTrial) -> str | None:
    """Return why a trial ended, None while it has not."""
    value = trial.user_attrs.get("outcome")
    return value if trial.state.is_finished() and isinstance(value, str) else None


def is_feasible(trial: FrozenTrial) -> bool:
    """Return whether a trial kept every constraint that it was measured against."""
    return all(violation <= 0 for violation in trial.constraints.values())
