"""Samplers that never propose a point of the search space twice, built afresh and seeded for each point.

Optuna's samplers keep their random state in memory and repeat themselves on small spaces. Here each
point has a sampler of its own, seeded by the study's seed and the point's index, so that a resumed
study asks for the same points as one that was never stopped. Knows nothing of how trials are run.
"""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from besom.errors import ConfigError, SpaceError, did_you_mean, one_of
from besom.space import Point, Space

STOP_THEMSELVES = ("optuna.samplers.GridSampler", "optuna.samplers.BruteForceSampler")


class SpaceSampler(BaseSampler):
    """Base of the samplers that decide every parameter of a space at once, in `sample_relative`.

    Args:
        space: what `study.ask` is given as ``fixed_distributions``.
    """

    def __init__(self, space: Space) -> None:
        self.space = space

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the whole space; `study.ask` fills in parameters that have a single value itself."""
        return dict(self.space.params)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise SpaceError(f"{param_name} is not in the search space; expected one of {', '.join(self.space.params)}")


class PointSampler(SpaceSampler):
    """Proposes one given point: an enqueued one, or that of a trial which is run again.

    Raises:
        SpaceError: for a value outside its distribution.
    """

    def __init__(self, space: Space, point: Mapping[str, Any]) -> None:
        super().__init__(space)
        self.point = space.snapped(point)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return dict(self.point)


class GridSampler(SpaceSampler):
    """Proposes the unseen points of a finite space in row-major order: the last parameter moves fastest.

    Not Optuna's sampler of that name, which keeps the grid and its progress in the study's attributes,
    takes its points in random order, and runs some again after a resume. This one has no state: what
    it proposes follows from ``space`` and ``seen`` (`Space.key` of every point proposed before) alone.

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


class DistinctSampler(SpaceSampler):
    """Wraps any sampler so that no point is proposed twice.

    While the inner sampler's proposal was seen it is asked again, ``redraws`` times; then the point is
    drawn from those not seen: by rank in a finite space, at random in an infinite one.

    Args:
        inner: proposes points, by relative or independent sampling or both.
        space: what `study.ask` is given as ``fixed_distributions``.
        seen: `Space.key` of every point that was proposed before.
        rng: draws where the inner sampler only repeats itself.
        redraws: how often the inner sampler is asked again.
    """

    def __init__(
        self, inner: BaseSampler, space: Space, seen: Collection[str], rng: np.random.Generator, redraws: int = 8
    ) -> None:
        super().__init__(space)
        self.inner = inner
        self.seen = seen
        self.rng = rng
        self.redraws = redraws

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        for _ in range(1 + self.redraws):
            point = self._proposal(self.inner, study, trial)
            if self.space.key(point) not in self.seen:
                return point
        if self.space.size is not None:
            return self.space.unseen(self.seen, self.rng)
        # a point of an interval repeats only where a sampler insists on it, as on a bound
        return self._proposal(RandomSampler(seed=int(self.rng.integers(2**32))), study, trial)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self.inner.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self.inner.after_trial(study, trial, state, values)

    def _proposal(self, inner: BaseSampler, study: Study, trial: FrozenTrial) -> Point:
        """Ask a sampler as `study.ask` would: relative parameters first, then the others one by one."""
        point = dict(inner.sample_relative(study, trial, inner.infer_relative_search_space(study, trial)))
        partial = copy.copy(trial)  # a sampler may look at what the trial has so far
        for name, distribution in self.space.params.items():
            if name not in point:
                partial.params = dict(point)
                point[name] = inner.sample_independent(study, partial, name, distribution)
        return self.space.snapped(point)


def sampler_for_point(
    config: Mapping[str, Any], *, space: Space, seen: Collection[str], study_seed: int, index: int
) -> BaseSampler:
    """Return a fresh sampler for one point, seeded by ``SeedSequence([study_seed, index])``.

    Args:
        config: ``hydra.sweeper.sampler`` as a plain dict: ``_target_`` and its arguments. Arguments may have a
            ``_target_`` of their own; every ``seed`` is replaced.
        space: the search space.
        seen: `Space.key` of every point that was proposed before.
        study_seed: of the whole study, at least 0.
        index: of the point, from 0; retries of a point do not advance it.

    Raises:
        ConfigError: for a target or argument that does not exist, or a target that is no sampler.
        SpaceError: for a grid over an infinite space.
    """
    sequence = np.random.SeedSequence([study_seed, index])
    offered = {"seed": int(sequence.generate_state(1)[0]), "space": space, "seen": seen}
    sampler = _built(config, offered)
    if not isinstance(sampler, BaseSampler):
        raise ConfigError(f"{config['_target_']} is a {type(sampler).__name__}; expected an Optuna sampler")
    return (
        sampler
        if isinstance(sampler, SpaceSampler)
        else DistinctSampler(sampler, space, seen, np.random.default_rng(sequence))
    )


def _built(config: Mapping[str, Any], offered: Mapping[str, Any]) -> Any:
    """Call a config's target with its arguments, and with those offered that it takes."""
    target = str(config.get("_target_"))
    factory = _found(target)
    given = {
        name: _built(value, offered) if isinstance(value, Mapping) and "_target_" in value else value
        for name, value in config.items()
        if name not in {"_target_", *offered}
    }
    try:
        known = inspect.signature(factory).parameters
        for name in given:
            if name not in known:
                raise ConfigError(f"{target}: " + one_of("the argument", name, known))
        return factory(**given, **{name: value for name, value in offered.items() if name in known})
    except (TypeError, ValueError, ImportError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{target} refuses its arguments: {reason}") from error


def _found(target: str) -> Callable[..., Any]:
    if target in STOP_THEMSELVES:
        raise ConfigError(f"{target} stops the study by itself; expected hydra/sweeper/sampler=grid for every point")
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"hydra.sweeper.sampler._target_={target!r} cannot be imported ({error}); "
            f"expected a sampler's dotted name, such as optuna.samplers.TPESampler"
        ) from error
    factory = getattr(module, name, None)
    if not callable(factory):
        known = [word for word in dir(module) if callable(getattr(module, word))]
        raise ConfigError(
            f"hydra.sweeper.sampler._target_={target!r} does not exist; "
            f"expected a sampler of {module_name}{did_you_mean(name, known)}"
        )
    return factory  # type: ignore[no-any-return]
