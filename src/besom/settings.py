"""``hydra.sweeper`` typed: text becomes settings in one place, checked before anything is created.

Also what a resumed sweep is compared by: every setting and config leaf but those that may change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from optuna.pruners import BasePruner, NopPruner

from besom.config import plain, tracked_leaves
from besom.constraints import Constraint, parse_constraints
from besom.errors import ConfigError, ResumeError, SpaceError
from besom.overrides import is_sweep
from besom.paths import checked_sweep_name
from besom.samplers import sampler_for_point
from besom.space import Space, parse

MAY_CHANGE = ("n_trials", "timeout", "n_jobs", "storage", "study_name", "tracker", "measure")
"""Fields of ``hydra.sweeper`` that a resume takes as they now are; the launcher and paths are others."""


@dataclass(frozen=True)
class SweepSettings:
    """The settings of one sweep; see `hydra_plugins.besom.BesomSweeperConf` for what each means.

    ``fixed`` are the overrides that every trial gets, ``n_trials`` None takes every point of the space.
    """

    study_name: str
    storage: str
    direction: str
    space: Space
    fixed: list[str]
    sampler: dict[str, Any]
    pruner: dict[str, Any]
    enqueue: list[dict[str, Any]]
    constraints: list[Constraint]
    n_trials: int | None
    n_jobs: int | None
    max_failure_rate: float
    retries: int
    timeout: float | None

    @property
    def seed(self) -> int | None:
        """The seed of the search, None to draw one."""
        return self.sampler.get("seed")

    @property
    def total(self) -> int | None:
        """How many trials the sweep ends at, None where only time or the user ends it."""
        known = [n for n in (self.n_trials, self.space.size) if n is not None]
        return min(known, default=None)


def read(sweeper: Mapping[str, Any], arguments: Sequence[str]) -> SweepSettings:
    """Turn the fields of ``hydra.sweeper`` and the command line's overrides into settings.

    Raises:
        ConfigError, SpaceError: naming the field, what it was and what was expected.
    """
    fields = {key: _container(value) for key, value in sweeper.items()}
    space, fixed = parse(fields["params"] or {}, arguments)
    settings = SweepSettings(
        study_name=checked_sweep_name(fields["study_name"] or "sweep"),
        storage=fields["storage"] or "",
        direction=_direction(fields["direction"]),
        space=space,
        fixed=fixed,
        sampler=dict(fields["sampler"] or {}),
        pruner=dict(fields["pruner"] or {}),
        enqueue=[_checked_point(space, index, point) for index, point in enumerate(fields["enqueue"] or [])],
        constraints=parse_constraints(fields["constraints"] or []),
        n_trials=_at_least(1, "n_trials", fields["n_trials"]),
        n_jobs=_at_least(1, "n_jobs", fields["n_jobs"]),
        max_failure_rate=fields["max_failure_rate"],
        retries=_at_least(0, "retries", fields["retries"]) or 0,
        timeout=_at_least(0, "timeout", fields["timeout"]),
    )
    if settings.total is None and settings.timeout is None:
        raise SpaceError(
            "the space is infinite and nothing ends the sweep; expected hydra.sweeper.n_trials or .timeout"
        )
    return settings


def build_pruner(config: Mapping[str, Any]) -> BasePruner:
    """Return the pruner that ``hydra.sweeper.pruner`` names, one that never prunes where it is empty.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        pruner = instantiate(dict(config)) if config else NopPruner()
    except HydraException as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ConfigError(f"hydra.sweeper.pruner={dict(config)} cannot be made: {reason}") from error
    if not isinstance(pruner, BasePruner):
        raise ConfigError(f"hydra.sweeper.pruner makes a {type(pruner).__name__}; expected one of Optuna's pruners")
    return pruner


def check_search(settings: SweepSettings, measures: Mapping[str, float] | None) -> None:
    """Build what the search needs, once, so that a mistake in it is told before anything is created.

    Args:
        measures: the numbers that constraints may name; None where they are not known.

    Raises:
        ConfigError, SpaceError: the sampler, the pruner, the seed or a constraint is wrong.
    """
    if settings.seed is not None and settings.seed < 0:
        raise ConfigError(f"hydra.sweeper.sampler.seed={settings.seed} is negative; expected a number from 0, or null")
    sampler_for_point(settings.sampler, space=settings.space, seen=set(), study_seed=settings.seed or 0, index=0)
    build_pruner(settings.pruner)
    if settings.constraints and measures is None:
        raise ConfigError(
            "hydra.sweeper.constraints need a model that is measured; expected model=cnn, or no constraints"
        )
    for constraint in settings.constraints:
        constraint.broken_by(measures or {})


def comparable(master: DictConfig, sweeper: Mapping[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
    """Return every leaf that must stay as it is for a sweep to be resumed, by dotted key."""
    fields = {key: _container(value) for key, value in sweeper.items() if key not in MAY_CHANGE and key[0] != "_"}
    swept = dict(text.split("=", 1) for text in arguments if is_sweep(text))
    fields["params"] = {**(fields["params"] or {}), **swept}
    params = {f"hydra.sweeper.params.{key}": str(value) for key, value in fields.pop("params").items()}
    prefixed = {f"hydra.sweeper.{key}": value for key, value in tracked_leaves(fields).items()}
    return {**tracked_leaves(plain(master)), **prefixed, **params}


def refuse_changes(name: str, stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise `ResumeError` that lists every leaf that is not as it was when the sweep was started."""
    differing = [
        f"{key}: was {_text(stored, key)}, is {_text(now, key)}"
        for key in sorted({*stored, *now})
        if _text(stored, key) != _text(now, key)
    ]
    if differing:
        raise ResumeError(
            f"sweep '{name}' was started with other settings: {'; '.join(differing)}. "
            "Put them back to resume it, start over with --fresh, or start another one with --name"
        )


def _text(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key], default=str) if key in values else "absent"


def _container(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if isinstance(value, DictConfig | ListConfig) else value


def _direction(value: Any) -> str:
    word = value.name if hasattr(value, "name") else value
    if word not in ("maximize", "minimize"):
        raise ConfigError(f"hydra.sweeper.direction={word!r} is not usable; expected maximize or minimize")
    return str(word)


def _at_least(minimum: int, name: str, value: Any) -> Any:
    if value is not None and value < minimum:
        raise ConfigError(f"hydra.sweeper.{name}={value} is too small; expected at least {minimum}, or null")
    return value


def _checked_point(space: Space, index: int, point: Mapping[str, Any]) -> dict[str, Any]:
    """Return a point of ``enqueue`` as the space holds it, or say what is wrong with it."""
    try:
        encoded = space.encode(point)
    except SpaceError as error:
        raise SpaceError(f"hydra.sweeper.enqueue[{index}]: {error}") from error
    if missing := [key for key in space.params if key not in encoded]:
        raise SpaceError(
            f"hydra.sweeper.enqueue[{index}] has no {missing[0]}; expected a value for every key of params"
        )
    return encoded
