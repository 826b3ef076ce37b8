"""What the search found: history, importances, parallel coordinates, slices.

Each function gives a `Chart` of `SweepTrials`, or None where there is nothing to see yet. Knows nothing of how a chart
is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from besom.compare.charts import Axis, Chart, Coordinate, Panel, ParallelChart, Series
from besom.compare.points import complete_points, count, is_sized, points, size_of, trial_text
from besom.compare.trials import SweepTrials, point_text, text_of
from besom.tables import cell, title

NAN = float("nan")
JITTER = 0.22
"""How far trials of one value are spread to either side, of the distance between two values."""
BELOW = 0.15
"""How far below a range lies what lacks the parameter, of the length of the range."""
PER_ROW = 6
"""Panels beside each other in the slice chart; with more parameters the most important are shown."""


def history(trials: SweepTrials) -> Chart | None:
    """Show the value of each trial, and the best so far."""
    if not trials.complete:
        return None
    best_so_far: list[float] = []
    for trial in trials.complete:
        value = trial.values[0]
        is_best = not best_so_far or trials.is_better(value, best_so_far[-1])
        best_so_far.append(value if is_best else best_so_far[-1])
    numbers = [float(trial.number) for trial in trials.complete]
    ended = f"{count(len(trials.complete), 'trial')} complete"
    assert trials.best is not None
    return Chart(
        "history",
        "Optimization history",
        f"{ended}; the best {trials.objective}, {cell(trials.best.values[0])}, came with trial {trials.best.number}. "
        "The line is the best so far.",
        [
            Panel(
                Axis("trial", is_whole=True),
                Axis(trials.objective),
                [
                    Series("best so far", "steps", "best", numbers, best_so_far),
                    complete_points(trials, lambda trial: float(trial.number)),
                    *_pruned(trials),
                ],
            )
        ],
    )


def _pruned(trials: SweepTrials) -> list[Series]:
    """Return pruned trials at the last value that they reported."""
    some = [trial for trial in trials.pruned if trial.intermediate_values and math.isfinite(_last(trial))]
    return [points(trials, some, "pruned", lambda trial: float(trial.number), _last)] if some else []


def _last(trial: FrozenTrial) -> float:
    return trial.intermediate_values[max(trial.intermediate_values)]


def importance_chart(trials: SweepTrials, importances: Mapping[str, float]) -> Chart | None:
    """Show what `besom.compare.importances.of` gives, the most important on top."""
    if not importances:
        return None
    first = next(iter(importances))
    rows = list(reversed(list(importances.items())))
    ticks = {float(row): title(name) for row, (name, _) in enumerate(rows)}
    return Chart(
        "importances",
        "Parameter importances",
        f"How much of the differences between trials each parameter explains: {title(first)} most, "
        f"{importances[first]:.0%}. By fANOVA over {count(len(trials.complete), 'complete trial')}; "
        "of a few trials it is a rough picture.",
        [
            Panel(
                Axis("share"),
                Axis("", ticks),
                [
                    Series(
                        "share",
                        "bars",
                        "complete",
                        [share for _, share in rows],
                        list(map(float, range(len(rows)))),
                        [f"{title(name)}: {share:.1%}" for name, share in rows],
                    )
                ],
            )
        ],
        height=120 + 34 * len(rows),
    )


def parallel_coordinates(trials: SweepTrials) -> Chart | None:
    """Show every complete trial as a line through its parameters to its value."""
    if not trials.params or len(trials.complete) < 2:
        return None
    by_value = list(reversed(trials.ranked))  # the best are drawn last, on top
    coordinates = [
        Coordinate(axis, [place(trial) for trial in by_value])
        for axis, place in (_scale(trials, param) for param in trials.params)
    ]
    if all(is_sized(trial) for trial in by_value):
        coordinates.append(Coordinate(Axis("n_params", is_log=True), [float(size_of(trial)) for trial in by_value]))
    coordinates.append(Coordinate(Axis(trials.objective), [trial.values[0] for trial in by_value]))
    return ParallelChart(
        "parallel_coordinates",
        "Parallel coordinates",
        f"Each line is one of {count(len(by_value), 'complete trial')}, through its parameters to its "
        f"{trials.objective}; "
        f"the best one has {point_text(trials.ranked[0], trials.params)}.",
        coordinates=coordinates,
        texts=[trial_text(trials, trial) for trial in by_value],
        is_reversed=not trials.is_maximized,
    )


def _scale(trials: SweepTrials, param: str) -> tuple[Axis, Callable[[FrozenTrial], float]]:
    """Return the axis of a parameter, and where a trial lies on it: by place in its list, or by number."""
    names = trials.values_of(param)
    distribution = trials.distribution(param)
    lacks = any(param not in trial.params for trial in trials.complete)
    if names is None and isinstance(distribution, FloatDistribution | IntDistribution):
        return _range(trials, param, is_log=distribution.log, lacks=lacks)
    known = ["-", *(names or [])] if lacks else names or []  # drawn at 0 it would be another value
    ticks = {float(place): name for place, name in enumerate(known)}
    places = {name: place for place, name in ticks.items()}
    return Axis(title(param), ticks), lambda trial: places.get(text_of(trial.params.get(param)), NAN)


def _range(
    trials: SweepTrials, param: str, *, is_log: bool, lacks: bool
) -> tuple[Axis, Callable[[FrozenTrial], float]]:
    """Return the axis of a range; trials that lack the parameter lie below it, and its title says so."""
    values = [float(trial.params[param]) for trial in trials.complete if param in trial.params] or [1.0]
    low, high = min(values), max(values)
    below = low / (high / low) ** BELOW / 1.1 if is_log else low - BELOW * (high - low) - 0.1
    name = f"{title(param)} (lowest: none)" if lacks else title(param)
    return Axis(name, is_log=is_log), lambda trial: float(trial.params.get(param, below))


def slices(trials: SweepTrials, importances: Mapping[str, float]) -> Chart | None:
    """Show the objective against each parameter, the most important first."""
    if not trials.params or not trials.complete:
        return None
    by_importance = sorted(trials.params, key=lambda param: -importances.get(param, 0.0))[:PER_ROW]
    panels = [
        Panel(axis, Axis(trials.objective), [complete_points(trials, _spread(axis, place))])
        for axis, place in (_scale(trials, param) for param in by_importance)
    ]
    left_out = len(trials.params) - len(by_importance)
    rest = f"; {count(left_out, 'less important one')} left out" if left_out else ""
    return Chart(
        "slice",
        "Slice",
        f"{trials.objective} against each parameter, the most important first{rest}. Trials of one value are spread "
        "sideways so that all can be seen.",
        panels,
    )


def _spread(axis: Axis, place: Callable[[FrozenTrial], float]) -> Callable[[FrozenTrial], float]:
    if axis.ticks is None:
        return place
    return lambda trial: place(trial) + JITTER * (2 * (trial.number * 0.618 % 1) - 1)
