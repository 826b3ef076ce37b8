"""The pictures of filters and feature maps: captions that are true, sizes with bounds, tiles where they belong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from besom.trial.canvas import FRAME, Canvas, font, text_width
from besom.trial.convolutions import Convolution, Opened
from besom.trial.filter_pictures import MOST_CHANNELS, MOST_FILTERS, feature_maps_picture, filters_picture
from besom.trial.shades import COLORS, diverging, greys, limit_of, photo

Size = tuple[int, int]


def convolution(
    sides: Size, channels: int, filters: int, kernel: Size, made: Size, padding: str = "valid", strides: Size = (1, 1)
) -> Convolution:
    rng = np.random.default_rng(filters)

    def random(*shape: int) -> NDArray[np.float32]:
        return rng.normal(size=shape).astype(np.float32)

    return Convolution(
        name="conv_1",
        kernel=random(*kernel, channels, filters),
        bias=random(filters),
        has_bias=True,
        padding=padding,
        strides=strides,
        inputs=random(*sides, channels),
        maps=random(*made, filters),
    )


SEED = convolution((24, 24), 3, 6, (5, 5), (20, 20))
LAYERS = {
    "seed": SEED,
    "first": convolution((28, 28), 1, 3, (5, 5), (24, 24)),
    "wide": convolution((26, 26), 64, 512, (3, 3), (24, 24)),
    "rgb": convolution((32, 32), 3, 4, (3, 3), (30, 30)),
    "one filter": convolution((8, 8), 5, 1, (1, 1), (8, 8)),
    "one pixel": convolution((1, 1), 1, 1, (1, 1), (1, 1)),
    "large kernel": convolution((28, 28), 16, 16, (28, 28), (1, 1)),
    "huge kernel": convolution((300, 200), 2, 2, (300, 200), (1, 1)),
    "photo": convolution((500, 333), 3, 64, (7, 7), (247, 164), strides=(2, 2)),
    "strip": convolution((4, 700), 2, 2, (2, 9), (3, 692)),
}


class Written(Canvas):
    """A canvas that remembers its texts and where they end."""

    texts: list[str]
    ends: list[tuple[float, float]]
    sizes: list[Size]

    def __init__(self, width: int, height: int, smoothing: int = 3) -> None:
        super().__init__(width, height, smoothing)
        Written.texts, Written.ends = [], []
        Written.sizes = [(width, height)]

    def text(self, at: Any, text: str, size: int = 13, *rest: Any) -> None:
        super().text(at, text, size, *rest)
        Written.texts.append(text)
        Written.ends.append((at[0] + (text_width(text, size) if rest[1] == "lm" else 0), at[1] + size / 2))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> type[Written]:
    monkeypatch.setattr("besom.trial.tiling.Canvas", Written)
    return Written


def opening(layer: Convolution, image: NDArray[np.float32] | None = None, *, is_first: bool = False) -> Opened:
    image = np.zeros((28, 28, 1), np.float32) if image is None else image
    return Opened(image, 7, 9, [layer] if is_first else [LAYERS["first"], layer])


def draw(tmp_path: Path, layer: Convolution, **opened: Any) -> tuple[Path, Path]:
    """Draw both pictures of a layer."""
    filters, maps = tmp_path / "filters.png", tmp_path / "maps.png"
    filters_picture(filters, layer)
    feature_maps_picture(maps, opening(layer, **opened), layer)
    return filters, maps


def size_of(path: Path) -> Size:
    with Image.open(path) as image:
        return image.size


@pytest.mark.parametrize("name", LAYERS)
def test_any_layer_gives_pictures_of_bounded_size_with_nothing_cut_off(
    tmp_path: Path, written: type[Written], name: str
) -> None:
    layer = LAYERS[name]
    for make in (
        lambda path: filters_picture(path, layer),
        lambda path: feature_maps_picture(path, opening(layer, layer.inputs, is_first=True), layer),
        lambda path: feature_maps_picture(path, opening(layer), layer),
    ):
        make(tmp_path / "a.png")
        width, height = size_of(tmp_path / "a.png")
        assert (width, height) in written.sizes
        assert width <= 1100
        assert height <= 1400
        assert (tmp_path / "a.png").stat().st_size < 700_000  # 16 filters of 28x28x16 are so many numbers
        assert max(x for x, _ in written.ends) <= width - 20
        assert max(y for _, y in written.ends) < height


def test_the_filters_say_how_deep_they_are_and_what_they_cost(tmp_path: Path, written: type[Written]) -> None:
    filters_picture(tmp_path / "a.png", SEED)
    assert written.texts[:4] == [
        "conv_1: 6 filters of 5x5x3 = 456 parameters; 24x24x3 -> 20x20x6",
        "Each filter is a block of weights as deep as its input has channels: here 3 slices of 5x5.",
        "(5·5·3 weights + 1 bias) · 6 filters = 456 parameters",
        "6 filters; 3 channels from left to right",
    ]
    assert [text.split(",")[0] for text in written.texts if "bias +" in text or "bias -" in text] == [
        f"filter {number}" for number in range(6)
    ]


def test_the_maps_say_what_they_are_made_of_and_why_they_shrink(tmp_path: Path, written: type[Written]) -> None:
    feature_maps_picture(tmp_path / "a.png", opening(SEED), SEED)
    for text in (
        "One 5x5 filter fits in 20x20 places on 24x24 (padding valid): each side shrinks by 4.",
        "Each of the 6 filters makes one map out of all 3 channels: the sum of weights times inputs, and the bias.",
        "The image is the first of validation: class 7, taken for 9.",
        "in: 3 channels of 24x24",
        "out: 6 feature maps of 20x20, before the activation",
    ):
        assert text in written.texts
    assert [text for text in written.texts if text.startswith("map ")] == [f"map {number}" for number in range(6)]


def test_a_layer_with_hundreds_of_filters_says_how_many_are_drawn(tmp_path: Path, written: type[Written]) -> None:
    filters_picture(tmp_path / "a.png", LAYERS["wide"])
    assert "16 of 512 filters; 16 of 64 channels from left to right" in written.texts
    assert sum(text.startswith("filter ") for text in written.texts) == MOST_FILTERS
    feature_maps_picture(tmp_path / "b.png", opening(LAYERS["wide"]), LAYERS["wide"])
    assert "in: 16 of 64 channels of 26x26" in written.texts
    assert "out: 16 of 512 feature maps of 24x24, before the activation" in written.texts
    assert sum(text.startswith("channel ") for text in written.texts) == MOST_CHANNELS


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (
            convolution((28, 28), 1, 2, (5, 5), (28, 28), padding="same"),
            "One 5x5 filter fits in 28x28 places on 28x28 and zeros around it (padding same): no side shrinks.",
        ),
        (
            convolution((28, 28), 1, 2, (5, 5), (12, 12), strides=(2, 2)),
            "One 5x5 filter, moved by 2x2, fits in 12x12 places on 28x28 (padding valid).",
        ),
        (
            convolution((28, 20), 1, 2, (5, 3), (24, 18)),
            "One 5x3 filter fits in 24x18 places on 28x20 (padding valid).",
        ),
    ],
    ids=["same", "strides", "no square"],
)
def test_the_sides_are_explained(tmp_path: Path, written: type[Written], layer: Convolution, expected: str) -> None:
    feature_maps_picture(tmp_path / "a.png", opening(layer), layer)
    assert expected in written.texts


def test_one_filter_and_one_channel_are_not_several(tmp_path: Path, written: type[Written]) -> None:
    draw(tmp_path, LAYERS["one pixel"])
    assert "conv_1: 1 filter of 1x1x1 = 2 parameters; 1x1x1 -> 1x1x1" in written.texts
    assert any(text.startswith("The one filter makes one feature map out of the one channel") for text in written.texts)
    assert "in: 1 channel of 1x1" in written.texts


def test_pixels_that_are_left_out_are_told(tmp_path: Path, written: type[Written]) -> None:
    draw(tmp_path, LAYERS["photo"])
    assert "in: 3 channels of 500x333 (one pixel of 5 a side)" in written.texts


def test_every_letter_of_the_captions_is_in_the_font(tmp_path: Path, written: type[Written]) -> None:
    seen: set[str] = set()
    for layer in LAYERS.values():
        for make in (filters_picture, lambda path, layer: feature_maps_picture(path, opening(layer), layer)):
            make(tmp_path / "a.png", layer)
            seen |= set("".join(written.texts))
    missing = bytes(font(40).getmask("\uffff"))
    assert not {letter for letter in seen if bytes(font(40).getmask(letter)) == missing}


def test_the_slices_of_a_filter_are_its_channels_from_left_to_right(tmp_path: Path) -> None:
    layer = convolution((24, 24), 3, 1, (2, 2), (23, 23))
    layer.kernel[:] = 0
    layer.kernel[0, 1, 1, 0] = 5  # the second slice, upper right
    layer.kernel[1, 0, 2, 0] = -5  # the third one, lower left
    filters_picture(tmp_path / "a.png", layer)
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image.convert("RGB"))[140:]  # under the scale of colours
    negative, positive = (np.argwhere((pixels == color).all(axis=-1)) for color in COLORS[[0, -1]])
    (top, left), (bottom, right) = positive.min(axis=0), positive.max(axis=0)
    side = right - left + 1
    assert bottom - top + 1 == side
    below, before = negative.min(axis=0)
    assert below - top == side  # one pixel of the filter lower
    assert before - (right + 1) == 2 * FRAME + 4  # where the next slice begins


def test_zero_is_white_and_the_limit_is_the_deepest_colour() -> None:
    values = np.array([-2, 0, 2, 4, np.nan, np.inf], np.float32)
    shades = diverging(values, 2.0)
    white, blue, red = COLORS[2], COLORS[0], COLORS[-1]
    assert [tuple(shade) for shade in shades] == [tuple(color) for color in (blue, white, red, red, white, white)]
    assert limit_of(values) == 4
    assert limit_of(np.zeros((2, 2), np.float32)) == 1
    assert limit_of(np.full(3, np.nan, np.float32)) == 1


def test_an_image_is_grey_or_in_its_colours() -> None:
    image = np.array([[[0.0, 5.0, 10.0]]], np.float32)
    assert photo(image).tolist() == [[[0, 128, 255]]]
    assert photo(np.array([[[3.0], [4.0]]], np.float32)).tolist() == [[[0, 0, 0], [255, 255, 255]]]
    assert greys(np.full((2, 2), 7, np.float32)).tolist() == np.zeros((2, 2, 3)).tolist()
