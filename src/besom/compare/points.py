"""Trials as points of a chart: where they lie, what they say of themselves, what colour they have.

Shared by all charts; knows of none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from optuna.trial import FrozenTrial

from besom.compare.charts import Role, Series
from besom.compare.trials import SweepTrials, point_text
from besom.tables import cell

ROLES: Mapping[str, Role] = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}


def complete_points(trials: SweepTrials, x: Callable[[FrozenTrial], float]) -> Series:
    return points(trials, trials.complete, "complete", x, lambda trial: trial.values[0])


def points(
    trials: SweepTrials,
    some: Sequence[FrozenTrial],
    role: Role,
    x: Callable[[FrozenTrial], float],
    y: Callable[[FrozenTrial], float],
) -> Series:
    texts = [trial_text(trials, trial) for trial in some]
    return Series(role, "points", role, [x(trial) for trial in some], [y(trial) for trial in some], texts)


def trial_text(trials: SweepTrials, trial: FrozenTrial) -> str:
    value = cell(trial.values[0]) if trial.values else trial.state.name
    return f"trial {trial.number}: {value}; {point_text(trial, trials.params)}"


def is_sized(trial: FrozenTrial) -> bool:
    size = trial.user_attrs.get("n_params")
    return isinstance(size, int) and size > 0


def size_of(trial: FrozenTrial) -> int:
    size: int = trial.user_attrs["n_params"]
    return size


def role_of(trial: FrozenTrial) -> Role:
    return ROLES[trial.state.name]


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
