"""Parameters that a user's function suggests trial by trial: ``hydra.sweeper.custom_search_space``.

What the function asks for is known only once it has run, but a point that was tried before must not
become a trial. So the function is rehearsed first, on an object with a trial's methods, as often as it
takes to find a new point; the trial then replays the values. The function therefore runs several times
for a trial and must depend on its arguments only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import optuna
from omegaconf import DictConfig
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import BaseTrial, FrozenTrial, Trial

from besom.errors import BesomError, ConfigError, one_line
from besom.search import axis
from besom.search.distinct import DistinctSampler, asked
from besom.search.grammar import override_text
from besom.search.rehearsal import Rehearsal
from besom.search.space import Point, Space
from besom.targets import imported

KEY = "hydra.sweeper.custom_search_space"

REHEARSALS = 100
CHECKS = 5


class UsedUp(BesomError):
    """No new point was found in so many rehearsals; the search ends as if every point was taken."""


class CustomFailed(ConfigError):
    """The user's function raised something; at the values of one trial, maybe not at others."""


def custom_values(space: Space, params: Mapping[str, Any]) -> Point:
    """Return the parameters of a trial that its function suggested."""
    return {name: value for name, value in params.items() if name not in space.params}


def overrides(values: Mapping[str, Any]) -> list[str]:
    """Return suggested values as Hydra's overrides."""
    return [f"{name}={override_text(value)}" for name, value in values.items()]


def key_of(space: Space, params: Mapping[str, Any]) -> str:
    """Return the identity of a trial's point: `Space.key`, and what was suggested beside it."""
    return " ".join([space.key(params), *sorted(overrides(custom_values(space, params)))])


@dataclass(frozen=True)
class CustomSpace:
    """A user's function that suggests parameters.

    Args:
        name: the function's dotted name.
        function: (config, trial) → nothing; calls ``trial.suggest_*``.
        config: of the app, as it is before the trial's overrides.
        fixed: keys of the overrides that every trial gets, without a leading ``+``.
    """

    name: str
    function: Callable[[DictConfig, Trial], object]
    config: DictConfig
    fixed: frozenset[str] = frozenset()

    def wrap(self, sampler: BaseSampler) -> RehearsingSampler:
        """Return a sampler for one point that is as new as the given one's, what is suggested included.

        Raises:
            ConfigError: for a sampler that goes through the points of a finite space.
        """
        if not isinstance(sampler, DistinctSampler):
            raise ConfigError(
                f"{KEY}={self.name} suggests parameters that {type(sampler).__name__} cannot go through; "
                "expected another sampler than grid or bruteforce"
            )
        return RehearsingSampler(sampler, self)

    def check(self, space: Space) -> None:
        """Run the function on a few made-up points, until it does at one.

        Raises:
            ConfigError: it fails at all of them, or suggests a parameter that has a value already.
        """
        for seed in range(CHECKS):
            inner = DistinctSampler(RandomSampler(seed=seed), space, (), np.random.default_rng(seed))
            trial = optuna.create_study(sampler=self.wrap(inner)).ask()
            try:
                space.suggest(trial)
                self.extend(trial, space)
            except CustomFailed:
                if seed == CHECKS - 1:
                    raise
            else:
                return

    def extend(self, trial: Trial, space: Space) -> Point:
        """Run the function on a trial that has its point of the space; return what was suggested."""
        self.run(trial)
        return custom_values(space, trial.params)

    def run(self, trial: BaseTrial) -> None:
        try:
            self.function(self.config, cast(Trial, trial))
        except BesomError:
            raise
        except Exception as error:  # the user's own function runs here
            raise CustomFailed(f"{KEY}={self.name} failed: {type(error).__name__}: {one_line(error)}") from error

    def refuse_overlap(self, space: Space, name: str) -> None:
        bare = name.lstrip("+")
        if bare in {known.lstrip("+") for known in space.params}:
            raise ConfigError(
                f"Overlapping parameters: {KEY}={self.name} suggests {name}, which is in the search space"
            )
        if bare in self.fixed:
            raise ConfigError(f"Overlapping parameters: {KEY}={self.name} suggests {name}, which has a fixed value")


def load(name: str, config: DictConfig, fixed: Iterable[str] = ()) -> CustomSpace:
    """Return the function that ``hydra.sweeper.custom_search_space`` names.

    Args:
        name: ``package.function``.
        config: of the app.
        fixed: the overrides that every trial gets, as text.

    Raises:
        ConfigError: the name cannot be imported.
    """
    keys = (text.partition("=")[0].lstrip("+") for text in fixed)
    return CustomSpace(name, imported(KEY, name), config, frozenset(keys))


class RehearsingSampler(DistinctSampler):
    """A `DistinctSampler` that also knows what the user's function is going to suggest.

    Args:
        sampler: proposes points of the space.
        custom: the function.
    """

    def __init__(self, sampler: DistinctSampler, custom: CustomSpace) -> None:
        super().__init__(
            sampler.inner, sampler.space, sampler.seen, sampler.rng, sampler.index, sampler.history, sampler.redraws
        )
        self.trials_are_alike = False
        self.custom = custom
        self.rehearsed: Point = {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        study = self.shown(study)
        stranger = self.stranger()
        for rehearsal in range(REHEARSALS):
            inner = self.inner if rehearsal <= self.redraws else stranger
            relative = self.relative(inner, study, trial)
            point = self.filled(relative, inner, study, trial)
            self.rehearsed = self._rehearse(point, relative, inner, study, trial)
            if key_of(self.space, {**point, **self.rehearsed}) not in self.seen:
                if inner is stranger:
                    self.disown(study, trial)
                return point
        raise UsedUp(f"{KEY}={self.custom.name} gave no new point in {REHEARSALS} tries; the search space is used up")

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the rehearsed value; the inner sampler's where the function now asks for something else."""
        if param_name in self.rehearsed and axis.snap(param_distribution, self.rehearsed[param_name]):
            return self.rehearsed[param_name]
        return self.inner.sample_independent(study, trial, param_name, param_distribution)

    def _rehearse(
        self, point: Point, relative: Mapping[str, Any], inner: BaseSampler, study: Study, trial: FrozenTrial
    ) -> Point:
        def suggest(partial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
            self.custom.refuse_overlap(self.space, name)
            if name in relative and (snapped := axis.snap(distribution, relative[name])):
                return snapped[0]
            value = asked(inner, study, partial, name, distribution)
            snapped = axis.snap(distribution, value)
            return snapped[0] if snapped else value

        rehearsal = Rehearsal(trial, point, suggest)
        self.custom.run(rehearsal)
        return custom_values(self.space, rehearsal.params)
