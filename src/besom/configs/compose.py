"""Hydra's compose API, with its errors turned into one line that names the key and how to mend it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationValidationError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)
from yaml import YAMLError

from besom.configs.overrides import parsed
from besom.configs.project import REFUSED, Project
from besom.configs.schema import CnnConfig, DataConfig, PathsConfig, TrackingConfig, TrainConfig
from besom.errors import ConfigError, did_you_mean, one_line, quoted
from besom.signals import put_off

VERSION_BASE = "1.3"
WANTED: dict[type[Exception], str] = {
    InterpolationKeyError: "an interpolation of a key that is there",
    InterpolationValidationError: "an interpolation of a value of its type",
    MissingMandatoryValue: "a value",
    ValidationError: "a value of its type",
}
"""What OmegaConf leaves unsaid."""


def register(project_root: Path) -> None:
    """Make the schemas and ``${project_root:}`` known to Hydra; ``project_root`` holds ``sweeps/``."""
    store = ConfigStore.instance()
    store.store(group="data", name="data_schema", node=DataConfig, provider="besom")
    store.store(group="model", name="cnn_schema", node=CnnConfig, provider="besom")
    store.store(group="train", name="train_schema", node=TrainConfig, provider="besom")
    store.store(group="tracking", name="tracking_schema", node=TrackingConfig, provider="besom")
    store.store(group="paths", name="paths_schema", node=PathsConfig, provider="besom")
    OmegaConf.register_new_resolver("project_root", lambda: str(project_root), replace=True)


def compose(project_root: Path, overrides: Sequence[str]) -> DictConfig:
    """Compose ``conf/config.yaml`` of a staged folder with overrides, the ``hydra`` node included.

    Raises:
        ConfigError: an override or a file is wrong.
    """
    register(project_root)
    for text in overrides:
        parsed(text)  # Hydra parses them too, but not every text that its parser ends in another error at
    try:
        # a signal in the middle of OmegaConf's copying comes out as an error of a config
        with put_off(), initialize_config_dir(str(project_root / "conf"), version_base=VERSION_BASE):
            return hydra_compose("config", list(overrides), return_hydra_config=True)
    except YAMLError as error:
        raise ConfigError(_no_yaml(error, project_root)) from error
    except (HydraException, OmegaConfBaseException) as error:
        of_layers = [text for text in overrides if text.startswith("model.conv.")]
        if of_layers:
            rest = [text for text in overrides if text not in of_layers]
            _refuse_layers_that_are_not_there(compose(project_root, rest), of_layers)
        raise ConfigError(_explain(error, overrides)) from error
    except Exception as error:  # a file of another shape makes Hydra and OmegaConf raise nearly anything
        raise ConfigError(
            f"the config files cannot be composed: {_reason(error)}; expected each to be a mapping of keys to values, "
            "its defaults a list of names"
        ) from error


def composed_here(sweep: str) -> DictConfig | None:
    """Return what the project around this folder composes to, with its file of a sweep if it has one; None where it
    cannot be composed.
    """
    with suppress(ConfigError), Project.around(Path.cwd()).staged() as stage:
        return compose(stage.folder, [f"sweeps={sweep}"] if sweep in stage.sweep_names() else [])
    return None


def _reason(error: Exception) -> str:
    return "one of them refers to itself" if isinstance(error, RecursionError) else one_line(error)


def _no_yaml(error: YAMLError, project_root: Path) -> str:
    """Return one line that names the file; of one that was not laid into the stage, why."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    file = Path(str(getattr(mark, "name", None) or getattr(error, "name", "")))
    name = str(file).removeprefix(f"{project_root}/")
    first = file.read_text(encoding="utf-8").partition("\n")[0] if file.is_file() else ""
    if first.startswith(REFUSED):
        return f"config file {name} cannot be read: {first.removeprefix(REFUSED)}; expected a YAML file"
    what = " ".join(str(error).replace(f"{project_root}/", "").split())
    return f"a config file is no YAML: {what}; expected plain keys and values, each key once"


@contextmanager
def values_of_users(overrides: Sequence[str] = ()) -> Iterator[None]:
    """Turn what OmegaConf says of a value that cannot be used into one line, here where a config is first looked at.

    An interpolation is resolved then, and what is ``???`` missed, long after the config was composed.
    """
    try:
        yield
    except OmegaConfBaseException as error:
        raise ConfigError(_explain(error, overrides)) from error


def store_path(config: DictConfig) -> str:
    """Return ``paths.store`` of a composed config.

    Raises:
        ConfigError: it has none, or no text there.
    """
    try:
        found = OmegaConf.select(config, "paths.store")
    except OmegaConfBaseException as error:
        raise ConfigError(f"paths.store cannot be read: {one_line(error)}; expected a folder") from error
    if not isinstance(found, str) or not found:
        raise ConfigError(
            f"paths.store={quoted(found)} is no folder; expected conf/config.yaml with 'paths: default' among its "
            "defaults, or paths.store=FOLDER"
        )
    return found


def config_loader(project_root: Path) -> ConfigLoader:
    """Return Hydra's loader of the configs of a staged folder, which knows the options of each group."""
    register(project_root)
    with initialize_config_dir(str(project_root / "conf"), version_base=VERSION_BASE):
        return GlobalHydra.instance().config_loader()


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    """Return one line: what was given, Hydra's reason, the nearest known word."""
    missing = next((link for link in _chain(error) if isinstance(link, MissingConfigException)), None)
    if missing is not None and missing.options is not None:
        return _unknown_option(str(missing.missing_cfg_file), missing.options)
    cause = next((link for link in _chain(error) if isinstance(link, OmegaConfBaseException)), None)
    if cause is None or not cause.full_key:
        return _with_expected(one_line(error), "config files and overrides as conf/ has them")
    key = str(cause.full_key)
    blamed = next((override for override in overrides if override.lstrip("+~").startswith(f"{key}=")), None)
    what = f"'{blamed}'" if blamed else f"key '{key}'"
    text = f"{what} cannot be used: {str(cause.msg or cause).splitlines()[0]}{_near_miss(cause, key)}"
    return _with_expected(text, WANTED.get(type(cause), "a key and a value as conf/ has them"))


def _with_expected(text: str, wanted: str) -> str:
    return text if "expected" in text or "did you mean" in text else f"{text}; expected {wanted}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and what it came from; chains that re-raising has closed into a ring end."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _unknown_option(group_and_name: str, options: Sequence[str]) -> str:
    """Say which options a group has; the schemas in it are not for users."""
    group, _, name = group_and_name.rpartition("/")
    known = [option for option in options if not option.endswith("_schema")]
    return f"'{group}={name}' is not known; expected one of {', '.join(known)}{did_you_mean(name, known)}"


def _near_miss(cause: OmegaConfBaseException, key: str) -> str:
    """Return the nearest key where an unknown one was looked for; nothing for other mistakes."""
    parent = cause.parent_node
    if not isinstance(cause, KeyError | AttributeError) or not isinstance(parent, DictConfig):
        return ""
    known = [str(name) for name in parent]
    prefix = key.rpartition(".")[0]
    near = did_you_mean(str(cause.key), known)
    expected = f"; expected one of {', '.join(known)}" if known else ""
    return near.replace("'", f"'{prefix}.", 1) if near and prefix else near or expected


def _refuse_layers_that_are_not_there(config: DictConfig, overrides: Sequence[str]) -> None:
    """Name a layer beyond the end of ``model.conv``: Hydra's own message speaks of types."""
    for text in overrides:
        found = re.match(r"model\.conv\.(\d+)\.", text)
        layers = OmegaConf.select(config, "model.conv")
        if found and layers is not None and int(found[1]) >= len(layers):
            raise ConfigError(
                f"'{text}' names a layer that is not there: model.conv has {len(layers)}, numbered from 0; "
                "add one in a config file, such as conf/model/mine.yaml"
            )
