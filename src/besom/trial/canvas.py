"""A small drawing board: smooth lines and text on pixels, and where the ticks of an axis go.

A figure library takes 0.2 s of CPU for each picture of a trial, and as much memory as the rest of a lane to start;
the few shapes that they are made of take 0.03. Knows nothing of what is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""(left, top, right, bottom), in pixels."""

SMOOTHING = 3
"""Shapes are drawn so many times as large and then reduced, which smooths their edges."""

FRAME = 1
"""Pixels around a tile that its frame takes."""

NEAREST = Image.Resampling.NEAREST


class Canvas:
    """White pixels to draw on. All lengths are in pixels, (0, 0) is the upper left corner; shapes come under texts.

    Args:
        width: of the picture.
        height: of the picture.
        smoothing: 1 for a picture of tiles and boxes, which have no edges to smooth: it takes a fifth of the time.
    """

    def __init__(self, width: int, height: int, smoothing: int = SMOOTHING) -> None:
        self._smoothing = smoothing
        self._image = Image.new("RGB", (width * smoothing, height * smoothing), "white")
        self._draw = ImageDraw.Draw(self._image)
        self._texts: list[tuple[Point, str, int, str, str, bool]] = []

    def line(self, points: Sequence[Point], color: str, width: float = 1.0) -> None:
        """Draw a line through points; one point is nothing."""
        if len(points) > 1:
            large = [self._large(point) for point in points]
            self._draw.line(large, color, round(width * self._smoothing), joint="curve")

    def dashes(self, points: Sequence[Point], color: str, width: float, dash: float = 6.0) -> None:
        """Draw a line of dashes through points, each as long as the gap after it."""
        for piece in _pieces(points, dash):
            self.line(piece, color, width)

    def dot(self, center: Point, radius: float, color: str) -> None:
        """Draw a full circle."""
        x, y = self._large(center)
        r = radius * self._smoothing
        self._draw.ellipse((x - r, y - r, x + r, y + r), color)

    def box(self, box: Box, color: str | tuple[int, int, int]) -> None:
        """Fill a rectangle, its right and lower edge not included."""
        left, top, right, bottom = (round(value * self._smoothing) for value in box)
        self._draw.rectangle((left, top, right - 1, bottom - 1), color)

    def tiles(
        self, at: tuple[int, int], tiles: NDArray[np.uint8], scale: int, gap: int = 0, frame: str = "#c4c8cd"
    ) -> None:
        """Paste small pictures side by side, each of their pixels enlarged to a square, a thin frame around each.

        Args:
            at: the upper left corner of the first one's frame.
            tiles: shape (n, height, width, 3).
            scale: pixels a side of what was one pixel.
            gap: white pixels between the frames of neighbours.
            frame: colour of the frame, which is `FRAME` pixels thick.
        """
        n, height, width, _ = tiles.shape
        outer = width * scale + 2 * FRAME
        framed = np.full((n, height * scale + 2 * FRAME, outer + gap, 3), 255, np.uint8)
        framed[:, :, :outer] = ImageColor.getrgb(frame)
        framed[:, FRAME:-FRAME, FRAME : outer - FRAME] = tiles.repeat(scale, axis=1).repeat(scale, axis=2)
        strip = Image.fromarray(np.concatenate(framed, axis=1)[:, : n * (outer + gap) - gap])
        if self._smoothing > 1:
            strip = strip.resize((strip.width * self._smoothing, strip.height * self._smoothing), NEAREST)
        self._image.paste(strip, (at[0] * self._smoothing, at[1] * self._smoothing))

    def text(
        self, at: Point, text: str, size: int = 13, color: str = "black", anchor: str = "mm", upwards: bool = False
    ) -> None:
        """Write a line of text.

        Args:
            size: of the letters, in pixels.
            anchor: where ``at`` is in the text, as Pillow says it: ``l m r`` across, then ``t m b`` down.
            upwards: turned by a quarter, read from below; its middle is then at ``at``.
        """
        self._texts.append((at, text, size, color, anchor, upwards))

    def save(self, path: Path) -> None:
        """Write the picture as PNG."""
        image = self._image.reduce(self._smoothing)
        for at, text, size, color, anchor, upwards in self._texts:
            letters, left, top = _letters(text, size, anchor)
            if upwards:
                letters = letters.rotate(90, expand=True)
                left, top = -letters.width / 2, -letters.height / 2
            image.paste(color, (round(at[0] + left), round(at[1] + top)), letters)
        image.save(path, compress_level=3)  # half the time of 6, a fifth more bytes

    def _large(self, point: Point) -> Point:
        return point[0] * self._smoothing, point[1] * self._smoothing


@lru_cache(maxsize=16)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's own font."""
    return ImageFont.load_default(size)


@lru_cache(maxsize=512)
def text_width(text: str, size: int) -> float:
    """Return how wide a line of text is, in pixels."""
    return font(size).getlength(text)


@lru_cache(maxsize=512)  # a lane draws one trial after another, and most of their texts are the same
def _letters(text: str, size: int, anchor: str) -> tuple[Image.Image, float, float]:
    """Return a text as a mask, and how far left and above of where it is anchored the mask begins, both negative."""
    left, top, right, bottom = font(size).getbbox(text, anchor=anchor)
    mask = Image.new("L", (math.ceil(right - left) + 2, math.ceil(bottom - top) + 2))
    ImageDraw.Draw(mask).text((1 - left, 1 - top), text, fill=255, font=font(size), anchor=anchor)
    return mask, left - 1, top - 1


def _pieces(points: Sequence[Point], dash: float) -> Iterator[list[Point]]:
    """Yield every second piece of a line, each ``dash`` long; a piece may go round a corner."""
    piece, left, is_drawn = list(points[:1]), dash, True
    for end in points[1:]:
        start = piece[-1]
        while (length := math.dist(start, end)) > left:
            start = (start[0] + (end[0] - start[0]) * left / length, start[1] + (end[1] - start[1]) * left / length)
            if is_drawn:
                yield [*piece, start]
            piece, left, is_drawn = [start], dash, not is_drawn
        piece.append(end)
        left -= length
    if is_drawn and len(piece) > 1:
        yield piece


def ticks(low: float, high: float, at_most: int = 7) -> list[float]:
    """Return round numbers within a range, in steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [float(low)]
    step = (high - low) / at_most
    power = 10.0 ** math.floor(math.log10(step))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [round(number * step, digits) for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten within a positive range; the powers alone where it is wide."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(powers) <= 4 else (1,)
    every = [float(f"{factor}e{power}") for power in powers for factor in factors]
    return [value for value in every if low <= value <= high]
