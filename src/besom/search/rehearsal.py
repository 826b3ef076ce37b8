"""A trial that is only rehearsed: a user's function can ask it what it asks a trial, and no study hears of it."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    check_distribution_compatibility,
)
from optuna.trial import BaseTrial, FrozenTrial


class Rehearsal(BaseTrial):
    """Has a trial's methods and leaves no trace in a study.

    Args:
        trial: the one that is rehearsed.
        point: what it has already.
        suggest: (trial so far, name, distribution) → value.
    """

    def __init__(
        self, trial: FrozenTrial, point: Mapping[str, Any], suggest: Callable[[FrozenTrial, str, BaseDistribution], Any]
    ) -> None:
        self._trial = copy.copy(trial)
        self._trial.params = dict(point)
        self._trial.user_attrs = dict(trial.user_attrs)
        self._distributions: dict[str, BaseDistribution] = {}
        self._ask = suggest

    @property
    def number(self) -> int:
        return self._trial.number

    @property
    def params(self) -> dict[str, Any]:
        return dict(self._trial.params)

    @property
    def relative_params(self) -> dict[str, Any]:
        return {}

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        return {**self._trial.distributions, **self._distributions}

    @property
    def user_attrs(self) -> dict[str, Any]:
        return dict(self._trial.user_attrs)

    @property
    def datetime_start(self) -> datetime.datetime | None:
        return self._trial.datetime_start

    @property
    def constraints(self) -> dict[str, float]:
        return dict(self._trial.constraints)

    def set_user_attr(self, key: str, value: Any) -> None:
        self._trial.user_attrs[key] = value

    def set_constraint(self, key: str, value: float) -> None:
        """Do nothing; the trial that replays this keeps it."""

    def report(self, value: float, step: int) -> None:
        """Do nothing; the trial that replays this keeps it."""

    def should_prune(self) -> bool:
        return False

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return float(self._suggest(name, FloatDistribution(low, high, log=log, step=step)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return int(self._suggest(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._suggest(name, CategoricalDistribution(choices))

    def suggest_uniform(self, name: str, low: float, high: float) -> float:
        return self.suggest_float(name, low, high)

    def suggest_loguniform(self, name: str, low: float, high: float) -> float:
        return self.suggest_float(name, low, high, log=True)

    def suggest_discrete_uniform(self, name: str, low: float, high: float, q: float) -> float:
        return self.suggest_float(name, low, high, step=q)

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        """Return a value, the same for a name that was asked for before; Optuna's sweeper users call this one too."""
        if name in self._distributions:
            check_distribution_compatibility(self._distributions[name], distribution)
        else:
            value = self._ask(self._trial, name, distribution)
            self._distributions[name] = distribution
            self._trial.params = {**self._trial.params, name: value}
        return self._trial.params[name]
