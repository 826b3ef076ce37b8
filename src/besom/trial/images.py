"""A data set's images and labels as TensorFlow sees them: tensors over the same memory, made once a process.

Knows nothing of batches and models.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from besom.data import Dataset, one_hot

ALIGNMENT = 64
"""TensorFlow's kernels expect a tensor to start at a multiple of so many bytes."""


class Images(NamedTuple):
    """Training and validation images, float32, (n, h, w, c), and their one-hot labels, float32, (n, n_classes)."""

    x_train: tf.Tensor
    y_train: tf.Tensor
    x_val: tf.Tensor
    y_val: tf.Tensor


@lru_cache(maxsize=2)
def images_of(dataset: Dataset) -> Images:
    """Return the tensors of a data set; those of the last two are kept, since a lane trains one trial after another."""
    return Images(
        _tensor(dataset.x_train),
        tf.constant(one_hot(dataset.y_train, dataset.n_classes)),
        _tensor(dataset.x_val),
        tf.constant(one_hot(dataset.y_val, dataset.n_classes)),
    )


def _tensor(array: NDArray[Any]) -> tf.Tensor:
    """Return a tensor over the memory of an array, or over a copy where it cannot be shared."""
    view = array.view()
    try:
        view.flags.writeable = True  # NumPy lends memory that may be written to only; nobody does write
    except ValueError:
        return tf.constant(array)
    if view.ctypes.data % ALIGNMENT or not view.flags.c_contiguous or not view.size:
        return tf.constant(array)
    return tf.experimental.dlpack.from_dlpack(np.asarray(view).__dlpack__())
