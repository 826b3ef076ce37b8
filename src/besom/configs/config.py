"""Text becomes typed here, once: Hydra's composed config in, the dataclasses of `besom.configs.schema` out.

Also the plain forms of a config that the rest of besom passes around: a nested dict (`plain`), and
dotted leaves (`leaves`), which is what params, tables and comparisons are made of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from besom.configs.schema import (
    CnnConfig,
    ConvConfig,
    DataConfig,
    PathsConfig,
    TrackingConfig,
    TrainConfig,
    TrialConfig,
)
from besom.errors import ConfigError, one_line, quoted

T = TypeVar("T")
DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
UNTRACKED = ("paths.", "tracking.")
PATH = "data.path"
"""Leaves that say where things go, not what a result depends on: neither params nor fingerprint."""


def plain(config: DictConfig) -> dict[str, Any]:
    """Return a composed config as nested dicts and lists, resolved, without Hydra's own node."""
    without_hydra = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    try:
        return cast(dict[str, Any], OmegaConf.to_container(without_hydra, resolve=True, throw_on_missing=True))
    except OmegaConfBaseException as error:
        expected = "expected a value, or an interpolation that ends at one"
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}; {expected}") from error


def written(config: DictConfig) -> dict[str, Any]:
    """Return a config as it is written, interpolations unresolved: ``${now:…}`` stays the same from day to day."""
    content = OmegaConf.to_container(config, resolve=False, enum_to_str=True)
    return {str(key): value for key, value in cast(dict[str, Any], content).items() if key != "hydra"}


def leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return ``{dotted key: value}`` of a nested config; list items are numbered: ``model.conv.0.filters``."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        items = dict(enumerate(value)) if isinstance(value, list) and value else value
        if isinstance(items, Mapping) and items:
            flat.update(leaves(cast(Mapping[str, Any], items), f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def tracked_leaves(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the leaves that a result depends on: all but URLs and paths of besom's own."""
    return {
        key: value
        for key, value in leaves(config).items()
        if not key.startswith(UNTRACKED) and key != PATH and value != {}
    }


def to_yaml(config: Mapping[str, Any]) -> str:
    """Return the frozen text of a config, keys in their order."""
    return cast(str, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, default_flow_style=False))


def typed(config: Mapping[str, Any] | DictConfig) -> TrialConfig:
    """Turn a composed or frozen config into checked dataclasses.

    A ``data`` or ``model`` whose ``_target_`` is the user's own stays a plain dict.

    Raises:
        ConfigError: naming the key, what it was and what was expected.
    """
    values = plain(config) if isinstance(config, DictConfig) else dict(config)
    missing = [group for group in ("data", "model", "train") if not isinstance(values.get(group), Mapping)]
    if missing:
        raise ConfigError(f"the config has no '{missing[0]}' group; expected data, model and train")
    for group in ("data", "model"):
        _refuse_no_name(group, values[group])
    return TrialConfig(
        data=_data(values["data"]),
        model=_model(values["model"]),
        train=_build(TrainConfig, values["train"], "train"),
        tracking=_build(TrackingConfig, values.get("tracking") or {}, "tracking"),
        paths=_build(PathsConfig, values.get("paths") or {}, "paths"),
    )


def _refuse_no_name(group: str, values: Mapping[str, Any]) -> None:
    target = values.get("_target_", "besom.data")
    if not isinstance(target, str) or not DOTTED.fullmatch(target):
        raise ConfigError(
            f"{group}._target_={quoted(target)} is no name of a function; expected package.function, importable from "
            "the project's root folder"
        )


def _data(values: Mapping[str, Any]) -> DataConfig | dict[str, Any]:
    target = str(values.get("_target_", DataConfig._target_))
    return _build(DataConfig, values, "data") if target.startswith("besom.data.") else dict(values)


def _model(values: Mapping[str, Any]) -> CnnConfig | dict[str, Any]:
    if values.get("_target_", CnnConfig._target_) != CnnConfig._target_:
        return dict(values)
    blocks = values.get("conv") or []
    if not isinstance(blocks, list) or not all(isinstance(block, Mapping) for block in blocks):
        raise ConfigError(f"model.conv={quoted(blocks)} is no list of layers; expected such as [{{filters: 8}}]")
    # block by block, so that a message can name model.conv.N
    conv = [_build(ConvConfig, block, f"model.conv.{index}") for index, block in enumerate(blocks)]
    depth = values.get("depth")
    if depth is not None and type(depth) is not int:
        raise ConfigError(f"model.depth={quoted(depth)} is no number of layers; expected a whole number, or null")
    with _named("model"):
        rest = _build(CnnConfig, {**values, "conv": [], "depth": None}, "model")
        return CnnConfig(**{**vars(rest), "conv": conv, "depth": depth})


def _build(schema: type[T], values: Mapping[str, Any], name: str) -> T:
    with _named(name):
        return cast(T, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), dict(values))))


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Put the group's name before the key that an error talks about."""
    try:
        yield
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(("model.", "train.")) else f"{name}.{text}") from error
    except OmegaConfBaseException as error:
        expected = "expected a known key with a value of its type"
        raise ConfigError(f"{name}.{error.key}: {str(error).splitlines()[0]}; {expected}") from error
    except (ArithmeticError, RecursionError, TypeError, ValueError) as error:  # of a value that OmegaConf cannot turn
        raise ConfigError(f"{name}: {one_line(error)}; expected known keys with values of their types") from error
