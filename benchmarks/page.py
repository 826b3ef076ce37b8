"""Makes the sections of docs/benchmarks.md, and their charts, out of what the benchmarks measured.

    python benchmarks/page.py                          from benchmarks/peers.json
    python benchmarks/page.py --peers other.json --page other.md

A section stands between two comments, ``<!-- peers -->`` and ``<!-- /peers -->``; everything else on the page is
left as it is. A further section is one more function from data to Markdown, and one more entry in `SECTIONS`.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from summary import BASE, Row, rows, spread

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"

Section = Callable[[Mapping[str, Any], Path], str]
"""Takes what was measured and the page's path, may draw a chart beside the page, returns Markdown."""


def main() -> None:
    """Write every section whose data is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in SECTIONS:
        parser.add_argument(f"--{name}", type=Path, default=HERE / f"{name}.json", help="default: %(default)s")
    parser.add_argument("--page", type=Path, default=PAGE, help="default: %(default)s")
    given = parser.parse_args()
    files = {name: getattr(given, name) for name in SECTIONS if getattr(given, name).is_file()}
    if not files:
        print("page: nothing was measured yet; run: make bench-peers", file=sys.stderr)
        sys.exit(2)
    text = given.page.read_text("utf-8") if given.page.is_file() else "# What besom costs, and what it saves\n"
    for name, file in files.items():
        text = replaced(text, name, SECTIONS[name](json.loads(file.read_text("utf-8")), given.page))
    given.page.write_text(text, encoding="utf-8")


def replaced(text: str, name: str, section: str) -> str:
    """Return a page with a section between its two comments, which are added at the end where they are missing."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if start not in text:
        text = f"{text.rstrip()}\n\n{start}\n{end}\n"
    between = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    return between.sub(lambda _: f"{start}\n{section.strip()}\n{end}", text, count=1)


def markdown_table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table: the first column to the left, the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


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
    work, machine, besom = report["work"], report["machine"], report["besom"]
    rounds = 1 + max(run["round"] for run in report["runs"])
    packages = {
        **report["versions"]["peers"],
        **{f"besom's {name}": version for name, version in changed(report).items()},
    }
    return (
        f"{work['configurations']} CNNs x {work['epochs']} epochs x {work['images']:,} images, "
        f"{work['val_images']:,} for validation, batches of {work['batch_size']}; {rounds} round{'s' * (rounds > 1)}, "
        f"median (lowest-highest). {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:.0f} GiB, "
        f"{report['date'][:10]}; besom {besom['version']} at `{(besom['commit'] or 'no commit')[:10]}`"
        f"{' with changes' * besom['changed']}; {', '.join(f'{name} {version}' for name, version in packages.items())}."
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
    mpl.use("Agg")
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(ordered) + 0.9), layout="constrained")
    colors = ["#c2571a" if row.name == BASE else "#9aa5b1" for row in ordered]
    axes.barh([row.label for row in ordered], medians, xerr=whiskers, color=colors, height=0.65,
              error_kw={"ecolor": "#333333", "capsize": 3, "elinewidth": 1})  # fmt: skip
    for place, (median, row) in enumerate(zip(medians, ordered, strict=True)):
        axes.annotate(f"{median:.0f} s", (max(row.walls), place), (6, 0), textcoords="offset points", va="center")
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("seconds from start to exit; shorter is better")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.savefig(file, dpi=150, metadata={"Software": None})
    plt.close(figure)


def quickest_first(found: Sequence[Row]) -> list[Row]:
    """Return the rows by their median clock."""
    return sorted(found, key=lambda row: statistics.median(row.walls))


def strong(text: str, row: Row) -> str:
    """Return a text, bold where it is besom's."""
    return f"**{text}**" if row.name == BASE else text


SECTIONS: dict[str, Section] = {"peers": peers_section}
"""Name of a section, of its comments and of its data ``NAME.json`` → what makes it."""


if __name__ == "__main__":
    main()
