"""How pixel values are rescaled before training, kept as two numbers so that new images can be rescaled alike.

The numbers come from training images only: nothing of validation or test leaks into them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from besom.errors import DataError

_CHUNK = 1024
"""Images at a time, so that float64 copies stay small."""


@dataclass(frozen=True)
class Scaling:
    """``(x - offset) / divisor``, both in the units of the source's pixels."""

    rescale: str
    offset: float = 0.0
    divisor: float = 1.0

    def apply(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Return a rescaled float32 copy of ``x``, any shape."""
        scaled = x.astype(np.float32)
        if self.offset != 0.0:
            scaled -= np.float32(self.offset)
        if self.divisor != 1.0:
            scaled /= np.float32(self.divisor)
        return scaled


def fit_scaling(rescale: str, x: NDArray[Any], train: NDArray[np.int64]) -> Scaling:
    """Return the scaling that the training images ``x[train]`` ask for.

    Args:
        rescale: ``none``; ``unit``, which divides by 255 or, where ``x`` is not uint8, by the largest
            training value; ``standardize``, to mean 0 and deviation 1.
        x: all images, shape (n, h, w, c).
        train: indices of the training images.

    Raises:
        DataError: when the training images have no range to scale by.
    """
    if rescale == "unit":
        return Scaling(rescale, divisor=255.0 if x.dtype == np.uint8 else _largest(x, train))
    if rescale == "standardize":
        mean, deviation = _mean_and_deviation(x, train)
        return Scaling(rescale, mean, deviation)
    return Scaling(rescale)


def _chunks(x: NDArray[Any], train: NDArray[np.int64]) -> Iterator[NDArray[np.float64]]:
    for start in range(0, len(train), _CHUNK):
        yield x[train[start : start + _CHUNK]].astype(np.float64)


def _largest(x: NDArray[Any], train: NDArray[np.int64]) -> float:
    largest = max(float(chunk.max()) for chunk in _chunks(x, train))
    if largest <= 0:
        raise DataError(
            f"data.rescale=unit divides by the largest training value, which is {largest:g}; "
            "expected a positive one; use data.rescale=standardize"
        )
    return largest


def _mean_and_deviation(x: NDArray[Any], train: NDArray[np.int64]) -> tuple[float, float]:
    n_values = len(train) * x[0].size
    mean = sum(float(chunk.sum()) for chunk in _chunks(x, train)) / n_values
    variance = sum(float(np.square(chunk - mean).sum()) for chunk in _chunks(x, train)) / n_values
    if variance == 0:
        raise DataError(
            f"data.rescale=standardize divides by the deviation of the training values, but all are {mean:g}; "
            "expected values that differ; use data.rescale=none"
        )
    return mean, math.sqrt(variance)
