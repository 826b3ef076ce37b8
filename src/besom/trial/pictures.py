"""The pictures of a trial: how it learned, and what it takes for what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from besom.trial.canvas import Box, Canvas, Point, log_ticks, ticks
from besom.trial.outcome import Fit

MOST_NUMBERED_CLASSES = 20
"""With more classes the cells are too small for their counts."""
FEW_MISTAKES = 5
"""A cell with fewer mistakes is never shown at full strength."""

TRAIN, VAL, BEST, INK, GRID = "#8a8f98", "#1f5fa8", "#c8501e", "#20242a", "#e3e5e8"
RIGHT, WRONG = (8, 48, 107), (165, 15, 21)
"""The darkest shade of right counts and of mistakes."""


def learning_curve_picture(path: Path, fit: Fit) -> None:
    """Draw loss and accuracy of both parts of the data by epoch, the best epoch marked; 1000 x 440 pixels."""
    canvas = Canvas(1000, 440)
    canvas.text((500, 20), f"Learning curve: best epoch {fit.best_epoch}, objective {fit.objective:.4f}", 17, INK)
    _curve(canvas, (70, 60, 480, 382), fit, "loss")
    _curve(canvas, (570, 60, 980, 382), fit, "accuracy")
    canvas.save(path)


@dataclass(frozen=True)
class _Axes:
    """Where values lie in a picture.

    Args:
        box: the pixels that the values span.
        n_epochs: on the horizontal axis, from 0.
        low, high: the range of values, already their logarithms where ``is_log``.
    """

    box: Box
    n_epochs: int
    low: float
    high: float
    is_log: bool

    @classmethod
    def around(cls, box: Box, n_epochs: int, values: NDArray[np.float64], is_log: bool) -> _Axes:
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
        if is_log:
            low, high = math.log10(low), math.log10(high)
        margin = 0.05 * (high - low) or 0.5
        return cls(box, n_epochs, low - margin, high + margin, is_log)

    def x(self, epoch: float) -> float:
        left, _, right, _ = self.box
        return left + (epoch + 0.5) / self.n_epochs * (right - left)

    def y(self, value: float) -> float:
        _, top, _, bottom = self.box
        known = math.log10(value) if self.is_log else value
        return bottom - (known - self.low) / (self.high - self.low) * (bottom - top)

    def points(self, values: Sequence[float]) -> list[list[Point]]:
        """Return the points of a line, in pieces where values that cannot be shown interrupt it."""
        pieces: list[list[Point]] = [[]]
        for epoch, value in enumerate(values):
            if math.isfinite(value):
                pieces[-1].append((self.x(epoch), self.y(value)))
            elif pieces[-1]:
                pieces.append([])
        return pieces

    def value_ticks(self) -> list[float]:
        return log_ticks(10**self.low, 10**self.high) if self.is_log else ticks(self.low, self.high)


def _curve(canvas: Canvas, box: Box, fit: Fit, metric: str) -> None:
    train, val = fit.history[f"train_{metric}"], fit.history[f"val_{metric}"]
    every = np.asarray([*train, *val], float)
    finite = every[np.isfinite(every)]
    axes = _Axes.around(box, len(val), finite, metric == "loss" and _spans_decades(finite))
    _frame(canvas, axes, metric)
    best = (axes.x(fit.best_epoch), axes.y(val[fit.best_epoch])) if math.isfinite(val[fit.best_epoch]) else None
    canvas.dashes([(axes.x(fit.best_epoch), box[1]), (axes.x(fit.best_epoch), box[3])], BEST, 1.2, 3)
    for piece in axes.points(train):
        canvas.dashes(piece, TRAIN, 1.6)
        for point in piece:
            canvas.dot(point, 2.6, TRAIN)
    for piece in axes.points(val):
        canvas.line(piece, VAL, 2.2)
        for point in piece:
            canvas.dot(point, 3.4, VAL)
    if best is not None:
        canvas.dot(best, 5.5, BEST)
    _legend(canvas, box, f"best epoch {fit.best_epoch}: {val[fit.best_epoch]:.4f}")


def _frame(canvas: Canvas, axes: _Axes, metric: str) -> None:
    left, top, right, bottom = axes.box
    for value in axes.value_ticks():
        y = axes.y(value)
        canvas.line([(left, y), (right, y)], GRID)
        canvas.text((left - 7, y), f"{value:g}", color=INK, anchor="rm")
    for epoch in ticks(0, axes.n_epochs - 1, min(10, max(1, axes.n_epochs - 1))):
        if epoch.is_integer():
            x = axes.x(epoch)
            canvas.line([(x, top), (x, bottom)], GRID)
            canvas.text((x, bottom + 13), f"{epoch:.0f}", color=INK)
    canvas.line([(left, top), (left, bottom), (right, bottom)], INK, 1.2)
    canvas.text(((left + right) / 2, bottom + 38), "epoch, counted from 0", 14, INK)
    canvas.text((left - 55, (top + bottom) / 2), metric, 14, INK, upwards=True)


def _legend(canvas: Canvas, box: Box, best: str) -> None:
    """Name the colours above the curves, where none of them can be."""
    x, y = box[0] + 4, box[1] - 8
    for text, color, step in (("train", TRAIN, 66), ("validation", VAL, 100), (best, BEST, 0)):
        canvas.dot((x + 4, y), 4, color)
        canvas.text((x + 13, y), text, color=INK, anchor="lm")
        x += step


def _spans_decades(values: NDArray[np.float64]) -> bool:
    return bool(values.size) and values.min() > 0 and values.max() > 20 * values.min()


def confusion_matrix_picture(path: Path, counts: NDArray[np.int64]) -> None:
    """Draw counts of images, row = truth; right ones in blue, mistakes in red; 740 x 740 pixels.

    Args:
        counts: shape (n_classes, n_classes), at least one image.
    """
    canvas = Canvas(740, 740)
    left, top, right, bottom = box = (64, 46, 716, 698)
    n, n_right, total = len(counts), int(np.trace(counts)), int(counts.sum())
    title = f"Confusion matrix, validation: {n_right:,} of {total:,} right ({n_right / total:.2%})"
    canvas.text(((left + right) / 2, 24), title, 17, INK)
    _cells(canvas, box, counts)
    for label in filter(float.is_integer, ticks(0, n - 1, MOST_NUMBERED_CLASSES)):
        middle = (label + 0.5) * (right - left) / n
        canvas.text((left + middle, bottom + 12), f"{label:g}", color=INK)
        canvas.text((left - 12, top + middle), f"{label:g}", color=INK)
    canvas.text(((left + right) / 2, bottom + 31), "predicted class", 14, INK)
    canvas.text((left - 45, (top + bottom) / 2), "true class", 14, INK, upwards=True)
    canvas.save(path)


def _cells(canvas: Canvas, box: Box, counts: NDArray[np.int64]) -> None:
    n, side = len(counts), (box[2] - box[0]) / len(counts)
    gap = 0.75 if n <= MOST_NUMBERED_CLASSES else 0
    diagonal = np.eye(n, dtype=bool)
    most_right, most_wrong = counts[diagonal].max(), max(FEW_MISTAKES, counts[~diagonal].max(initial=0))
    for (truth, predicted), count in np.ndenumerate(counts):
        x, y = box[0] + predicted * side, box[1] + truth * side
        is_right = truth == predicted
        # never so dark that the number cannot be read
        strength = 0.83 * count / max(1, most_right) if is_right else 0.55 * count / most_wrong
        shade = _shade(RIGHT if is_right else WRONG, float(strength))
        canvas.box((x + gap, y + gap, x + side - gap, y + side - gap), shade)
        if count and n <= MOST_NUMBERED_CLASSES:
            canvas.text((x + side / 2, y + side / 2), f"{count:,}", 14, "white" if strength > 0.45 else INK)


def _shade(color: tuple[int, int, int], strength: float) -> tuple[int, int, int]:
    """Return a colour on white, from hardly there to full."""
    red, green, blue = (round(250 - (250 - part) * strength) for part in color)
    return red, green, blue
