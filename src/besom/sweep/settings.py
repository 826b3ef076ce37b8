"""``hydra.sweeper`` typed: text becomes settings in one place, checked before anything is created.

Also what a resumed sweep is compared by: every setting and config leaf but those that may change.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig, ListConfig, OmegaConf

from besom.configs.config import leaves, tracked_leaves, written
from besom.configs.overrides import is_sweep
from besom.errors import ConfigError, ResumeError, SpaceError, quoted
from besom.paths import checked_sweep_name
from besom.search import custom_space
from besom.search.constraints import Constraint, parse_constraints
from besom.search.pruners import build_pruner
from besom.search.search import Search
from besom.search.space import Space, parse
from besom.storage import absolute

HOW_FAR = (
    *("n_trials", "timeout", "trial_timeout", "target_value", "patience"),
    *("max_failure_rate", "fail_fast", "n_jobs"),
)
MAY_CHANGE = (*HOW_FAR, "storage", "study_name", "tracker", "measure", "freeze")
"""Fields of ``hydra.sweeper`` that a resume takes as they now are: how far a sweep goes, not what it searches.

The launcher and paths are others.
"""


@dataclass(frozen=True)
class SweepSettings:
    """The settings of one sweep; see `hydra_plugins.besom.BesomSweeperConf` for what each means.

    ``fixed`` are the overrides that every trial gets, ``n_trials`` None takes every point of the space.
    """

    study_name: str
    storage: str
    search: Search
    fixed: list[str]
    pruner: dict[str, Any]
    enqueue: list[dict[str, Any]]
    constraints: list[Constraint]
    n_trials: int | None
    n_jobs: int | None
    max_failure_rate: float
    fail_fast: bool
    retries: int
    timeout: float | None
    trial_timeout: float | None
    target_value: float | None
    patience: int | None
    freeze: bool

    @property
    def seed(self) -> int | None:
        """The seed of the search, None to draw one."""
        return self.search.sampler.get("seed")

    @property
    def total(self) -> int | None:
        """How many trials the sweep ends at, None where only time or the user ends it."""
        known = [n for n in (self.n_trials, self.search.size) if n is not None]
        return min(known, default=None)


def read(
    sweeper: Mapping[str, Any],
    arguments: Sequence[str],
    *,
    app: str = "sweep",
    folder: Path | None = None,
    loader: ConfigLoader | None = None,
    master: DictConfig | None = None,
) -> SweepSettings:
    """Turn the fields of ``hydra.sweeper`` and the command line's overrides into settings.

    Args:
        app: what a sweep without ``study_name`` is called.
        folder: where a study without ``storage`` is kept.
        loader: finds the options of a group for ``group=glob(*)``.
        master: the composed config, which a custom search space is shown.

    Raises:
        ConfigError, SpaceError: naming the field, what it was and what was expected.
    """
    fields = {key: _container(value) for key, value in sweeper.items()}
    name = fields["custom_search_space"]
    space, fixed = parse(checked_params(fields["params"]), arguments, loader, may_be_empty=bool(name))
    custom = custom_space.load(name, OmegaConf.create() if master is None else master, fixed) if name else None
    search = Search(
        directions=_directions(fields["direction"]),
        space=space,
        sampler=_object("sampler", fields["sampler"]),
        history=_at_least(1, "history", fields["history"]),
        custom=custom,
    )
    settings = SweepSettings(
        study_name=checked_sweep_name(fields["study_name"] or app),
        storage=_storage(fields["storage"], folder),
        search=search,
        fixed=fixed,
        pruner=_object("pruner", fields["pruner"]),
        enqueue=[_checked_point(space, index, point) for index, point in enumerate(fields["enqueue"] or [])],
        constraints=parse_constraints(fields["constraints"] or []),
        n_trials=_at_least(1, "n_trials", fields["n_trials"]),
        n_jobs=_at_least(1, "n_jobs", fields["n_jobs"]),
        max_failure_rate=_rate(fields["max_failure_rate"]),
        fail_fast=bool(fields["fail_fast"]),
        retries=_at_least(0, "retries", fields["retries"]) or 0,
        timeout=_at_least(0, "timeout", _finite("timeout", fields["timeout"])),
        trial_timeout=_at_least(0, "trial_timeout", _finite("trial_timeout", fields["trial_timeout"])),
        target_value=_finite("target_value", fields["target_value"]),
        patience=_at_least(1, "patience", fields["patience"]),
        freeze=bool(fields["freeze"]),
    )
    _refuse_endless(settings)
    _refuse_with_several_objectives(settings)
    return settings


def _refuse_endless(settings: SweepSettings) -> None:
    ends = (settings.total, settings.timeout, settings.target_value, settings.patience)
    if all(end is None for end in ends):
        raise SpaceError(
            "the space is infinite and nothing ends the sweep; expected hydra.sweeper.n_trials, .timeout, "
            ".target_value or .patience"
        )


def _refuse_with_several_objectives(settings: SweepSettings) -> None:
    if len(settings.search.directions) == 1:
        return
    given = {"pruner": settings.pruner, "target_value": settings.target_value, "patience": settings.patience}
    for name, value in given.items():
        if value not in (None, {}):
            raise ConfigError(
                f"hydra.sweeper.{name}={value} needs one objective, but hydra.sweeper.direction has "
                f"{len(settings.search.directions)}; expected {'pruner=none' if name == 'pruner' else 'null'}"
            )


def check_search(settings: SweepSettings) -> None:
    """Build what the search needs, once, so that a mistake in it is told before anything is created.

    Raises:
        ConfigError, SpaceError: the sampler, the pruner or the seed is wrong.
    """
    seed = settings.seed
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
        raise ConfigError(f"hydra.sweeper.sampler.seed={quoted(seed)} is no whole number; expected one from 0, or null")
    if seed is not None and seed < 0:
        raise ConfigError(f"hydra.sweeper.sampler.seed={quoted(seed)} is negative; expected a number from 0, or null")
    build_pruner(settings.pruner)
    settings.search.new_point(set(), settings.seed or 0, 0)
    if settings.search.custom is not None:
        settings.search.custom.check(settings.search.space)


def check_constraints(constraints: Sequence[Constraint], measures: Mapping[str, float] | None) -> None:
    """Try the constraints on one trial's measures, None where its model is not measured.

    Raises:
        ConfigError: a constraint names what is not measured.
    """
    if constraints and measures is None:
        raise ConfigError(
            "hydra.sweeper.constraints need a model that is measured; expected model=cnn, or no constraints"
        )
    for constraint in constraints:
        constraint.broken_by(measures or {})


def comparable(master: DictConfig, sweeper: Mapping[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
    """Return every leaf that must stay as it is for a sweep to be resumed, by dotted key."""
    fields = {key: _container(value) for key, value in sweeper.items() if key not in MAY_CHANGE and key[0] != "_"}
    swept = dict(text.split("=", 1) for text in arguments if is_sweep(text))
    fields["params"] = {**checked_params(fields["params"]), **swept}
    params = {f"hydra.sweeper.params.{key}": str(value) for key, value in fields.pop("params").items()}
    prefixed = {f"hydra.sweeper.{key}": value for key, value in leaves(fields).items()}
    of_task = tracked_leaves if sweeper["tracker"] else leaves  # in somebody else's app data.path is what it is
    every = {**of_task(written(master)), **prefixed, **params}
    stored: dict[str, Any] = json.loads(json.dumps(every, default=str))
    return stored


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
            "Put them back to resume it, or start another one with hydra.sweeper.study_name (besom sweep: --name; "
            "--fresh starts this one over)"
        )


def _text(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key]) if key in values else "absent"


def _container(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if isinstance(value, DictConfig | ListConfig) else value


def _storage(value: Any, folder: Path | None) -> str:
    if value is None:
        return f"sqlite:///{folder / 'study.db'}" if folder else ""
    if not isinstance(value, str):
        raise ConfigError(f"hydra.sweeper.storage={value!r} is not usable; expected a database URL, or null")
    return absolute(value)


def _directions(value: Any) -> list[str]:
    words = value if isinstance(value, list) else [value]
    names = [str(word.name if hasattr(word, "name") else word) for word in words]
    if not names or set(names) - {"maximize", "minimize"}:
        raise ConfigError(
            f"hydra.sweeper.direction={value!r} is not usable; expected maximize or minimize, or a list of them"
        )
    return names


def checked_params(value: Any) -> Mapping[str, Any]:
    """Return ``hydra.sweeper.params``, nothing for null; raise `ConfigError` for anything but a mapping of text."""
    params = {} if value is None else value
    if not isinstance(params, Mapping) or not all(isinstance(key, str) for key in params):
        raise ConfigError(
            f"hydra.sweeper.params={quoted(value)} is no mapping of keys to sweeps; expected such as "
            "{model.activation: 'choice(relu,tanh)'}"
        )
    return params


def _object(name: str, value: Any) -> dict[str, Any]:
    """Return a config of ``_target_`` and its arguments, nothing for null."""
    config = {} if value is None else value
    if not isinstance(config, Mapping) or not all(isinstance(key, str) for key in config):
        raise ConfigError(
            f"hydra.sweeper.{name}={quoted(value)} is no config of one; expected hydra/sweeper/{name}=NAME, or a "
            "mapping with _target_"
        )
    return dict(config)


def _finite(name: str, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise ConfigError(f"hydra.sweeper.{name}={value} is not finite; expected a number, or null")
    return value


def _rate(value: Any) -> float:
    if not 0 <= value <= 1:
        raise ConfigError(f"hydra.sweeper.max_failure_rate={value} is not a share; expected 0.0 to 1.0")
    return float(value)


def _at_least(minimum: int, name: str, value: Any) -> Any:
    if value is not None and value < minimum:
        raise ConfigError(f"hydra.sweeper.{name}={value} is too small; expected at least {minimum}, or null")
    return value


def _checked_point(space: Space, index: int, point: Mapping[str, Any]) -> dict[str, Any]:
    """Return a point of ``enqueue`` as the space holds it, or say what is wrong with it."""
    if not isinstance(point, Mapping) or not all(isinstance(key, str) for key in point):
        raise SpaceError(
            f"hydra.sweeper.enqueue[{index}]={quoted(point)} is no point; expected a mapping of keys to values"
        )
    try:
        encoded = space.encode(point)
    except SpaceError as error:
        raise SpaceError(f"hydra.sweeper.enqueue[{index}]: {error}") from error
    if missing := [key for key in space.params if key not in encoded and space.is_active(key, encoded)]:
        raise SpaceError(
            f"hydra.sweeper.enqueue[{index}] has no {missing[0]}; expected a value for every key of params"
        )
    return encoded
