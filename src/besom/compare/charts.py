"""What a chart of a sweep is: panels of series, drawn the same way for the page and for the picture.

Only the words; `besom.compare.views` says what the charts of a sweep show, `besom.compare.interactive` and
`besom.compare.still` draw them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["points", "line", "steps", "bars"]
Role = Literal["best", "complete", "pruned", "failed", "faint"]
"""What a colour stands for; the same in every chart."""

COLORS: Mapping[str, str] = {
    "best": "#d1491c",
    "complete": "#2f7fc1",
    "pruned": "#8f6bb3",
    "failed": "#b3123f",
    "faint": "#8c96a3",
}
"""Of a role; each is readable on white and on the dark of the page."""


@dataclass(frozen=True)
class Axis:
    """One axis.

    Args:
        ticks: label by position, where the axis has names instead of numbers.
        is_log: positions are drawn by their logarithm; all are positive then.
        is_whole: positions are counts, such as epochs.
    """

    title: str
    ticks: Mapping[float, str] | None = None
    is_log: bool = False
    is_whole: bool = False


@dataclass(frozen=True)
class Series:
    """Points that belong together.

    Args:
        x: as long as ``y``; nan interrupts a line.
        texts: what each point says of itself, as many as points; empty where nobody asks.
        starts: of bars, where they start on the x axis; they start at 0 without.
    """

    name: str
    kind: Kind
    role: Role
    x: Sequence[float]
    y: Sequence[float]
    texts: Sequence[str] = ()
    starts: Sequence[float] = ()


@dataclass(frozen=True)
class Panel:
    """Two axes and what lies between them; panels of one chart share the y axis."""

    x: Axis
    y: Axis
    series: Sequence[Series]


@dataclass(frozen=True)
class Chart:
    """One chart.

    Args:
        slug: of its file.
        caption: what it says, in a sentence or two, for who cannot see it too.
        panels: side by side.
        height: in pixels.
    """

    slug: str
    title: str
    caption: str
    panels: Sequence[Panel] = ()
    height: int = 380


@dataclass(frozen=True)
class Coordinate:
    """One upright axis of a parallel chart, with the position of each trial on it."""

    axis: Axis
    values: Sequence[float]


@dataclass(frozen=True)
class ParallelChart(Chart):
    """A line for each trial through its parameters, coloured by the last coordinate.

    Args:
        texts: what each line says of itself.
        is_reversed: small values of the last coordinate are the good ones.
    """

    coordinates: Sequence[Coordinate] = field(default_factory=tuple)
    texts: Sequence[str] = ()
    is_reversed: bool = False
