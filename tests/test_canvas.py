"""Ticks are round and inside, and what is drawn is where it was said to be."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from besom.trial.canvas import Canvas, log_ticks, text_width, ticks

NUMBERS = st.floats(-1e9, 1e9, allow_nan=False).filter(lambda x: x == 0 or abs(x) > 1e-9)


@pytest.mark.parametrize(
    ("low", "high", "at_most", "expected"),
    [
        (0, 4, 5, [0, 1, 2, 3, 4]),
        (0.86, 0.941, 5, [0.86, 0.88, 0.9, 0.92, 0.94]),
        (0, 49, 10, [0, 5, 10, 15, 20, 25, 30, 35, 40, 45]),
        (-0.3, 0.3, 3, [-0.2, 0.0, 0.2]),
        (5, 5, 7, [5]),
    ],
)
def test_ticks_are_round(low: float, high: float, at_most: int, expected: list[float]) -> None:
    assert ticks(low, high, at_most) == expected


@given(NUMBERS, st.floats(1e-6, 1e9), st.integers(1, 20))
def test_ticks_are_inside_apart_and_not_many(low: float, span: float, at_most: int) -> None:
    high = low + span
    found = ticks(low, high, at_most)
    assert len(found) <= at_most + 1
    slack = 1e-6 * max(abs(low), abs(high), span)
    assert all(low - slack <= tick <= high + slack for tick in found)
    assert found == sorted(found)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.8, 30, [1, 2, 5, 10, 20]), (0.001, 200, [0.001, 0.01, 0.1, 1, 10, 100])],
)
def test_ticks_of_a_logarithmic_axis(low: float, high: float, expected: list[float]) -> None:
    assert log_ticks(low, high) == expected


def drawn(tmp_path: Path, canvas: Canvas) -> Image.Image:
    canvas.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        return image.convert("RGB")


def test_shapes_are_where_they_belong(tmp_path: Path) -> None:
    canvas = Canvas(60, 40)
    canvas.box((10, 10, 20, 20), "#ff0000")
    canvas.line([(30, 0), (30, 40)], "#0000ff", 3)
    canvas.dot((50, 20), 5, "#00ff00")
    image = drawn(tmp_path, canvas)
    assert image.size == (60, 40)
    assert [image.getpixel(at) for at in ((10, 10), (19, 19))] == [(255, 0, 0)] * 2
    assert [image.getpixel(at) for at in ((9, 15), (20, 15))] == [(255, 255, 255)] * 2
    assert [image.getpixel(at) for at in ((30, 5), (50, 20))] == [(0, 0, 255), (0, 255, 0)]


@pytest.mark.parametrize("smoothing", [1, 3])
def test_tiles_are_enlarged_framed_and_side_by_side(tmp_path: Path, smoothing: int) -> None:
    red, blue, white, frame = (255, 0, 0), (0, 0, 255), (255, 255, 255), (1, 2, 3)
    tiles = np.array([[[red, blue]], [[blue, blue]]], np.uint8)  # two tiles, one pixel high and two wide
    canvas = Canvas(40, 20, smoothing)
    canvas.tiles((5, 4), tiles, 3, 2, "#010203")
    image = drawn(tmp_path, canvas)
    assert image.size == (40, 20)
    row = [frame, *[red] * 3, *[blue] * 3, frame, *[white] * 2, frame, *[blue] * 6, frame]
    assert [image.getpixel((x, 6)) for x in range(4, 24)] == [white, *row, white]
    column = [frame, *[red] * 3, frame]
    assert [image.getpixel((6, y)) for y in range(3, 10)] == [white, *column, white]


def test_a_text_is_as_wide_as_it_is_said_to_be(tmp_path: Path) -> None:
    canvas = Canvas(200, 30)
    canvas.text((10, 15), "feature map", 13, "#000000", "lm")
    box = Image.eval(drawn(tmp_path, canvas).convert("L"), lambda value: 255 - value).getbbox()
    assert box is not None
    assert box[2] - box[0] == pytest.approx(text_width("feature map", 13), abs=3)


def test_dashes_cover_half_of_a_line_around_its_corners(tmp_path: Path) -> None:
    canvas = Canvas(100, 100)
    canvas.dashes([(10, 10), (90, 10), (90, 90)], "#000000", 1, 7)
    image = drawn(tmp_path, canvas)
    dark = sum(image.getpixel((x, 10))[0] < 128 for x in range(10, 90))  # type: ignore[index]
    dark += sum(image.getpixel((90, y))[0] < 128 for y in range(10, 90))  # type: ignore[index]
    assert dark == pytest.approx(80, abs=14)


@pytest.mark.parametrize("upwards", [False, True])
def test_a_text_is_around_its_middle(tmp_path: Path, upwards: bool) -> None:
    canvas = Canvas(120, 120)
    canvas.text((60, 60), "accuracy", 16, "#000000", upwards=upwards)
    inverted = Image.eval(drawn(tmp_path, canvas).convert("L"), lambda value: 255 - value)
    box = inverted.getbbox()
    assert box is not None
    middle, size = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), (box[2] - box[0], box[3] - box[1])
    assert math.dist(middle, (60, 60)) < 4
    assert (size[1] > size[0]) == upwards
