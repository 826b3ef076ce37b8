"""A page of small pictures under captions: how large they can be, where each of them goes.

Knows nothing of what the pictures are of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from besom.trial.canvas import FRAME, Canvas, text_width
from besom.trial.shades import diverging

WIDTH, HEIGHT = 960, 720
"""Pixels that all tiles of a page may take together."""
LARGEST_TILE, LARGEST_PIXEL = 150, 48
"""Sides that a tile, and what was one of its pixels, never exceed."""
MOST_PIXELS = 112
"""A side with more pixels is drawn with every second, third, … of them."""
MARGIN, GAP, HEADING, LABEL = 24, 4, 36, 16
"""Pixels around a page; between the tiles of a cell; of a heading; of the label above a cell."""
TITLE, LINE = 32, 20
"""Heights of the title and of a line under it."""
ACROSS, ACROSS_ROWS, DOWN = 10, 22, 12
"""Pixels between cells: side by side of one tile, or of several, and one under the other."""
BAR, BAR_AND_NUMBERS = 100, 220
"""Widths of a scale of colours."""

INK, FAINT = "#20242a", "#626871"


@dataclass(frozen=True)
class Cells:
    """Cells of one size in rows under a heading, each a row of tiles with a label above.

    Args:
        labels: one a cell.
        tiles: colours, shape (n cells, n tiles, height, width, 3).
        limit: the number at both ends of the scale of colours; None for tiles that are images.
    """

    heading: str
    labels: Sequence[str]
    tiles: NDArray[np.uint8]
    limit: float | None = None

    def largest_scale(self) -> int:
        """Return what one pixel of a tile may be enlarged to, at most, were there no other tiles."""
        height, width = self.tiles.shape[2:4]
        return int(max(1, min(LARGEST_PIXEL, LARGEST_TILE // max(height, width))))

    def width(self, scale: int) -> int:
        return self._columns(scale) * (self._cell(scale)[0] + self._across) - self._across

    def height(self, scale: int) -> int:
        """Return the height of all, heading and a gap below included."""
        return HEADING + -(-len(self.tiles) // self._columns(scale)) * (self._cell(scale)[1] + DOWN)

    def heading_width(self) -> float:
        return text_width(self.heading, 13) + (BAR_AND_NUMBERS if self.limit is not None else 0)

    def draw(self, canvas: Canvas, top: int, right: int, scale: int) -> None:
        canvas.text((MARGIN, top + HEADING // 2), self.heading, 13, INK, "lm")
        if self.limit is not None:
            _bar(canvas, right, top + HEADING // 2, self.limit)
        (width, height), columns = self._cell(scale), self._columns(scale)
        for number, label in enumerate(self.labels):
            row, column = divmod(number, columns)
            x, y = MARGIN + column * (width + self._across), top + HEADING + row * (height + DOWN)
            canvas.text((x, y + 6), label, 12, FAINT, "lm")
            if self.tiles.shape[1] > 1:
                canvas.tiles((x, y + LABEL), self.tiles[number], scale, GAP)
            elif column == 0:  # cells of one tile are drawn a row at once
                gap = width + self._across - self.tiles.shape[3] * scale - 2 * FRAME
                canvas.tiles((x, y + LABEL), self.tiles[number : number + columns, 0], scale, gap)

    @property
    def _across(self) -> int:
        return ACROSS if self.tiles.shape[1] == 1 else ACROSS_ROWS

    @cached_property
    def _label_width(self) -> int:
        return max(round(text_width(label, 12)) for label in self.labels)

    def _cell(self, scale: int) -> tuple[int, int]:
        _, n, height, width, _ = self.tiles.shape
        tiles = n * (width * scale + 2 * FRAME + GAP) - GAP
        return max(tiles, self._label_width), height * scale + 2 * FRAME + LABEL

    def _columns(self, scale: int) -> int:
        """Return how many cells are side by side: what fits, spread evenly over the rows that this takes."""
        n = len(self.tiles)
        most = max(1, min(n, (WIDTH + self._across) // (self._cell(scale)[0] + self._across)))
        return -(-n // -(-n // most))


@dataclass(frozen=True)
class Page:
    """Cells under captions, all enlarged alike, as much as there is room for.

    Args:
        lines: under the title.
        photo: for the upper right corner, colours as large as they are to be, shape (height, width, 3).
    """

    title: str
    lines: Sequence[str]
    sections: Sequence[Cells]
    photo: NDArray[np.uint8] | None = None

    def save(self, path: Path) -> None:
        """Write the page as PNG."""
        scale, width = self._scale, self._width()
        top = MARGIN + max(TITLE + LINE * len(self.lines), 0 if self.photo is None else self.photo.shape[0])
        height = top + sum(cells.height(scale) for cells in self.sections) - DOWN + MARGIN
        canvas = Canvas(width + 2 * MARGIN, height, smoothing=1)
        self._draw_head(canvas, MARGIN + width)
        for cells in self.sections:
            cells.draw(canvas, top, MARGIN + width, scale)
            top += cells.height(scale)
        canvas.save(path)

    def _draw_head(self, canvas: Canvas, right: int) -> None:
        canvas.text((MARGIN, MARGIN + 9), self.title, 17, INK, "lm")
        for number, line in enumerate(self.lines):
            canvas.text((MARGIN, MARGIN + TITLE + LINE * number + 7), line, 13, INK, "lm")
        if self.photo is not None:
            canvas.tiles((right - self.photo.shape[1] - 2 * FRAME, MARGIN), self.photo[np.newaxis], 1)

    @cached_property
    def _scale(self) -> int:
        most = min(cells.largest_scale() for cells in self.sections)
        return next((scale for scale in range(most, 1, -1) if self._fits(scale)), 1)

    def _fits(self, scale: int) -> bool:
        widest = max(cells.width(scale) for cells in self.sections)
        return widest <= WIDTH and sum(cells.height(scale) for cells in self.sections) <= HEIGHT

    def _width(self) -> int:
        aside = 0 if self.photo is None else self.photo.shape[1] + MARGIN
        texts = [text_width(self.title, 17) + aside, *(text_width(line, 13) + aside for line in self.lines)]
        cells = [max(cells.heading_width(), cells.width(self._scale)) for cells in self.sections]
        return round(max(*texts, *cells))


def step_of(shape: Sequence[int]) -> int:
    """Return that every how many pixels of something of shape (height, width, …) are drawn, so that a tile has room."""
    return -(-max(shape[:2]) // MOST_PIXELS)


def rounded(number: float) -> str:
    """Return a number of at least 0 with two digits that count, or all before the point."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def _bar(canvas: Canvas, right: int, middle: int, limit: float) -> None:
    """Draw a scale of colours from minus to plus the limit, its right end at ``right``."""
    high, low = f"+{rounded(limit)}", f"-{rounded(limit)}"
    left = right - round(text_width(high, 12)) - 6 - BAR
    values = np.linspace(-limit, limit, BAR - 2 * FRAME, dtype=np.float32)
    canvas.tiles((left, middle - 6), diverging(np.tile(values, (1, 10, 1)), limit), 1)
    canvas.text((left - 6, middle), low, 12, FAINT, "rm")
    canvas.text((right, middle), high, 12, FAINT, "rm")
