"""Samplers that go through every point of a finite space once: in order, or at random.

Not Optuna's samplers of these names, which stop the study themselves, keep the grid or the tree in the
study's attributes, and propose points again after a resume. These have no state: what they propose
follows from the space, the points seen and the seed alone.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from besom.search.distinct import SpaceSampler
from besom.search.space import Space


class GridSampler(SpaceSampler):
    """Proposes the unseen points of a finite space in row-major order: the last parameter moves fastest.

    Args:
        seen: `Space.key` of every point proposed before.

    Raises:
        SpaceError: for an infinite space.
    """

    def __init__(self, space: Space, seen: Collection[str]) -> None:
        super().__init__(space)
        self.seen = seen
        space.finite_size()

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.space.first_unseen(self.seen)


class BruteForceSampler(SpaceSampler):
    """Proposes a uniformly random one of the unseen points of a finite space.

    Args:
        seen: `Space.key` of every point proposed before.
        seed: of this point.

    Raises:
        SpaceError: for an infinite space.
    """

    def __init__(self, space: Space, seen: Collection[str], seed: int) -> None:
        super().__init__(space)
        self.seen = seen
        self.rng = np.random.default_rng(seed)
        space.finite_size()

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.space.unseen(self.seen, self.rng)
