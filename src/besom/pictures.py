"""The pictures of a trial: how it learned, and what it takes for what.

Drawn on figures of their own, never through pyplot, whose global state would grow in a lane.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from besom.outcome import Fit

DPI = 100
LEARNING_CURVE_INCHES = (10.0, 4.4)
CONFUSION_MATRIX_INCHES = (7.4, 7.4)
MOST_NUMBERED_CLASSES = 20
"""With more classes the cells are too small for their counts."""
FEW_MISTAKES = 5
"""A cell with fewer mistakes is never shown at full strength."""

TRAIN_COLOR, VAL_COLOR, BEST_COLOR, INK = "#8a8f98", "#1f5fa8", "#c8501e", "#20242a"


def learning_curve_picture(path: Path, fit: Fit) -> None:
    """Draw loss and accuracy of both parts of the data by epoch, the best epoch marked; 1000 x 440 pixels."""
    figure = _figure(LEARNING_CURVE_INCHES)
    # by hand: matplotlib's layout engines draw everything twice
    figure.subplots_adjust(left=0.07, right=0.985, bottom=0.125, top=0.885, wspace=0.2)
    figure.suptitle(f"Learning curve: best epoch {fit.best_epoch}, objective {fit.objective:.4f}", fontsize=13)
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        _curve(axes, fit, metric)
    figure.savefig(path)


def _curve(axes: Any, fit: Fit, metric: str) -> None:
    train, val = (np.asarray(fit.history[f"{part}_{metric}"], float) for part in ("train", "val"))
    best = fit.best_epoch
    axes.axvline(best, color=BEST_COLOR, linewidth=1.2, linestyle=":", zorder=1)
    axes.plot(train, "o--", color=TRAIN_COLOR, markersize=4, linewidth=1.4, label="train")
    axes.plot(val, "o-", color=VAL_COLOR, markersize=5, linewidth=2, label="validation")
    label = f"best epoch {best}: {val[best]:.4f}"
    axes.plot(best, val[best], "o", color=BEST_COLOR, markersize=9, linestyle="none", zorder=3, label=label)
    if metric == "loss" and _spans_decades(np.concatenate([train, val])):
        _log_scale(axes)
    axes.set(xlabel="epoch, counted from 0", ylabel=metric, xlim=(-0.5, len(val) - 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(color="#e3e5e8", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(facecolor="white", edgecolor="white", framealpha=0.9).set_zorder(1.5)  # never over a point


def _log_scale(axes: Any) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _spans_decades(values: NDArray[np.float64]) -> bool:
    finite = values[np.isfinite(values)]
    return bool(finite.size) and finite.min() > 0 and finite.max() > 20 * finite.min()


def confusion_matrix_picture(path: Path, counts: NDArray[np.int64]) -> None:
    """Draw counts of images, row = truth; right ones in blue, mistakes in red; 740 x 740 pixels.

    Args:
        counts: shape (n_classes, n_classes), at least one image.
    """
    figure = _figure(CONFUSION_MATRIX_INCHES)
    axes = figure.add_axes((0.085, 0.075, 0.865, 0.865))
    right, total = int(np.trace(counts)), int(counts.sum())
    title = f"Confusion matrix, validation: {right:,} of {total:,} right ({right / total:.2%})"
    axes.set_title(title, fontsize=13, pad=12)
    diagonal = np.eye(len(counts), dtype=bool)
    # vmax: no mistake so dark that its count cannot be read
    axes.imshow(_shades(counts, ~diagonal, FEW_MISTAKES), cmap="Reds", vmin=0, vmax=1.8)
    axes.imshow(_shades(counts, diagonal, 1), cmap="Blues", vmin=0, vmax=1.2)
    axes.set(xlabel="predicted class", ylabel="true class")
    if len(counts) <= MOST_NUMBERED_CLASSES:
        _number(axes, counts)
    figure.savefig(path)


def _shades(counts: NDArray[np.int64], chosen: NDArray[np.bool_], at_least: int) -> Any:
    """Return the chosen counts as fractions of the largest of them, the others masked."""
    return np.ma.masked_where(~chosen, counts / max(at_least, counts[chosen].max(initial=0)))


def _number(axes: Any, counts: NDArray[np.int64]) -> None:
    labels, edges = range(len(counts)), np.arange(len(counts) + 1) - 0.5
    axes.set_xticks(labels)
    axes.set_yticks(labels)
    axes.hlines(edges, edges[0], edges[-1], color="white", linewidth=2)
    axes.vlines(edges, edges[0], edges[-1], color="white", linewidth=2)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    largest = counts.diagonal().max()
    for (truth, predicted), count in np.ndenumerate(counts):
        if count:
            is_dark = truth == predicted and count > 0.6 * largest
            color = "white" if is_dark else INK
            axes.text(predicted, truth, f"{count:,}", ha="center", va="center", color=color, fontsize=10)


def _figure(inches: tuple[float, float]) -> Figure:
    figure = Figure(figsize=inches, dpi=DPI)
    FigureCanvasAgg(figure)
    return figure
