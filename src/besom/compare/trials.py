"""A sweep's trials as charts and pages want them: by how they ended, with short names, and when they ran beside which.

Reads Optuna's study only; knows nothing of MLflow, and nothing of how it is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from besom.sweep.run_ids import known_ids
from besom.sweep.tally import OWN, Tally, directions_of, outcome
from besom.tables import title

OBJECTIVE_SETTING = "train.objective"


@dataclass(frozen=True)
class SweepTrials:
    """The trials of a sweep that ended by themselves, in order of number.

    Args:
        name: of the sweep.
        objective: what is optimized, such as ``val_accuracy``.
        is_maximized: of the first objective, which charts are about.
        ended: COMPLETE, PRUNED and FAIL; attempts that died with their lane or parent are left out.
        best: the best complete trial, None while there is none.
        run_ids: which runs provisional ids became, see `besom.sweep.run_ids`.
    """

    name: str
    objective: str
    is_maximized: bool
    ended: tuple[FrozenTrial, ...]
    best: FrozenTrial | None
    run_ids: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, study: Study) -> SweepTrials:
        """Return the trials of a study as they are now."""
        trials = study.get_trials(deepcopy=False)
        directions = directions_of(study)
        objective = str((study.user_attrs.get("settings") or {}).get(OBJECTIVE_SETTING, "objective"))
        return cls(
            study.study_name,
            objective,
            directions[0] == "maximize",
            tuple(trial for trial in trials if outcome(trial) in OWN),
            Tally(directions, trials).best,
            known_ids(study),
        )

    def _in(self, state: TrialState) -> tuple[FrozenTrial, ...]:
        return tuple(trial for trial in self.ended if trial.state is state)

    @cached_property
    def complete(self) -> tuple[FrozenTrial, ...]:
        """Those with a value that a chart can show."""
        return tuple(trial for trial in self._in(TrialState.COMPLETE) if math.isfinite(trial.values[0]))

    @cached_property
    def pruned(self) -> tuple[FrozenTrial, ...]:
        """Those that the pruner stopped, and those that a constraint forbade."""
        return self._in(TrialState.PRUNED)

    @cached_property
    def failed(self) -> tuple[FrozenTrial, ...]:
        """Those that failed by themselves."""
        return self._in(TrialState.FAIL)

    @cached_property
    def ranked(self) -> tuple[FrozenTrial, ...]:
        """The complete ones, best first, the earlier of equals before the later."""
        sign = -1.0 if self.is_maximized else 1.0
        return tuple(sorted(self.complete, key=lambda trial: (sign * trial.values[0], trial.number)))

    @cached_property
    def params(self) -> tuple[str, ...]:
        """The parameters that were searched and took more than one value, in order of their first trial."""
        names = dict.fromkeys(name for trial in self.ended for name in trial.params)
        return tuple(name for name in names if len({text_of(trial.params.get(name)) for trial in self.complete}) > 1)

    def is_better(self, value: float, other: float) -> bool:
        """Tell whether a value of the objective beats another."""
        return value > other if self.is_maximized else value < other

    def distribution(self, param: str) -> BaseDistribution:
        """Return the distribution that a parameter was drawn from."""
        return next(trial.distributions[param] for trial in self.ended if param in trial.distributions)

    def values_of(self, param: str) -> list[str] | None:
        """Return the values that a parameter of few values took, in the order of its space; None for a range."""
        distribution = self.distribution(param)
        if not isinstance(distribution, CategoricalDistribution):
            return None
        taken = {text_of(trial.params[param]) for trial in self.ended if param in trial.params}
        return [text for text in map(text_of, distribution.choices) if text in taken]


def text_of(value: Any) -> str:
    """Return a parameter's value as a label; of a float four digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def point_text(trial: FrozenTrial, params: Sequence[str]) -> str:
    """Return a trial's point in one line."""
    return ", ".join(f"{title(name)}={text_of(trial.params[name])}" for name in params if name in trial.params)


@dataclass(frozen=True)
class Span:
    """When a trial ran, in seconds since the sweep's first one began, and on which of the lanes, from 0."""

    trial: FrozenTrial
    lane: int
    start: float
    end: float


def spans(trials: Iterable[FrozenTrial]) -> list[Span]:
    """Return when the trials ran; the lane is the first that was free, which is as many lanes as were in use.

    Time in which nothing ran, such as that between two starts of a sweep, is left out.
    """
    timed = [trial for trial in trials if trial.datetime_start and trial.datetime_complete]
    found: list[Span] = []
    free_at: list[datetime] = []
    gap, until = 0.0, None
    for trial in sorted(timed, key=lambda one: (_start(one), one.number)):
        start, end = _start(trial), _end(trial)
        if until is None or start > until:
            gap += (start - until).total_seconds() if until else 0.0
        until = max(until or end, end)
        lane = next((lane for lane, free in enumerate(free_at) if free <= start), len(free_at))
        free_at[lane : lane + 1] = [end]
        zero = _start(found[0].trial) if found else start
        found.append(Span(trial, lane, (start - zero).total_seconds() - gap, (end - zero).total_seconds() - gap))
    return found


def _start(trial: FrozenTrial) -> datetime:
    assert trial.datetime_start is not None
    return trial.datetime_start


def _end(trial: FrozenTrial) -> datetime:
    assert trial.datetime_complete is not None
    return trial.datetime_complete
