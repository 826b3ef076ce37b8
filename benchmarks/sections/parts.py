"""What all sections are made of: tables, the line about the machine, charts in one style."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

OURS = "#c2571a"
THEIRS = "#9aa5b1"
FLOOR = "#3d4a57"
WHISKERS = {"ecolor": "#333333", "capsize": 3, "elinewidth": 1}


def markdown_table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table: the first column to the left, the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measured_on(report: Mapping[str, Any]) -> str:
    """Return machine, day and besom's commit as a sentence."""
    machine, besom = report["machine"], report["besom"]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:.0f} GiB, {report['date'][:10]}; "
        f"besom {besom['version']} at `{(besom['commit'] or 'no commit')[:10]}`{' with changes' * besom['changed']}"
    )


@contextmanager
def chart(file: Path, height: float) -> Iterator[Axes]:
    """Give axes 8 inches wide, and write them as a PNG."""
    figure, axes = plt.subplots(figsize=(8, height), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    yield axes
    figure.savefig(file, dpi=150, metadata={"Software": None})
    plt.close(figure)
