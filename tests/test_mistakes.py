"""What a model got wrong: which images, in which order, as a table and a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from besom.data import Dataset
from besom.datasets.scaling import Scaling
from besom.trial.mistakes import Mistake, mistakes_of, mistakes_picture


def dataset_of(n: int, shape: tuple[int, int, int]) -> Dataset:
    rng = np.random.default_rng(0)
    x = rng.random((n, *shape), dtype=np.float32)
    y = np.arange(n) % 3
    return Dataset("toy", x[:1], y[:1], x, y, 3, "a" * 64, "b" * 64, Scaling("none"))


def test_mistakes_come_with_the_surest_first_and_equals_in_their_order() -> None:
    probabilities = np.array(
        [[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.2, 0.1, 0.7], [0.6, 0.3, 0.1], [0.0, 1.0, 0.0]], np.float32
    )
    truth = np.array([0, 1, 0, 2, 1])
    assert mistakes_of(probabilities, truth) == [
        Mistake(2, 0, 2, pytest.approx(0.7)),
        Mistake(1, 1, 0, pytest.approx(0.6)),
        Mistake(3, 2, 0, pytest.approx(0.6)),
    ]


def test_who_makes_no_mistake_has_none() -> None:
    assert mistakes_of(np.eye(3, dtype=np.float32), np.arange(3)) == []


@pytest.mark.parametrize("shape", [(28, 28, 1), (8, 8, 1), (32, 32, 3), (300, 200, 1)])
@pytest.mark.parametrize("n", [1, 7, 200])
def test_any_number_of_images_of_any_size_is_a_picture_of_bounded_size(
    tmp_path: Path, shape: tuple[int, int, int], n: int
) -> None:
    mistakes = [Mistake(place, place % 3, (place + 1) % 3, 0.98) for place in range(n)]
    mistakes_picture(tmp_path / "mistakes.png", mistakes, dataset_of(n, shape))
    with Image.open(tmp_path / "mistakes.png") as image:
        assert image.width <= 1010
        assert image.height <= 1000
