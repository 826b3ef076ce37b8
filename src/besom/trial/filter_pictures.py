"""The pictures of a convolution layer: its filters as blocks of weights, and the feature maps that they make.

The captions say what the notebook teaches: a filter is as deep as its input has channels, one filter makes one map
out of all of them, and a `valid` k x k filter shrinks each side by k - 1. Knows nothing of Keras.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from besom.trial.shades import diverging, greys, limit_of, photo
from besom.trial.tiling import Cells, Page, step_of

if TYPE_CHECKING:
    from besom.trial.convolutions import Convolution, Opened

MOST_FILTERS, MOST_CHANNELS = 16, 16
"""A layer may have hundreds; a picture has the first ones and says so."""
PHOTO = 84
"""Pixels that the image in the corner takes a side, at most."""


def filters_picture(path: Path, layer: Convolution) -> None:
    """Draw each filter of a layer as a row of its slices, one a channel of the input."""
    step = step_of(layer.kernel.shape)
    shown = layer.kernel[::step, ::step, :MOST_CHANNELS, :MOST_FILTERS]
    limit = limit_of(layer.kernel)
    _, _, channels, filters = layer.kernel.shape
    order = " from left to right" if channels > 1 else ""
    cells = Cells(
        heading=f"{_some(filters, 'filter')}; {_some(channels, 'channel')}{order}{_every(step)}",
        labels=[f"filter {number}{_bias(layer, number)}" for number in range(shown.shape[3])],
        tiles=diverging(shown.transpose(3, 2, 0, 1), limit),
        limit=limit,
    )
    Page(_title(layer), _about_filters(layer), [cells]).save(path)


def feature_maps_picture(path: Path, seen: Opened, layer: Convolution) -> None:
    """Draw what goes into a layer for one image, and the feature map that each filter makes of it, in one scale."""
    step, is_first = step_of(layer.inputs.shape), layer is seen.convolutions[0]
    image = f"The image is the first of validation: class {seen.truth}, taken for {seen.predicted}."
    (height, width, channels), filters = layer.inputs.shape, layer.maps.shape[-1]
    what_goes_in = f"in: {_some(channels, 'channel')} of {height}x{width}{_every(step)}"
    what_comes_out = f"out: {_some(filters, 'feature map')} of {_by(layer.maps.shape[:2])}, before the activation"
    sections = [
        _cells(what_goes_in, "channel", layer.inputs[::step, ::step], is_image=is_first),
        _cells(what_comes_out, "map", layer.maps[::step, ::step], is_image=False),
    ]
    corner = None if is_first and channels == 1 else _in_corner(seen.image)  # there it is what goes in
    Page(_title(layer), [*_about_maps(layer), image], sections, corner).save(path)


def _cells(heading: str, word: str, values: NDArray[np.float32], *, is_image: bool) -> Cells:
    """Return one cell for each of the first channels of values of shape (height, width, channels)."""
    shown = values[:, :, :MOST_CHANNELS].transpose(2, 0, 1)[:, np.newaxis]
    limit = None if is_image else limit_of(values)
    tiles = greys(shown) if limit is None else diverging(shown, limit)
    return Cells(heading, [f"{word} {number}" for number in range(len(shown))], tiles, limit)


def _in_corner(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the image as colours, as large as it is to be drawn."""
    step = -(-max(image.shape[:2]) // PHOTO)
    small = photo(image[::step, ::step])
    scale = PHOTO // max(small.shape[:2])
    return small.repeat(scale, axis=0).repeat(scale, axis=1)


def _title(layer: Convolution) -> str:
    *block, filters = layer.kernel.shape
    made_of = f"{filters} {_plural('filter', filters)} of {_by(block)} = {layer.n_params:,} parameters"
    return f"{layer.name}: {made_of}; {_by(layer.inputs.shape)} -> {_by(layer.maps.shape)}"


def _about_filters(layer: Convolution) -> list[str]:
    height, width, channels, filters = layer.kernel.shape
    slices = f"{channels} {_plural('slice', channels)} of {height}x{width}"
    weights = f"{height}·{width}·{channels} weights"
    block = f"({weights} + 1 bias)" if layer.has_bias else weights
    return [
        f"Each filter is a block of weights as deep as its input has channels: here {slices}.",
        f"{block} · {filters} {_plural('filter', filters)} = {layer.n_params:,} parameters",
    ]


def _about_maps(layer: Convolution) -> list[str]:
    channels, filters = layer.kernel.shape[2:]
    makes = "The one filter makes one feature map" if filters == 1 else f"Each of the {filters} filters makes one map"
    of = "the one channel" if channels == 1 else f"all {channels} channels"
    return [_about_sides(layer), f"{makes} out of {of}: the sum of weights times inputs, and the bias."]


def _about_sides(layer: Convolution) -> str:
    """Return why the maps are as large as they are."""
    sides, made = layer.inputs.shape[:2], layer.maps.shape[:2]
    moved = "" if layer.strides == (1, 1) else f", moved by {_by(layer.strides)},"
    zeros = " and zeros around it" if layer.padding == "same" else ""
    lost = [side - left for side, left in zip(sides, made, strict=True)]
    shrinks = f": each side shrinks by {lost[0]}" if lost[0] == lost[1] and not moved else ""
    shrinks = shrinks if any(lost) else ": no side shrinks"
    what = f"One {_by(layer.kernel.shape[:2])} filter{moved} fits in {_by(made)} places on {_by(sides)}{zeros}"
    return f"{what} (padding {layer.padding}){shrinks}."


def _bias(layer: Convolution, number: int) -> str:
    return f", bias {layer.bias[number]:+.2g}" if layer.has_bias else ""


def _every(step: int) -> str:
    return f" (one pixel of {step} a side)" if step > 1 else ""


def _some(total: int, word: str) -> str:
    most = MOST_CHANNELS if word == "channel" else MOST_FILTERS
    return f"{most} of {total} {word}s" if total > most else f"{total} {_plural(word, total)}"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
