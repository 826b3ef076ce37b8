"""What an epoch costs: the kernels alone, besom, and `model.fit` on arrays, for several networks."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from summary import spread

from sections.parts import FLOOR, OURS, THEIRS, chart, markdown_table, measured_on

WAYS = {
    "kernels": ("Keras' kernels alone", FLOOR),
    "besom": ("besom", OURS),
    "unfolded": ("besom, train.fold=false", "#e3b48f"),
    "keras": ("model.fit on arrays", THEIRS),
}
TRAINED = [way for way in WAYS if way != "kernels"]


def epoch_section(report: Mapping[str, Any], page: Path) -> str:
    """Return the section and draw its bars."""
    picture = page.with_name(f"{page.stem}-epoch.png")
    _draw(report, picture)
    runs = len(report["cases"][0]["runs"])
    return "\n\n".join(
        [
            f"Microseconds of CPU an image, one thread, {report['images']:,} real digits, batches of "
            f"{report['batch_size']}, training part of an epoch without the first; {runs} runs, median "
            f"(lowest-highest). {measured_on(report)}. `python benchmarks/epoch.py`",
            f"![Cost of an epoch for several networks]({picture.name})",
            _table(report),
        ]
    )


def _table(report: Mapping[str, Any]) -> str:
    body = []
    for case in report["cases"]:
        runs = case["runs"]
        costs = [spread([run[way] for run in runs]) for way in WAYS]
        ratios = [spread([run[way] / run["kernels"] for run in runs], 2) for way in TRAINED]
        accuracies = [f"{statistics.median(run[f'{way}_accuracy'] for run in runs):.3f}" for way in TRAINED]
        body.append([_label(case), *costs, *ratios, *accuracies])
    header = ["filters; kernel; pixels", *(f"{label}, us" for label, _ in WAYS.values())]
    ratios = [f"{way} / kernels" for way in TRAINED]
    return markdown_table([*header, *ratios, *(f"val. accuracy {way}" for way in TRAINED)], body)


def _label(case: Mapping[str, Any]) -> str:
    return f"{case['filters'][0]}, {case['filters'][1]}; {case['kernel_size']}; {case['pixels']}"


def _draw(report: Mapping[str, Any], file: Path) -> None:
    cases = report["cases"]
    with chart(file, 3.2) as axes:
        for shift, (way, (label, color)) in enumerate(WAYS.items()):
            heights = [statistics.median(run[way] for run in case["runs"]) for case in cases]
            axes.bar(
                [place + (shift - 1.5) * 0.2 for place in range(len(cases))], heights, 0.19, color=color, label=label
            )
        axes.set_xticks(range(len(cases)), [_label(case) for case in cases], fontsize=8)
        axes.set_xlabel("filters; kernel size; pixels a side")
        axes.set_ylabel("us of CPU an image")
        axes.legend(frameon=False)
