"""What is searched and how: all that decides the next point, but for the trials there are so far.

Joins the declared space with the user's function that suggests more, and names the sampler. Knows nothing
of where trials are kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial

from besom.search import custom_space
from besom.search.custom_space import CustomSpace
from besom.search.distinct import PointSampler
from besom.search.samplers import sampler_for_point
from besom.search.space import Point, Space


@dataclass(frozen=True)
class Search:
    """One search.

    Args:
        directions: ``maximize`` or ``minimize``, one for each objective.
        space: the declared parameters.
        sampler: ``hydra.sweeper.sampler``: ``_target_`` and its arguments.
        history: how many ended trials the sampler sees, the last ones; None for all.
        custom: suggests more parameters, None where nothing does.
    """

    directions: Sequence[str]
    space: Space
    sampler: Mapping[str, Any]
    history: int | None = None
    custom: CustomSpace | None = None

    @property
    def size(self) -> int | None:
        """The number of points, None where there is no end of them or it is not known."""
        return None if self.custom is not None else self.space.size

    def key(self, params: Mapping[str, Any]) -> str:
        """Return the identity of a point."""
        return self.space.key(params) if self.custom is None else custom_space.key_of(self.space, params)

    def overrides(self, point: Mapping[str, Any]) -> list[str]:
        """Return a point as Hydra's overrides."""
        more = custom_space.overrides(custom_space.custom_values(self.space, point))
        return [*self.space.overrides(point), *more]

    def suggest(self, trial: Trial) -> Point:
        """Have a trial suggest its whole point."""
        point = self.space.suggest(trial)
        return point if self.custom is None else {**point, **self.custom.extend(trial, self.space)}

    def new_point(self, seen: Collection[str], seed: int, index: int) -> BaseSampler:
        """Return the sampler that proposes the point of an index.

        Args:
            seen: the keys of all points that were taken.
            seed: of the whole study.
            index: of the point, from 0.

        Raises:
            ConfigError, SpaceError: the sampler is wrong, or cannot search this.
        """
        sampler = sampler_for_point(
            self.sampler,
            space=self.space,
            seen=seen,
            study_seed=seed,
            index=index,
            history=self.history,
            n_objectives=len(self.directions),
        )
        return sampler if self.custom is None else self.custom.wrap(sampler)

    def given_point(self, point: Mapping[str, Any], seen: Collection[str], seed: int, index: int) -> BaseSampler:
        """Return a sampler that proposes a point which the user named."""
        return PointSampler(self.space, point, inner=self.new_point(seen, seed, index))

    def same_point(self, lost: FrozenTrial, seen: Collection[str], seed: int) -> BaseSampler:
        """Return a sampler that proposes the point of a lost trial again, in its place."""
        inner = self.new_point(seen, seed, lost.user_attrs["point"])
        return PointSampler(self.space, lost.params, lost.system_attrs, inner)
