"""Samplers that decide a whole point at once: a given one, or one that was never proposed before.

Optuna's samplers repeat themselves on small spaces; `DistinctSampler` stands around one of them. Knows
nothing of how a sampler is built and seeded, or of how trials are run.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from besom.errors import SpaceError
from besom.search import axis
from besom.search.recent import RecentStudy
from besom.search.space import Point, Space

STRANGERS = 1000
"""How many random points are drawn before one that was seen is taken; one is almost always enough."""


class SpaceSampler(BaseSampler):
    """Base of the samplers that decide every parameter of a space at once, in `sample_relative`.

    Args:
        space: what the trial's parameters are suggested from, by `Space.suggest`.
    """

    def __init__(self, space: Space) -> None:
        self.space = space

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the whole space; a trial fills in parameters that have a single value itself."""
        return dict(self.space.params)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise SpaceError(f"{param_name} is not in the search space; expected one of {', '.join(self.space.params)}")


class PointSampler(SpaceSampler):
    """Proposes one given point: an enqueued one, or that of a trial which is run again.

    Args:
        point: a value for each parameter; those that are not in the space belong to a custom search space.
        system_attrs: those of the trial that is run again. What a sampler keeps there (CMA-ES its
            distribution, NSGA the generation) is handed on to the new trial, which takes the other's place.
        inner: is told how the trial ends, and proposes what ``point`` has no value for.

    Raises:
        SpaceError: for a value outside its distribution.
    """

    def __init__(
        self,
        space: Space,
        point: Mapping[str, Any],
        system_attrs: Mapping[str, Any] | None = None,
        inner: BaseSampler | None = None,
    ) -> None:
        super().__init__(space)
        self.point = space.snapped(point)
        self.others = {name: value for name, value in point.items() if name not in space.params}
        # a trial's constraints are decided again for the new one
        self.system_attrs = {k: v for k, v in (system_attrs or {}).items() if not k.startswith("constraints")}
        self.inner = inner

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        for key, value in self.system_attrs.items():
            study._storage.set_trial_system_attr(trial._trial_id, key, value)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return dict(self.point)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if param_name in self.others:
            return self.others[param_name]
        if self.inner is None:
            return super().sample_independent(study, trial, param_name, param_distribution)
        return self.inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        if self.inner is not None:
            self.inner.after_trial(study, trial, state, values)


class DistinctSampler(SpaceSampler):
    """Wraps any sampler so that no point is proposed twice.

    While the inner sampler's proposal was seen it is asked again, ``redraws`` times; then the point is
    drawn from those not seen: by rank in a finite space, at random in an infinite one.

    Args:
        inner: proposes points, by relative or independent sampling or both.
        space: what the trial's parameters are suggested from.
        seen: `Space.key` of every point that was proposed before.
        rng: draws where the inner sampler only repeats itself.
        index: of the point, from 0; unlike a trial's number it counts no lost attempts.
        history: how many ended trials the inner sampler sees, the last ones; None for all.
        redraws: how often the inner sampler is asked again.
    """

    def __init__(
        self,
        inner: BaseSampler,
        space: Space,
        seen: Collection[str],
        rng: np.random.Generator,
        index: int | None = None,
        history: int | None = None,
        redraws: int = 8,
    ) -> None:
        super().__init__(space)
        self.inner = inner
        self.seen = seen
        self.rng = rng
        self.index = index
        self.history = history
        self.redraws = redraws
        self.trials_are_alike = not space.is_conditional

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        study = self.shown(study)
        for _ in range(1 + self.redraws):
            point = self.filled(self.relative(self.inner, study, trial), self.inner, study, trial)
            if self.space.key(point) not in self.seen:
                return point
        self.disown(study, trial)
        if self.space.size is not None:
            return self.space.unseen(self.seen, self.rng)
        return self._stranger_point(study, trial)

    def _stranger_point(self, study: Study, trial: FrozenTrial) -> Point:
        """Return a random point of an infinite space, of which a part may be finite and used up."""
        stranger = self.stranger()
        for _ in range(STRANGERS):
            point = self.filled({}, stranger, study, trial)
            if self.space.key(point) not in self.seen:
                break
        return point

    def shown(self, study: Study) -> Study:
        """Return what the inner sampler sees of a study."""
        return study if self.history is None else RecentStudy(study, self.history)

    def stranger(self) -> RandomSampler:
        """Return a sampler that has not seen the study."""
        return RandomSampler(seed=int(self.rng.integers(2**32)))

    def relative(self, inner: BaseSampler, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        """Ask a sampler for the parameters that it decides together."""
        if self.index is not None and isinstance(inner, CmaEsSampler):
            trial = copy.copy(trial)
            trial.number = self.index  # it is part of the seed there
        return inner.sample_relative(study, trial, self._inferred(inner, study, trial))

    def _inferred(self, inner: BaseSampler, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        if type(inner) is TPESampler and self.trials_are_alike:
            # one trial tells what all have; comparing 10,000 is most of the time that asking takes
            study = RecentStudy(study, 1)
        return inner.infer_relative_search_space(study, trial)

    def filled(self, relative: Mapping[str, Any], inner: BaseSampler, study: Study, trial: FrozenTrial) -> Point:
        """Return a point of ``relative`` values, asking the sampler for the other active parameters one by one."""
        point: Point = {}
        partial = copy.copy(trial)  # a sampler may look at what the trial has so far
        for name, distribution in self.space.params.items():
            if self.space.is_active(name, point):
                partial.params = dict(point)
                value = relative[name] if name in relative else asked(inner, study, partial, name, distribution)
                snapped = axis.snap(distribution, value)
                point[name] = snapped[0] if snapped else value
        return self.space.snapped(point)

    def disown(self, study: Study, trial: FrozenTrial) -> None:
        """Keep a point that the inner sampler did not propose from CMA-ES with margin: it learns from proposals."""
        if isinstance(self.inner, CmaEsSampler):
            study._storage.set_trial_system_attr(trial._trial_id, "cmawm:generation", -1)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self.inner.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self.inner.after_trial(study, trial, state, values)


def asked(inner: BaseSampler, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
    """Ask a sampler for one parameter, unless it has a single value."""
    if distribution.single():
        return axis.at(distribution, 0)
    return inner.sample_independent(study, trial, name, distribution)
