"""Images with labels in their standard types, and the checks that every source's arrays go through.

Knows nothing of files, splits or rescaling.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from besom.errors import DataError, one_line


@dataclass(frozen=True, eq=False)
class Arrays:
    """All that a source gives.

    Args:
        x: images, shape (n, h, w, c), uint8 or float32.
        y: labels 0 to n_classes - 1, each of them present, shape (n,).
        n_classes: at least 2.
        x_test: images of the source's own test part, shape (m, h, w, c) and type of ``x``; None without one.
        y_test: their labels, shape (m,).
    """

    x: NDArray[Any]
    y: NDArray[np.int64]
    n_classes: int
    x_test: NDArray[Any] | None = None
    y_test: NDArray[np.int64] | None = None

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return cast(tuple[int, int, int], self.x.shape[1:])

    @property
    def test_pool(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """The images and labels that test images are taken from: the source's own test part, else all."""
        if self.x_test is None or self.y_test is None:
            return self.x, self.y
        return self.x_test, self.y_test

    @cached_property
    def digest(self) -> str:
        """SHA-256 over type, shape and bytes of all arrays, hexadecimal; takes 0.05 s for MNIST."""
        digest = hashlib.sha256()
        for array in (self.x, self.y, self.x_test, self.y_test):
            if array is not None:
                digest.update(f"{array.dtype.str}{array.shape};".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def checked(name: str, x: Any, y: Any, x_test: Any = None, y_test: Any = None) -> Arrays:
    """Return the arrays in their standard types, or raise `DataError` with ``name`` before what is wrong.

    Images may be (n, h, w), which gets one channel, or (n, h, w, c); numbers other than uint8 become float32.
    """
    prefix = ("x", "y") if x_test is None else ("x_train", "y_train")
    images = _images(x, f"{name}: {prefix[0]}")
    labels = checked_labels(y, len(images), f"{name}: {prefix[1]}")
    n_classes = count_classes(labels, f"{name}: {prefix[1]}")
    if x_test is None:
        return Arrays(images, labels, n_classes)
    test_images = _images(x_test, f"{name}: x_test")
    test_labels = checked_labels(y_test, len(test_images), f"{name}: y_test")
    if test_images.shape[1:] != images.shape[1:] or test_images.dtype != images.dtype:
        raise DataError(
            f"{name}: x_test has images of {test_images.shape[1:]} {test_images.dtype}; "
            f"expected {images.shape[1:]} {images.dtype} as in x_train"
        )
    strange = test_labels[(test_labels < 0) | (test_labels >= n_classes)]
    if len(strange):
        raise DataError(f"{name}: y_test has the label {strange[0]}; expected 0 to {n_classes - 1} as in y_train")
    return Arrays(images, labels, n_classes, test_images, test_labels)


def image_shape(shape: tuple[int, ...], name: str) -> tuple[int, int, int]:
    """Return (h, w, c) of images of shape (n, h, w) or (n, h, w, c); raise `DataError` for any other shape."""
    if len(shape) not in (3, 4) or 0 in shape:
        raise DataError(f"{name} has the shape {shape}; expected (n, h, w) or (n, h, w, c) with nothing empty")
    height, width, channels = (*shape[1:], 1)[:3]
    return height, width, channels


def count_classes(labels: NDArray[np.int64], name: str) -> int:
    """Return the number of classes of labels that are 0 to k - 1 without a gap; raise `DataError` for others."""
    present = np.unique(labels)
    k = len(present)
    if present[0] < 0 or present[-1] != k - 1:
        missing = next(label for label, found in enumerate([*present.tolist(), None]) if label != found)
        raise DataError(
            f"{name} has labels from {present[0]} to {present[-1]} but no {missing}; "
            "expected every one of 0 to k - 1 for k classes; number the classes without gaps"
        )
    if k < 2:
        raise DataError(f"{name} has the label 0 only; expected at least 2 classes")
    return k


def _images(x: Any, name: str) -> NDArray[Any]:
    array = _array(x, name)
    shape = image_shape(array.shape, name)
    if array.dtype.kind not in "iuf":
        raise DataError(f"{name} is of type {array.dtype}; expected uint8 or float32 pixel values")
    if array.dtype != np.uint8:
        with np.errstate(over="ignore"):  # becomes inf, which the next line finds
            array = array.astype(np.float32, copy=False)
        if not np.isfinite(array).all():
            raise DataError(f"{name} has values that are nan or infinite as float32; expected finite pixel values")
    return array.reshape(len(array), *shape)


def checked_labels(y: Any, n: int, name: str) -> NDArray[np.int64]:
    """Return the labels of ``n`` images as int64; raise `DataError` where they are not (n,) integers."""
    array = _array(y, name)
    if array.dtype.kind not in "iu":
        raise DataError(f"{name} is of type {array.dtype}; expected integer labels")
    if array.shape != (n,):
        raise DataError(f"{name} has the shape {array.shape}; expected ({n},), one label for each image")
    return array.astype(np.int64, copy=False)


def _array(value: Any, name: str) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except Exception as error:  # of anything that a user's loader may return
        raise DataError(f"{name} is no array of one shape ({one_line(error)}); expected a numpy array") from error
