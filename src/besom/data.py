"""The images that a model is trained on: a source's arrays, split and rescaled as the config's ``data`` group says.

Training sees `Dataset` only, which has no test part. Knows nothing of models; importing it imports
neither TensorFlow nor pandas. The sources are named here too, because configs call them ``besom.data.NAME``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import yaml
from numpy.typing import NDArray
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from besom import offered
from besom.configs.config import to_yaml
from besom.configs.schema import DataConfig
from besom.datasets import shared
from besom.datasets.archive import opened
from besom.datasets.arrays import Arrays, checked_labels, count_classes, image_shape
from besom.datasets.pinned import digits, fashion_mnist, mnist, mnist_5k
from besom.datasets.scaling import Scaling, fit_scaling
from besom.datasets.sources import DECLARATIONS, npz, npz_names, own
from besom.datasets.split import Split, split
from besom.errors import ConfigError, DataError, one_of

SHIPPED = {"besom.data.mnist_5k": mnist_5k, "besom.data.digits": digits}
"""Sources that lie in an installed package and read no ``data.path``."""

PUBLISHED = {"besom.data.mnist": mnist, "besom.data.fashion_mnist": fashion_mnist}
"""Sources that are downloaded, or read from ``data.path``."""

OWN_SOURCES = (*SHIPPED, *PUBLISHED, "besom.data.npz")
"""The ``data._target_`` that besom brings; any other is a user's own loader."""

SHARED_FOLDER = "BESOM_SHARED_IMAGES"
"""The environment variable that names the folder in which the lanes of a sweep keep and find decoded images."""

SPLIT_KEYS = ("_target_", "n_train", "n_val", "n_test", "split_seed", "rescale")
"""Keys of the ``data`` group that are besom's in every case; a loader's own arguments are the others."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """What training sees: training and validation images, rescaled, in the split's order, read-only.

    Args:
        name: of the source: ``mnist``, ``digits``, the stem of an npz file, the dotted name of an own loader.
        x_train: float32, shape (n_train, h, w, c).
        y_train: labels 0 to n_classes - 1, shape (n_train,).
        x_val: float32, shape (n_val, h, w, c).
        y_val: shape (n_val,).
        n_classes: at least 2.
        digest: SHA-256 of all decoded arrays before the split, see `besom.datasets.arrays.Arrays.digest`.
        split_digest: SHA-256 of the training and validation indices.
        scaling: how the pixels were rescaled; ``scaling.apply`` does the same to new images.
    """

    name: str
    x_train: NDArray[np.float32]
    y_train: NDArray[np.int64]
    x_val: NDArray[np.float32]
    y_val: NDArray[np.int64]
    n_classes: int
    digest: str
    split_digest: str
    scaling: Scaling

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(h, w, c) of one image."""
        return cast(tuple[int, int, int], self.x_train.shape[1:])


def load(config: DataConfig | Mapping[str, Any]) -> Dataset:
    """Return the training and validation images of a config's ``data`` group.

    The last two configs are kept in memory, so that a warm lane decodes its images once; a file that
    changes while a process runs is not read again.

    Raises:
        DataError: when the source gives no usable arrays, or fewer than the config asks for.
        ConfigError: when a key or value is wrong or an own loader cannot be imported.
    """
    return _load(to_yaml(_plain(config)), str(Path.cwd()))


def load_test(config: DataConfig | Mapping[str, Any]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the locked test images and labels, rescaled as training's are.

    Only `besom confirm` may call this, once for a finished sweep: what has been looked at while
    choosing a model can no longer judge it. A test over the syntax trees holds everyone to that.

    Raises:
        DataError: as `load`, or when ``n_test=0`` left no test images.
    """
    arrays, parts, scaling = _prepared(_plain(config))
    if not len(parts.test):
        raise DataError("data.n_test=0 leaves no test images; expected at least 1, or null")
    x, y = arrays.test_pool
    return scaling.apply(x[parts.test]), y[parts.test]


def count_test(config: DataConfig | Mapping[str, Any]) -> int:
    """Return how many test images there are, without giving any.

    Raises:
        DataError, ConfigError: as `load`.
    """
    _, parts, _ = _prepared(_plain(config))
    return len(parts.test)


def peek(config: DataConfig | Mapping[str, Any]) -> tuple[tuple[int, int, int], int]:
    """Return (h, w, c) and the number of classes without decoding images.

    An own loader is called, unless its config declares ``input_shape`` and ``n_classes``.

    Raises:
        DataError, ConfigError: as `load`.
    """
    return _peek(to_yaml(_plain(config)), str(Path.cwd()))


def one_hot(y: NDArray[np.int64], n_classes: int) -> NDArray[np.float32]:
    """Return labels of shape (n,) as one-hot rows of shape (n, n_classes), by pandas.get_dummies."""
    import pandas as pd

    categories = pd.Categorical(y, categories=range(n_classes))
    return pd.get_dummies(categories, dtype=np.float32).to_numpy()


def share(config: DataConfig | Mapping[str, Any], folder: Path) -> None:
    """Keep the images of a config's ``data`` group, decoded, for processes with `SHARED_FOLDER` in their environment.

    Raises:
        DataError, ConfigError: as `load`.
    """
    text = to_yaml(_plain(config))
    shared.keep(folder / _key(text, str(Path.cwd())), *_parts(_decoded(text)))


def offer(config: DataConfig | Mapping[str, Any]) -> None:
    """As `share`, for workers that may be on other machines: an engine carries the images there.

    Raises:
        DataError, ConfigError: as `load`.
    """
    text = to_yaml(_plain(config))
    offered.offer(_key(text, str(Path.cwd())), *_parts(_decoded(text)))


@lru_cache(maxsize=2)
def _load(text: str, working_folder: str) -> Dataset:
    key, folder = _key(text, working_folder), os.environ.get(SHARED_FOLDER)
    found = offered.received(key) or (shared.mapped(Path(folder) / key) if folder else None)
    if found is None:  # what differs from trial to trial is not shared: it could fill the disk
        return _decoded(text)
    arrays, about = found
    return _locked(**arrays, **{**about, "scaling": Scaling(**about["scaling"])})


def _key(text: str, working_folder: str) -> str:
    """Return under which name a data set is kept for the processes that need it."""
    return hashlib.sha256(f"{working_folder}\0{text}".encode()).hexdigest()[:32]


def _parts(dataset: Dataset) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the arrays of a data set and its other fields, those as JSON takes them."""
    values = {field.name: getattr(dataset, field.name) for field in fields(dataset)}
    arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    others = {name: value for name, value in values.items() if name not in arrays}
    return arrays, {**others, "scaling": asdict(dataset.scaling)}


def _decoded(text: str) -> Dataset:
    config = yaml.safe_load(text)
    arrays, parts, scaling = _prepared(config)
    return _locked(
        name=_name(config),
        x_train=scaling.apply(arrays.x[parts.train]),
        y_train=arrays.y[parts.train],
        x_val=scaling.apply(arrays.x[parts.val]),
        y_val=arrays.y[parts.val],
        n_classes=arrays.n_classes,
        digest=arrays.digest,
        split_digest=parts.digest,
        scaling=scaling,
    )


def _locked(**values: Any) -> Dataset:
    """Return a data set whose arrays nobody can write to: every trial of this process sees them."""
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            values[name] = value.view()  # the array itself stays writable: TensorFlow maps nothing else
            values[name].setflags(write=False)
    return Dataset(**values)


@lru_cache(maxsize=16)
def _peek(text: str, folder: str) -> tuple[tuple[int, int, int], int]:
    config = yaml.safe_load(text)
    settings, arguments = _checked_keys(config)
    if settings._target_ in (*SHIPPED, *PUBLISHED):
        side = 8 if settings._target_ == "besom.data.digits" else 28
        return (side, side, 1), 10
    if settings._target_ == "besom.data.npz":
        return _peek_npz(_path(settings))
    if all(arguments.get(key) is not None for key in DECLARATIONS):
        return _declared(**{key: arguments[key] for key in DECLARATIONS})
    dataset = _load(text, folder)
    return dataset.input_shape, dataset.n_classes


def _peek_npz(path: str) -> tuple[tuple[int, int, int], int]:
    with opened(path) as archive:
        x, y = npz_names(archive)[:2]
        shape = archive.header(x).shape
        input_shape = image_shape(shape, f"{path}: {x}")
        labels = checked_labels(archive.read(y), shape[0], f"{path}: {y}")
    return input_shape, count_classes(labels, f"{path}: {y}")


def _prepared(config: Mapping[str, Any]) -> tuple[Arrays, Split, Scaling]:
    settings, arguments = _checked_keys(config)
    arrays = _arrays(settings, arguments)
    parts = split(arrays.y, arrays.y_test, settings.n_train, settings.n_val, settings.n_test, seed=settings.split_seed)
    return arrays, parts, fit_scaling(settings.rescale, arrays.x, parts.train)


def _arrays(settings: DataConfig, arguments: Mapping[str, Any]) -> Arrays:
    target = settings._target_
    if target == "besom.data.npz":
        return npz(_path(settings))
    if target in PUBLISHED:
        return PUBLISHED[target](settings.path)
    return SHIPPED[target]() if target in SHIPPED else _as_declared(own(target, arguments), arguments)


def _as_declared(arrays: Arrays, arguments: Mapping[str, Any]) -> Arrays:
    """Return ``arrays``, or raise `DataError` where the config declares another shape than they have."""
    actual: dict[str, Any] = {"input_shape": list(arrays.input_shape), "n_classes": arrays.n_classes}
    for key in DECLARATIONS:
        declared = arguments.get(key)
        if declared is not None and declared != actual[key]:
            raise DataError(f"data.{key}={declared} is declared, but the loader gave {actual[key]}; correct or drop it")
    return arrays


def _declared(input_shape: Any, n_classes: Any) -> tuple[tuple[int, int, int], int]:
    sides = input_shape if isinstance(input_shape, list) else []
    if len(sides) != 3 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ConfigError(f"data.input_shape={input_shape!r} is no image shape; expected [height, width, channels]")
    if not isinstance(n_classes, int) or n_classes < 2:
        raise ConfigError(f"data.n_classes={n_classes!r} is no number of classes; expected an integer from 2")
    return (sides[0], sides[1], sides[2]), n_classes


def _path(settings: DataConfig) -> str:
    if not settings.path:
        raise DataError("data=npz needs a file; expected data.path=mine.npz")
    return settings.path


def _name(config: Mapping[str, Any]) -> str:
    target = str(config["_target_"])
    if target == "besom.data.npz":
        return Path(config["path"]).stem
    return target.removeprefix("besom.data.")


def _plain(config: DataConfig | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(config, DataConfig):
        return asdict(config)
    values = OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config
    return {"_target_": DataConfig._target_, **cast(Mapping[str, Any], values)}


def _checked_keys(config: Mapping[str, Any]) -> tuple[DataConfig, dict[str, Any]]:
    """Return the typed keys that are besom's, and the arguments of an own loader (none for besom's sources)."""
    target = str(config["_target_"])
    if target.startswith("besom.data.") and target not in OWN_SOURCES:
        raise ConfigError(one_of("data._target_", target, OWN_SOURCES))
    own_keys = config.keys() - set(SPLIT_KEYS) if target not in OWN_SOURCES else set[str]()
    try:
        ours = {key: value for key, value in config.items() if key not in own_keys}
        settings = cast(DataConfig, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DataConfig), ours)))
    except ConfigError as error:
        raise ConfigError(f"data.{error}") from error
    except OmegaConfBaseException as error:
        expected = "expected a known key with a value of its type"
        raise ConfigError(f"data.{error.key}: {str(error).splitlines()[0]}; {expected}") from error
    if settings._target_ in SHIPPED and settings.path:
        raise ConfigError(
            f"data.path={settings.path!r} is not read by data={_name(config)}; "
            "expected data=npz, data=mnist or data=fashion_mnist with it"
        )
    return settings, {key: config[key] for key in config if key in own_keys}
