"""Hydra's compose API, with its errors turned into one line that names the key and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from besom.errors import ConfigError, did_you_mean
from besom.schema import CnnConfig, DataConfig, PathsConfig, TrackingConfig, TrainConfig

VERSION_BASE = "1.3"


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
    with initialize_config_dir(str(project_root / "conf"), version_base=VERSION_BASE):
        try:
            return hydra_compose("config", list(overrides), return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(_explain(error, overrides)) from error


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    """Return one line: Hydra's message, the key of the innermost cause, the nearest known key."""
    chain = list(_chain(error))
    cause = next((link for link in chain if isinstance(link, OmegaConfBaseException)), None)
    text = " ".join(str(error).split())
    if cause is None or cause.full_key is None:
        return text
    key = str(cause.full_key)
    blamed = next((override for override in overrides if override.lstrip("+~").startswith(f"{key}=")), None)
    what = f"'{blamed}'" if blamed else f"key '{key}'"
    return f"{what} cannot be used: {_reason(cause)}{_near_miss(cause, key)}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _reason(cause: OmegaConfBaseException) -> str:
    return str(cause.msg or cause).splitlines()[0]


def _near_miss(cause: OmegaConfBaseException, key: str) -> str:
    """Return the nearest key that exists where the unknown one was looked for."""
    parent = cause.parent_node
    if parent is None or not OmegaConf.is_dict(parent):
        return ""
    known = [str(name) for name in parent]
    prefix = key.rpartition(".")[0]
    near = did_you_mean(str(cause.key), known)
    expected = f"; expected one of {', '.join(known)}" if known else ""
    return near.replace("'", f"'{prefix}.", 1) if near and prefix else near or expected
