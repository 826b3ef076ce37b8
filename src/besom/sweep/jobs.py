"""From a point to a job: composed as Hydra composes it, measured, and checked against the constraints.

Knows nothing of who asked for the point and of who runs the job.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from besom.configs.config import plain
from besom.engines.engine import Job
from besom.engines.launcher import compose_job
from besom.errors import ConfigError, GeometryError
from besom.search.constraints import Constraint
from besom.sweep.settings import SweepSettings
from besom.sweep.study import Asked

Measure = Callable[[Mapping[str, Any]], Mapping[str, float]]
"""Gives the numbers that constraints are about, from a trial's config, before it is trained."""


class Infeasible(Exception):
    """A point that is not to be trained: a constraint is broken, or a layer does not fit."""


@dataclass(frozen=True)
class Jobs:
    """Makes the job of a point.

    Args:
        is_tracked: whether there are runs that record a trial's config.
    """

    master: DictConfig
    context: HydraContext
    settings: SweepSettings
    measure: Measure | None
    is_tracked: bool

    def compose(self, asked: Asked) -> Job:
        """Return the trial's job, without a run yet.

        Raises:
            UserError: the point cannot be composed.
        """
        overrides = [*self.settings.fixed, *self.settings.search.overrides(asked.point)]
        try:
            return Job(
                asked.number, compose_job(self.context, self.master, overrides, asked.number), None, tuple(overrides)
            )
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(f"{type(error).__name__}: {error}") from error

    def content(self, config: DictConfig) -> dict[str, Any]:
        """Return a job's config as plain content, empty where nobody wants it: resolving it all takes a while."""
        return plain(config) if self.is_tracked or self.measure is not None else {}

    def measures(self, content: Mapping[str, Any]) -> Mapping[str, float]:
        """Return what is known of a trial before it is trained.

        Raises:
            Infeasible: a layer does not fit.
        """
        try:
            return self.measure(content) if self.measure is not None else {}
        except GeometryError as error:
            raise Infeasible(str(error)) from error

    def decidable(self, measures: Mapping[str, float]) -> list[Constraint]:
        """Return the constraints that need no more than ``measures``."""
        return [one for one in self.settings.constraints if set(one.names) <= set(measures)]


def refuse_broken(constraints: Sequence[Constraint], measures: Mapping[str, float]) -> None:
    """Raise `Infeasible` where a constraint is broken."""
    for constraint in constraints:
        if broken := constraint.broken_by(measures):
            raise Infeasible(broken)
