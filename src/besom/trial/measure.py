"""The numbers of a config that constraints may use, ``n_params`` and ``n_macs``, before anything is trained.

The data says how large its images are and how many classes they have, `besom.geometry` does the
rest; neither Keras nor TensorFlow is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from besom.configs.config import typed
from besom.configs.schema import CnnConfig
from besom.data import peek
from besom.geometry import Geometry, geometry


def measure(config: Mapping[str, Any]) -> dict[str, float]:
    """Return ``n_params`` and ``n_macs`` (for one image) of a plain config; nothing for a user's own model builder.

    Raises:
        UserError: as `sized`.
    """
    found = sized(config)
    return {} if found is None else {"n_params": found.n_params, "n_macs": found.n_macs}


def sized(config: Mapping[str, Any]) -> Geometry | None:
    """Return the geometry of a plain config on its own data; None for a user's own model builder.

    Raises:
        ConfigError: a key or value is wrong.
        DataError: the data cannot be found or read.
        GeometryError: a kernel or a pool does not fit its feature map.
    """
    trial = typed(config)
    if not isinstance(trial.model, CnnConfig):
        return None
    input_shape, n_classes = peek(trial.data)
    return geometry(trial.model, input_shape, n_classes)
