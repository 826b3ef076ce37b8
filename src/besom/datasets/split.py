"""Which images are for training, validation and test: stratified by class, seeded, disjoint.

Works on labels and counts only; knows nothing of images or files.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from besom.errors import DataError

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """Indices into the images of a source; ``test`` indexes the source's own test images where it has some.

    Each is shuffled by the seed, not in the file's order: the first few images of each are of mixed
    classes even where the file is sorted by class.
    """

    train: Indices
    val: Indices
    test: Indices

    @property
    def digest(self) -> str:
        """SHA-256 over the training and validation indices, hexadecimal."""
        digest = hashlib.sha256()
        for part in (self.train, self.val):
            digest.update(f"{len(part)};".encode() + part.astype("<i8").tobytes())
        return digest.hexdigest()


def split(
    y: Indices,
    y_test: Indices | None,
    n_train: int | None,
    n_val: int | None,
    n_test: int | None,
    seed: int,
) -> Split:
    """Cut the test part first, then validation, then training, so that neither n_train nor n_val moves the test part.

    Each part has the class shares of what was left when it was cut, rounded: off by less than one
    image per class.

    Args:
        y: labels of the images, shape (n,).
        y_test: labels of the source's own test images; None cuts the test part out of ``y``.
        n_train: null takes all that is left.
        n_val: null takes a tenth of ``y``.
        n_test: null takes the whole of ``y_test``, or a tenth of ``y``.
        seed: of the shuffle.

    Raises:
        DataError: when a part asks for more images than are left.
    """
    rest = _shuffled(len(y), seed)
    tenth = max(1, len(y) // 10)
    if y_test is None:
        test, rest = _cut(y, rest, tenth if n_test is None else n_test, "n_test", len(y))
    else:
        wanted = len(y_test) if n_test is None else n_test
        test, _ = _cut(y_test, _shuffled(len(y_test), seed), wanted, "n_test", len(y_test))
    val, rest = _cut(y, rest, tenth if n_val is None else n_val, "n_val", len(y))
    if not len(rest):
        raise DataError(f"data.n_val={len(val)} leaves none of the {len(y)} images to train on; lower n_val or n_test")
    train, _ = _cut(y, rest, len(rest) if n_train is None else n_train, "n_train", len(y))
    return Split(*(_mixed(part, seed, number) for number, part in enumerate((train, val, test))))


def _shuffled(n: int, seed: int) -> Indices:
    return np.random.default_rng(seed).permutation(n)


def _mixed(part: Indices, seed: int, number: int) -> Indices:
    """Shuffle a part once more: what is left after a cut opens with the classes that were full first."""
    return np.random.default_rng([seed, number]).permutation(part)


def _cut(y: Indices, rest: Indices, n: int, key: str, total: int) -> tuple[Indices, Indices]:
    """Return the first ``n`` of ``rest`` that keep the class shares, and the others, both in the order of ``rest``."""
    if n > len(rest):
        raise DataError(
            f"data.{key}={n} is too many: {len(rest)} of the {total} images are left for it; "
            "lower it or the parts that are cut before it (n_test, then n_val)"
        )
    labels = y[rest]
    taken = _rank_in_class(labels) < _shares(np.bincount(labels, minlength=1), n)[labels]
    return rest[taken], rest[~taken]


def _shares(counts: Indices, n: int) -> Indices:
    """Divide ``n`` among classes in proportion to their counts: rounded down, then the largest remainders."""
    total = max(1, int(counts.sum()))
    shares, remainders = np.divmod(counts.astype(np.int64) * n, total)
    most_owed = np.argsort(-remainders, kind="stable")[: n - int(shares.sum())]
    shares[most_owed] += 1
    return shares


def _rank_in_class(labels: Indices) -> Indices:
    """Return how many of the same class come before each position."""
    grouped = np.argsort(labels, kind="stable")
    starts = np.cumsum(np.bincount(labels, minlength=1)) - np.bincount(labels, minlength=1)
    ranks = np.empty_like(grouped)
    ranks[grouped] = np.arange(len(labels)) - starts[labels[grouped]]
    return ranks
