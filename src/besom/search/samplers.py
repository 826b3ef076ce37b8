"""The sampler of one point, built afresh from ``hydra.sweeper.sampler`` and seeded for that point.

Optuna's samplers keep their random state in memory. Here each point has a sampler of its own, seeded by
the study's seed and the point's index, so that a resumed study asks for the same points as one that was
never stopped. What an algorithm carries from point to point (CMA-ES its distribution, NSGA its
populations, QMC its place in the sequence) Optuna keeps in the attributes of trials and study.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NoReturn

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)

from besom.errors import ConfigError, SpaceError, one_line
from besom.search.distinct import DistinctSampler, SpaceSampler
from besom.search.objects import Builder, Factory
from besom.search.space import Space

log = logging.getLogger(__name__)

KEY = "hydra.sweeper.sampler"

STOP_THEMSELVES = (optuna.samplers.GridSampler, optuna.samplers.BruteForceSampler)

NEEDS = {CmaEsSampler: "cmaes", GPSampler: "torch", QMCSampler: "scipy"}
"""Packages that Optuna imports for a sampler when it is first asked, without depending on them."""

FOR_CONDITIONS = (TPESampler, RandomSampler, SpaceSampler)
"""Those that can propose points which have some of the parameters only."""

KEEP_STATE_IN_TRIALS = (CmaEsSampler, NSGAIISampler, NSGAIIISampler)

WARN_OF_INDEPENDENT = (CmaEsSampler, GPSampler, QMCSampler)

SAME_AS = {
    "hydra_plugins.hydra_optuna_sweeper._impl.create_nsgaii_sampler": "optuna.samplers.NSGAIISampler",
    "hydra_plugins.hydra_optuna_sweeper._impl.create_nsgaiii_sampler": "optuna.samplers.NSGAIIISampler",
    "hydra_plugins.hydra_optuna_sweeper.config.raise_motpe_removed": "besom.search.samplers.motpe",
}
"""Targets of the official sweeper's options, which take the place of besom's where both are installed."""

NAMED = frozenset(
    {
        *("independent_sampler", "base_sampler", "crossover", "mutation", "constraints_func", "gamma", "weights"),
        *("elite_population_selection_strategy", "child_generation_strategy", "after_trial_strategy"),
    }
)
"""Arguments of Optuna's samplers that are objects, which a config can only name."""


def sampler_for_point(
    config: Mapping[str, Any],
    *,
    space: Space,
    seen: Collection[str],
    study_seed: int,
    index: int,
    history: int | None = None,
    n_objectives: int | None = None,
) -> BaseSampler:
    """Return a fresh sampler for one point, seeded by ``SeedSequence([study_seed, index])``.

    Args:
        config: ``hydra.sweeper.sampler`` as a plain dict: ``_target_`` and its arguments. Arguments may have a
            ``_target_`` of their own, or be an object's dotted name; every ``seed`` is replaced.
        space: the search space.
        seen: `Space.key` of every point that was proposed before.
        study_seed: of the whole study, at least 0.
        index: of the point, from 0; retries of a point do not advance it.
        history: how many ended trials the sampler sees, the last ones; None for all.
        n_objectives: None where it is not known.

    Raises:
        ConfigError: for a target or argument that does not exist, a target that is no sampler, a package that is
            missing, or a sampler that cannot do with ``history`` or several objectives.
        SpaceError: for a sampler that cannot search the space.
    """
    sequence = np.random.SeedSequence([study_seed, index])
    offer = _Offer(space, seen, study_seed, int(sequence.generate_state(1)[0]))
    sampler = Builder(KEY, offer, NAMED).build(_with_array(_translated(config)))
    if not isinstance(sampler, BaseSampler):
        raise ConfigError(f"{config['_target_']} makes a {type(sampler).__name__}; expected an Optuna sampler")
    _refuse(sampler, space, history, n_objectives)
    if isinstance(sampler, SpaceSampler):
        return sampler
    if config.get("warn_independent_sampling") is not False:
        _tell_what_is_drawn(sampler, space)
    redraws = 1 if isinstance(sampler, GPSampler) else 8  # it fits its model again, to much the same end
    return DistinctSampler(sampler, space, seen, np.random.default_rng(sequence), index, history, redraws)


def motpe(seed: int | None = None) -> NoReturn:
    """Refuse the sampler that Optuna once had for several objectives."""
    raise ConfigError(
        "hydra/sweeper/sampler=motpe: the 'motpe' sampler was removed in Optuna 4.0; "
        "expected hydra/sweeper/sampler=tpe, which takes several objectives too"
    )


@dataclass(frozen=True)
class _Offer:
    """What besom gives to a sampler, and to those inside it, whatever the config says."""

    space: Space
    seen: Collection[str]
    study_seed: int
    point_seed: int

    def __call__(self, factory: Factory) -> Mapping[str, Any]:
        kind = factory if isinstance(factory, type) else object
        _refuse_kind(kind)
        offered: dict[str, Any] = {"seed": self.point_seed, "space": self.space, "seen": self.seen}
        if issubclass(kind, QMCSampler):
            offered["seed"] = self.study_seed  # one sequence for all points
        if issubclass(kind, WARN_OF_INDEPENDENT):
            offered["warn_independent_sampling"] = False  # Optuna says so for each parameter of each trial
        return offered


def _refuse_kind(kind: type) -> None:
    if issubclass(kind, STOP_THEMSELVES):
        option = "grid" if issubclass(kind, optuna.samplers.GridSampler) else "bruteforce"
        raise ConfigError(
            f"{KEY}: {kind.__name__} of Optuna stops the study by itself; expected hydra/sweeper/sampler={option} "
            "for every point"
        )
    for sampler, package in NEEDS.items():
        if issubclass(kind, sampler) and find_spec(package) is None:
            raise ConfigError(
                f"{KEY}: {kind.__name__} needs the package {package}, which is not installed; "
                f"expected pip install {package}, or another sampler"
            )


def _refuse(sampler: BaseSampler, space: Space, history: int | None, n_objectives: int | None) -> None:
    name = type(sampler).__name__
    if space.is_conditional and not isinstance(sampler, FOR_CONDITIONS):
        conditional = next(iter(space.conditions))
        raise SpaceError(
            f"{KEY}: {name} cannot search a space in which a parameter depends on another, as {conditional} does; "
            "expected hydra/sweeper/sampler=tpe, random, grid or bruteforce"
        )
    if history is not None and isinstance(sampler, KEEP_STATE_IN_TRIALS):
        raise ConfigError(
            f"hydra.sweeper.history={history}: {name} keeps its state in earlier trials and must see them all; "
            "expected null, or another sampler"
        )
    if n_objectives is not None and n_objectives > 1 and isinstance(sampler, CmaEsSampler):
        raise ConfigError(
            f"{KEY}: {name} takes one objective, but hydra.sweeper.direction has {n_objectives}; "
            "expected hydra/sweeper/sampler=nsgaii, or tpe"
        )


def _translated(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an option of the official sweeper as besom's option of that name."""
    target = str(config.get("_target_"))
    if target == "optuna.samplers.GridSampler" and config.get("_partial_"):
        return {"_target_": "besom.search.exhaustive.GridSampler"}
    return {**config, "_target_": SAME_AS.get(target, target)}


def _with_array(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a sampler's config with NSGA-III's ``reference_points`` as the array that it takes."""
    points = config.get("reference_points")
    if points is None:
        return config
    try:
        array = np.asarray(points, dtype=float)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{KEY}.reference_points={points!r} is no table of numbers: {one_line(error)}") from error
    if array.ndim != 2:
        raise ConfigError(
            f"{KEY}.reference_points={points!r} is not usable; expected a list of points, such as [[0,1],[1,0]]"
        )
    return {**config, "reference_points": array}


def _tell_what_is_drawn(sampler: BaseSampler, space: Space) -> None:
    drawn = [name for name, of in space.params.items() if isinstance(of, CategoricalDistribution) and not of.single()]
    if drawn and isinstance(sampler, CmaEsSampler):
        _log_once(f"{type(sampler).__name__} draws {', '.join(drawn)} at random: it knows numbers only")


@functools.cache
def _log_once(text: str) -> None:
    log.warning(text)
