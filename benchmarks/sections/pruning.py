"""Whether pruning pays: time to the same accuracy, replayed on real learning curves."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pruning import quartiles, summary

from sections.parts import OURS, THEIRS, chart, markdown_table, measured_on


def pruning_section(report: Mapping[str, Any], page: Path) -> str:
    """Return the section and draw its chart."""
    picture = page.with_name(f"{page.stem}-pruning.png")
    _draw(report, picture)
    seeds = len(report["ways"][0]["runs"])
    return "\n\n".join(
        [
            f"{report['trials']} trials on {report['lanes']} lanes, out of a table of {report['points']} networks that "
            f"were all trained to their end; replayed with {seeds} seeds, median (quartiles). The target is the best "
            "validation accuracy of the same seed's unpruned TPE sweep less 0.1 percentage points. Curves measured on "
            f"{measured_on(report)}. `python benchmarks/pruning.py`",
            f"![Time to the target as a share of unpruned TPE's]({picture.name})",
            _table(report),
        ]
    )


def _table(report: Mapping[str, Any]) -> str:
    base = report["ways"][0]["runs"]
    body = []
    for way in report["ways"]:
        row = summary(way["runs"], base)
        epochs = statistics.median(run["epochs"] for run in way["runs"])
        body.append(
            [way["label"], quartiles(row["reached"]), str(row["missed"]), quartiles(row["end"]), f"{epochs:.0f}",
             quartiles(row["gain"])]
        )  # fmt: skip
    header = ["sampler, pruner", "time to the target", "seeds that never got there"]
    return markdown_table([*header, "time of 40 trials", "epochs trained", "best of 40, points against TPE"], body)


def _draw(report: Mapping[str, Any], file: Path) -> None:
    base = report["ways"][0]["runs"]
    labels = [way["label"] for way in report["ways"]]
    shares = [summary(way["runs"], base)["reached"] for way in report["ways"]]
    with chart(file, 0.42 * len(labels) + 0.9) as axes:
        boxes = axes.boxplot(shares, orientation="horizontal", tick_labels=labels, patch_artist=True, widths=0.6,
                             medianprops={"color": "black"}, flierprops={"markersize": 3})  # fmt: skip
        for place, box in enumerate(boxes["boxes"]):
            box.set_facecolor(THEIRS if place == 0 else OURS)
        axes.axvline(1.0, color="black", linewidth=0.8, linestyle=":")
        axes.invert_yaxis()
        axes.set_xlabel("time to the target, unpruned TPE of the same seed = 1; shorter is better")
