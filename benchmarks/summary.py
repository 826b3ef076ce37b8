"""What the runs of benchmarks/peers.py say, as numbers; the runner prints them, page.py sets them in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BASE = "besom"
"""The contestant that the others are compared with."""


@dataclass(frozen=True)
class Row:
    """One contestant over all its rounds.

    Args:
        walls: seconds from start to exit, one a round.
        cpus: user and system seconds; empty where they are not counted.
        ratios: wall clock divided by besom's of the same round; empty without besom.
        accuracies: configuration → its best epoch's validation accuracy, median of the rounds.
        difference: the largest to besom's accuracy among the configurations; None without besom.
    """

    name: str
    label: str
    walls: list[float]
    cpus: list[float]
    ratios: list[float]
    accuracies: dict[str, float]
    difference: float | None

    @property
    def best(self) -> float:
        """The accuracy of the best configuration."""
        return max(self.accuracies.values())

    @property
    def mean(self) -> float:
        """The mean accuracy of the configurations."""
        return statistics.fmean(self.accuracies.values())


def rows(report: Mapping[str, Any]) -> list[Row]:
    """Return one row for each contestant that has run, in the order of the report."""
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for run in report["runs"]:
        runs.setdefault(run["contestant"], []).append(run)
    base = runs.get(BASE, [])
    return [_row(name, label, runs[name], base) for name, label in report["contestants"].items() if name in runs]


def _row(name: str, label: str, runs: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]]) -> Row:
    base_walls = {run["round"]: run["wall"] for run in base}
    found, expected = _accuracies(runs), _accuracies(base)
    return Row(
        name=name,
        label=label,
        walls=[run["wall"] for run in runs],
        cpus=[run["cpu"] for run in runs if run["cpu"] is not None],
        ratios=[run["wall"] / base_walls[run["round"]] for run in runs if run["round"] in base_walls],
        accuracies=found,
        difference=max(abs(found[key] - expected[key]) for key in found) if expected else None,
    )


def _accuracies(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for run in runs:
        for result in run["results"]:
            values.setdefault(configuration(result["params"]), []).append(result["val_accuracy"])
    return {key: statistics.median(values[key]) for key in sorted(values)}


def configuration(params: Mapping[str, Any]) -> str:
    """Return a configuration as text: ``3, 12, relu``."""
    return f"{params['filters_0']}, {params['filters_1']}, {params['activation']}"


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Return ``median (lowest-highest)``, or the one value there is."""
    median = f"{statistics.median(values):.{digits}f}"
    return f"{median} ({min(values):.{digits}f}-{max(values):.{digits}f})" if len(values) > 1 else median
