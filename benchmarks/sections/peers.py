"""besom and its peers: one bar and one line each."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from summary import BASE, Row, rows, spread

from sections.parts import OURS, THEIRS, WHISKERS, chart, markdown_table, measured_on


def peers_section(report: Mapping[str, Any], page: Path) -> str:
    """Return the section about besom and its peers, and draw its chart."""
    found = rows(report)
    picture = page.with_name(f"{page.stem}-peers.png")
    draw_bars(found, picture)
    return "\n\n".join(
        [
            peers_setting(report),
            f"![Wall clock of the same sweep, shorter is better]({picture.name})",
            peers_clock(found),
            peers_accuracy(found),
        ]
    )


def peers_setting(report: Mapping[str, Any]) -> str:
    """Return what was measured where, as a paragraph."""
    work = report["work"]
    per_contestant = Counter(run["contestant"] for run in report["runs"]).values()
    rounds = " to ".join(str(count) for count in sorted({min(per_contestant), max(per_contestant)}))
    load = max(run["load_before"] for run in report["runs"])
    packages = {
        **report["versions"]["peers"],
        **{f"besom's {name}": version for name, version in changed(report).items()},
    }
    return (
        f"{work['configurations']} CNNs x {work['epochs']} epochs x {work['images']:,} images, "
        f"{work['val_images']:,} for validation, batches of {work['batch_size']}; rounds: {rounds}, "
        f"median (lowest-highest). {measured_on(report)}; "
        f"{', '.join(f'{name} {version}' for name, version in packages.items())}. Highest load before a run: "
        f"{load:.1f}.\n\n"
        "Every clock starts with a fresh process and ends with its exit; everybody logs parameters, the metrics of "
        "each epoch and the model to MLflow; besom also its pictures, tables and hashes. Who trains two at a time "
        "gives each one thread, who trains one at a time leaves both cores to TensorFlow; oneDNN for all. *Tuned* "
        "peers run 25 batches in one call and validate in batches of 1,000, as besom does by itself; the others leave "
        "Keras' 1 and 32. `make bench-peers`"
    )


def changed(report: Mapping[str, Any]) -> dict[str, str]:
    """Return the packages of which besom's environment has another version than the peers'."""
    peers = report["versions"]["peers"]
    return {name: version for name, version in report["versions"]["besom"].items() if peers.get(name) != version}


def peers_clock(found: Sequence[Row]) -> str:
    """Return the table of clocks, quickest first."""
    body = [
        [
            strong(row.label, row),
            spread(row.walls),
            spread(row.cpus) if row.cpus else "not counted",
            f"{statistics.median(row.ratios):.2f}" if row.ratios else "",
            f"{row.best:.4f}",
        ]
        for row in quickest_first(found)
    ]
    return markdown_table(["", "wall s", "CPU s", "x besom", "best val. accuracy"], body)


def peers_accuracy(found: Sequence[Row]) -> str:
    """Return the table of accuracies: a line for each configuration, a column for each contestant."""
    body = [[key, *(f"{row.accuracies[key]:.4f}" for row in found)] for key in found[0].accuracies]
    body.append(["mean", *(f"{row.mean:.4f}" for row in found)])
    differences = ("" if row.difference is None or row.name == BASE else f"{row.difference:.4f}" for row in found)
    body.append(["largest difference to besom", *differences])
    return markdown_table(["filters, filters, activation", *(row.name for row in found)], body)


def draw_bars(found: Sequence[Row], file: Path) -> None:
    """Draw one bar a contestant: the median of its clocks, whiskers from the lowest to the highest."""
    ordered = quickest_first(found)
    medians = [statistics.median(row.walls) for row in ordered]
    whiskers = [
        [median - min(row.walls) for median, row in zip(medians, ordered, strict=True)],
        [max(row.walls) - median for median, row in zip(medians, ordered, strict=True)],
    ]
    colors = [OURS if row.name == BASE else THEIRS for row in ordered]
    with chart(file, 0.5 * len(ordered) + 0.9) as axes:
        axes.barh([row.label for row in ordered], medians, xerr=whiskers, color=colors, height=0.65, error_kw=WHISKERS)
        for place, (median, row) in enumerate(zip(medians, ordered, strict=True)):
            axes.annotate(f"{median:.0f} s", (max(row.walls), place), (6, 0), textcoords="offset points", va="center")
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_xlabel("seconds from start to exit; shorter is better")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)


def quickest_first(found: Sequence[Row]) -> list[Row]:
    """Return the rows by their median clock."""
    return sorted(found, key=lambda row: statistics.median(row.walls))


def strong(text: str, row: Row) -> str:
    """Return a text, bold where it is besom's."""
    return f"**{text}**" if row.name == BASE else text
