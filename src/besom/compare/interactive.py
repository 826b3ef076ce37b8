"""Charts for plotly.js: a `Chart` becomes a figure as JSON takes it, ``{"data": […], "layout": {…}}``.

Plain dicts, because plotly's own classes take a second to import and are turned into the same dicts; a test has
plotly check them. Backgrounds are clear and texts without colour: the page gives both, by day and by night.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from besom.compare.charts import COLORS, Axis, Chart, Coordinate, Panel, ParallelChart, Series

GRID = "rgba(128,128,128,0.22)"
SCALE = [[0.0, "#9fb3c8"], [0.5, COLORS["complete"]], [1.0, COLORS["best"]]]
"""From the worst line of a parallel chart to the best."""
BAR = 0.62
"""Thickness of bars, of the distance between two rows."""
GAP = 0.035
"""Between panels, of the width of the chart."""


def figure(chart: Chart) -> dict[str, Any]:
    """Return the chart as plotly.js takes it."""
    layout = {
        "height": chart.height,
        "margin": {"l": 64, "r": 20, "t": 16, "b": 48},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hovermode": "closest",
        "barmode": "overlay",
        "hoverlabel": {"align": "left"},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    }
    if isinstance(chart, ParallelChart):
        return {"data": [_parallel(chart)], "layout": {**layout, "margin": {"l": 70, "r": 40, "t": 60, "b": 24}}}
    series = [one for panel in chart.panels for one in panel.series]
    layout["showlegend"] = len({one.name for one in series}) > 1
    data = []
    for place, panel in enumerate(chart.panels):
        layout |= _axes(panel, place, len(chart.panels))
        data += [_trace(one, place) for one in panel.series]
    return {"data": data, "layout": layout}


def _name(letter: str, place: int) -> str:
    """Return plotly's name of the axis of a panel: ``x``, ``x2``, …."""
    return letter if place == 0 else f"{letter}{place + 1}"


def _axes(panel: Panel, place: int, number: int) -> dict[str, Any]:
    width = (1 - GAP * (number - 1)) / number
    left = place * (width + GAP)
    x = _axis(panel.x) | _ticks(panel) | {"domain": [left, left + width], "anchor": _name("y", place)}
    y = _axis(panel.y) | {"anchor": _name("x", place)}
    if place > 0:
        y |= {"matches": "y", "showticklabels": False, "title": {"text": ""}}
    return {f"{_name('x', place)[0]}axis{place + 1 if place else ''}": x, f"yaxis{place + 1 if place else ''}": y}


def _axis(axis: Axis) -> dict[str, Any]:
    made: dict[str, Any] = {
        "title": {"text": _safe(axis.title)},
        "gridcolor": GRID,
        "zeroline": False,
        "automargin": True,
    }
    if axis.is_log:
        made["type"] = "log"
    if axis.ticks is not None:
        places = list(axis.ticks)
        made |= {"tickmode": "array", "tickvals": places, "ticktext": _texts(axis)}
        made |= {"range": [min(places) - 0.5, max(places) + 0.5]}
    return made


def _ticks(panel: Panel) -> dict[str, Any]:
    """Return the ticks of an x axis where plotly's own choice reads badly."""
    if panel.x.is_log:
        places, texts = log_ticks(panel)
        return {"tickmode": "array", "tickvals": [10**place for place in places], "ticktext": texts}
    if panel.x.is_whole:
        most = max((value for series in panel.series for value in series.x if math.isfinite(value)), default=0.0)
        return {"dtick": max(1, math.ceil(most / 10)), "tickformat": ",d"}
    return {}


def _trace(series: Series, place: int) -> dict[str, Any]:
    color = COLORS[series.role]
    made: dict[str, Any] = {
        "name": _safe(series.name),
        "x": _numbers(series.x),
        "y": _numbers(series.y),
        "xaxis": _name("x", place),
        "yaxis": _name("y", place),
        "showlegend": place == 0,
        "hoverinfo": "text" if series.texts else "x+y",
    }
    if series.texts:
        made["text"] = [_safe(text) for text in series.texts]
    if series.kind == "bars":
        made |= {"type": "bar", "orientation": "h", "width": BAR, "textposition": "none"}
        made["marker"] = {"color": color, "line": {"width": 1, "color": GRID}}
        if series.starts:
            made["base"] = _numbers(series.starts)
        return made
    made |= {"type": "scatter", "mode": "markers" if series.kind == "points" else "lines+markers"}
    made["marker"] = {"color": color, "size": 9 if series.kind == "points" else 5, "opacity": 0.85}
    if series.kind != "points":
        made["line"] = {"color": color, "width": 2.4 if series.role == "best" else 1.1}
        made["opacity"] = 1.0 if series.role == "best" else 0.65
        made["connectgaps"] = False
    if series.kind == "steps":
        made["mode"] = "lines"
        made["line"]["shape"] = "hv"
    return made


def _parallel(chart: ParallelChart) -> dict[str, Any]:
    colors = chart.coordinates[-1].values
    return {
        "type": "parcoords",
        "dimensions": [_dimension(coordinate) for coordinate in chart.coordinates],
        "line": {"color": _numbers(colors), "colorscale": SCALE, "reversescale": chart.is_reversed},
        "labelangle": -18,
        "labelside": "top",
    }


def _dimension(coordinate: Coordinate) -> dict[str, Any]:
    axis, values = coordinate.axis, coordinate.values
    if axis.ticks is not None:
        places = list(axis.ticks)
        ticks = {"tickvals": places, "ticktext": _texts(axis), "range": [min(places), max(places)]}
        return {"label": _safe(axis.title), "values": _numbers(values), **ticks}
    if axis.is_log:
        values = [math.log10(value) for value in values]
        places, texts = log_ticks_between(values)
        return {"label": _safe(axis.title), "values": _numbers(values), "tickvals": places, "ticktext": texts}
    return {"label": _safe(axis.title), "values": _numbers(values)}


def log_ticks(panel: Panel) -> tuple[list[float], list[str]]:
    """Return where the ticks of a logarithmic x axis are, as logarithms to base 10, and their texts."""
    return log_ticks_between([math.log10(value) for series in panel.series for value in series.x if value > 0])


def log_ticks_between(logarithms: Sequence[float]) -> tuple[list[float], list[str]]:
    """Return a few round numbers on an axis of logarithms to base 10, and their texts; its ends at least."""
    known = [value for value in logarithms if math.isfinite(value)]
    low, high = min(known), max(known)
    steps = [
        math.log10(factor) + power for power in range(math.floor(low), math.ceil(high) + 1) for factor in (1, 2, 5)
    ]
    inside = [value for value in steps if low <= value <= high]
    places = inside if len(inside) > 2 else sorted({low, *inside, high})
    return places, [f"{10**value:,.4g}" if 10**value < 1 else f"{10**value:,.0f}" for value in places]


def _numbers(values: Sequence[float]) -> list[float | None]:
    """Return numbers as JSON has them; nan, which it lacks, is a gap."""
    return [value if math.isfinite(value) else None for value in values]


def _texts(axis: Axis) -> list[str]:
    return [_safe(text) for text in (axis.ticks or {}).values()]


def _safe(text: str) -> str:
    """Return a text in which plotly.js sees no markup: it takes a few tags, links among them, for what they are."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
