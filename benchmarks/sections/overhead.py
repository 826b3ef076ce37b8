"""What a trial costs beside its training: the official sweeper and besom's, and how that grows with the study."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from summary import spread

from sections.parts import FLOOR, OURS, chart, markdown_table, measured_on


def overhead_section(report: Mapping[str, Any], page: Path) -> str:
    """Return the section, and draw how the cost grows."""
    parts = [
        f"An empty objective, SQLite, Hydra's basic launcher, one process, {report['trials']:,} trials; milliseconds a "
        f"trial, median (lowest-highest). {measured_on(report)}. `python benchmarks/overhead.py`",
        _comparison(report),
    ]
    if report["growth"]:
        picture = page.with_name(f"{page.stem}-overhead.png")
        _draw(report, picture)
        parts += [
            f"What a trial costs under TPE once there are so many (mean of {report['window']}): the time of TPE "
            "itself, which looks at every earlier trial, unless `hydra.sweeper.history` bounds how many it sees.",
            f"![Cost of a trial against the number of trials]({picture.name})",
            _growth(report),
        ]
    return "\n\n".join(parts)


def _comparison(report: Mapping[str, Any]) -> str:
    body = []
    for sampler, runs in report["samplers"].items():
        for key in ("wall", "cpu"):
            ours, theirs = ([run[key] for run in runs[side]] for side in ("besom", "official"))
            ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
            body.append([f"{sampler}, {key}", spread(theirs), spread(ours), spread(ratios, 2)])
        best = (f"{statistics.median(run['best'] for run in runs[side]):.4f}" for side in ("official", "besom"))
        body.append([f"{sampler}, best value (0 is the optimum)", *best, ""])
    return markdown_table(["sampler", "official 1.4.0rc3, ms", "besom, ms", "besom / official"], body)


def _growth(report: Mapping[str, Any]) -> str:
    marks = list(report["growth"][0]["milliseconds"])
    body = [[_label(part), *(f"{part['milliseconds'][mark]:.0f}" for mark in marks)] for part in report["growth"]]
    return markdown_table(["ms a trial at", *(f"{int(mark):,} trials" for mark in marks)], body)


def _label(part: Mapping[str, Any]) -> str:
    return f"history: {part['history']}" if part["history"] else "TPE sees all"


def _draw(report: Mapping[str, Any], file: Path) -> None:
    with chart(file, 2.6) as axes:
        for part, color in zip(report["growth"], (FLOOR, OURS), strict=False):
            marks = [int(mark) for mark in part["milliseconds"]]
            axes.plot(marks, list(part["milliseconds"].values()), "o-", color=color, label=_label(part))
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("trials in the study")
        axes.set_ylabel("ms a trial")
        axes.legend(frameon=False)
