"""What a trained model got wrong: the validation images it took for another class, the surest mistakes first.

Knows nothing of Keras: probabilities and images are all it sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from besom.trial.shades import photo
from besom.trial.tiling import Cells, Page, step_of

if TYPE_CHECKING:
    from besom.data import Dataset

MOST = 40
"""Images in the picture."""


@dataclass(frozen=True)
class Mistake:
    """One image of validation, by its place there, from 0; ``probability`` is that of the class it was taken for."""

    place: int
    truth: int
    predicted: int
    probability: float


def mistakes_of(probabilities: NDArray[np.float32], truth: NDArray[np.int64]) -> list[Mistake]:
    """Return every mistake, the surest first, the earlier of equals before the later.

    Args:
        probabilities: shape (n, n_classes).
        truth: labels, shape (n,).
    """
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != truth)
    sure = probabilities[wrong, predicted[wrong]]
    order = wrong[np.argsort(-sure, kind="stable")]
    return [Mistake(int(n), int(truth[n]), int(predicted[n]), float(probabilities[n, predicted[n]])) for n in order]


def mistakes_picture(path: Path, mistakes: Sequence[Mistake], dataset: Dataset) -> None:
    """Draw the surest mistakes, each under its true class and the one it was taken for.

    Args:
        mistakes: at least one, of the data set's validation images.
    """
    shown = mistakes[:MOST]
    step = step_of(dataset.input_shape)
    tiles = np.stack([photo(dataset.x_val[one.place, ::step, ::step])[np.newaxis] for one in shown])
    some = f"the {len(shown)} surest of them" if len(mistakes) > len(shown) else "all of them, the surest first"
    every = f"; every {step}th pixel" if step > 1 else ""
    labels = [f"{one.truth} as {one.predicted}, {one.probability:.0%}" for one in shown]
    title = f"Mistakes: {len(mistakes):,} of {len(dataset.y_val):,} validation images"
    lines = ["True class, the class that the image was taken for, and how sure the model was of it."]
    Page(title, lines, [Cells(f"{some}{every}", labels, tiles)]).save(path)
