"""Charts as pictures, for who cannot run a page: a `Chart` becomes a PNG, by matplotlib.

Uses its object interface only: `pyplot` would keep every figure, and pick a window to show it in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from besom.compare.charts import COLORS, Axis, Chart, Coordinate, Panel, ParallelChart, Series
from besom.compare.interactive import BAR, log_ticks, log_ticks_between

DPI = 110
WIDTH = 9.4
"""Of a picture, in inches."""
INK, GRID = "#20242a", "#e3e5e8"
TEXT: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8.5, "color": INK, "zorder": 4}
BEHIND_TEXT = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}
MOST_LABELS = 12
"""Of one axis of a parallel chart."""


def picture(chart: Chart) -> bytes:
    """Return the chart as PNG, 1034 pixels wide."""
    figure = Figure(figsize=(WIDTH, chart.height / 100 + 0.5), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(chart.title, x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    if isinstance(chart, ParallelChart):
        _draw_parallel(figure.add_subplot(), chart)
    else:
        _draw_panels(figure, chart)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_panels(figure: Figure, chart: Chart) -> None:
    axes = figure.subplots(1, len(chart.panels), sharey=True, squeeze=False)[0]
    for place, (ax, panel) in enumerate(zip(axes, chart.panels, strict=True)):
        _clean(ax)
        _draw(ax, panel, is_first=place == 0)
    names = {series.name for panel in chart.panels for series in panel.series}
    if len(names) > 1:
        axes[0].legend(frameon=False, ncols=len(names), loc="lower left", bbox_to_anchor=(0, 1), fontsize=9)


def _draw(ax: Any, panel: Panel, *, is_first: bool) -> None:
    for series in panel.series:
        _draw_series(ax, series)
    _label(ax, ax.xaxis, panel.x, ax.set_xlim)
    if is_first:
        _label(ax, ax.yaxis, panel.y, ax.set_ylim)
    if panel.x.is_log:
        _log_scale(ax, panel)
    if panel.x.is_whole:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _log_scale(ax: Any, panel: Panel) -> None:
    places, texts = log_ticks(panel)
    ax.set_xscale("log")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks([10**place for place in places], texts)


def _draw_series(ax: Any, series: Series) -> None:
    color, is_best = COLORS[series.role], series.role == "best"
    if series.kind == "bars":
        left = series.starts or None
        ax.barh(series.y, series.x, BAR, left, color=color, edgecolor="white", linewidth=0.6, label=series.name)
    elif series.kind == "points":
        ax.plot(series.x, series.y, "o", color=color, markersize=5.5, alpha=0.8, label=series.name, markeredgewidth=0)
    else:
        style = "steps-post" if series.kind == "steps" else "default"
        marker = "" if series.kind == "steps" else "."
        width, alpha = (2.2, 1.0) if is_best else (0.9, 0.6)
        ax.plot(
            *(series.x, series.y), marker=marker,
            linestyle="-", linewidth=width, drawstyle=style, color=color, alpha=alpha, label=series.name,
            zorder=3 if is_best else 2,
        )  # fmt: skip


def _clean(ax: Any) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#8a8f98")
    ax.grid(color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(colors=INK, labelsize=9)


def _label(ax: Any, axis: Any, given: Axis, set_limits: Any) -> None:
    axis.set_label_text(given.title, fontsize=10, color=INK)
    if given.ticks is not None:
        places = list(given.ticks)
        axis.set_ticks(places, list(given.ticks.values()))
        set_limits(min(places) - 0.5, max(places) + 0.5)


def _draw_parallel(ax: Any, chart: ParallelChart) -> None:
    """Draw every coordinate upright from 0 to 1, and each trial as a line across."""
    columns = [_unit(coordinate) for coordinate in chart.coordinates]
    ranks = [1 - value if chart.is_reversed else value for value in columns[-1]]
    places = range(len(columns))
    for line, rank in enumerate(ranks):
        color = _between("#c3ccd6", COLORS["complete"], min(1.0, rank))
        is_best = line == len(ranks) - 1
        ax.plot(
            places, [column[line] for column in columns], solid_joinstyle="round",
            color=COLORS["best"] if is_best else color, linewidth=2.4 if is_best else 1.1, zorder=3 if is_best else 2,
        )  # fmt: skip
    for place, coordinate in enumerate(chart.coordinates):
        ax.axvline(place, color="#8a8f98", linewidth=1, zorder=1)
        for at, text in _labels(coordinate):
            ax.annotate(text, (place, at), (4, 0), va="center", bbox=BEHIND_TEXT, **TEXT)
    ax.set_xticks(places, [coordinate.axis.title for coordinate in chart.coordinates], fontsize=9)
    ax.set_yticks([])
    ax.set_xlim(-0.1, len(columns) - 0.55)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)


def _span(coordinate: Coordinate) -> tuple[float, float]:
    places = list(coordinate.axis.ticks or coordinate.values)
    known = [value for value in places if math.isfinite(value)] or [0.0]
    low, high = min(known), max(known)
    return (math.log10(low), math.log10(high)) if coordinate.axis.is_log else (low, high)


def _unit(coordinate: Coordinate) -> list[float]:
    """Return the values between 0 and 1; in the middle where all are equal."""
    low, high = _span(coordinate)
    values = [math.log10(value) if coordinate.axis.is_log else value for value in coordinate.values]
    return [(value - low) / (high - low) if high > low else 0.5 for value in values]


def _labels(coordinate: Coordinate) -> list[tuple[float, str]]:
    low, high = _span(coordinate)
    if coordinate.axis.ticks is not None:
        texts = list(coordinate.axis.ticks.items())[:MOST_LABELS]
    elif coordinate.axis.is_log:
        texts = list(zip(*log_ticks_between([low, high]), strict=True))
    else:
        texts = [(value, f"{value:.4g}") for value in _ends(low, high)]
    return [((value - low) / (high - low) if high > low else 0.5, text) for value, text in texts]


def _ends(low: float, high: float) -> Sequence[float]:
    return (low, (low + high) / 2, high) if high > low else (low,)


def _between(one: str, other: str, share: float) -> tuple[float, ...]:
    first, second = (tuple(int(text[at : at + 2], 16) / 255 for at in (1, 3, 5)) for text in (one, other))
    return tuple(a + (b - a) * share for a, b in zip(first, second, strict=True))
