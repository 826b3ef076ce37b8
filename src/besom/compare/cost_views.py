"""What the trials cost: Pareto front against parameters, learning curves, timeline of lanes.

Each function gives a `Chart` of `SweepTrials`, or None where there is nothing to see yet. Knows nothing of how a chart
is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optuna.trial import FrozenTrial

from besom.compare.charts import Axis, Chart, Panel, Role, Series
from besom.compare.points import count, is_sized, points, role_of, size_of, trial_text
from besom.compare.trials import Span, SweepTrials, spans
from besom.tables import cell

NAN = float("nan")


def pareto_front(trials: SweepTrials) -> Chart | None:
    """Show the objective against the number of parameters, and which trials no smaller one beats."""
    sized = [trial for trial in trials.complete if is_sized(trial)]
    if not sized:
        return None
    front = front_of(trials)
    best, least = front[-1], front[0]
    if best is least:
        said = f"The best trial, {best.number}, is the smallest too: {cell(size_of(best))} parameters."
    else:
        said = (
            f"The line joins the trials that no smaller one beats: from trial {least.number}, {cell(size_of(least))} "
            f"parameters and {cell(least.values[0])}, to trial {best.number}, {cell(size_of(best))} and "
            f"{cell(best.values[0])}."
        )
    texts = [trial_text(trials, trial) for trial in front]
    line = Series(
        "front", "line", "best", [float(size_of(trial)) for trial in front], [trial.values[0] for trial in front], texts
    )
    every = points(trials, sized, "complete", lambda trial: float(size_of(trial)), lambda trial: trial.values[0])
    panel = Panel(Axis("n_params", is_log=True), Axis(trials.objective), [every, line])
    return Chart("pareto_front", f"Pareto front: {trials.objective} against parameters", said, [panel])


def front_of(trials: SweepTrials) -> list[FrozenTrial]:
    """Return the complete trials that no trial of as few parameters beats, the smallest first."""
    front: list[FrozenTrial] = []
    sized = [trial for trial in trials.ranked if is_sized(trial)]
    for trial in sorted(sized, key=size_of):  # sorting keeps the better of equal sizes first
        if not front or trials.is_better(trial.values[0], front[-1].values[0]):
            front.append(trial)
    return front


def learning_curves(trials: SweepTrials) -> Chart | None:
    """Show what every trial reported, epoch by epoch."""
    reported = [trial for trial in trials.ended if trial.intermediate_values]
    if not reported:
        return None
    best = trials.best
    others: dict[Role, list[FrozenTrial]] = {"complete": [], "pruned": [], "failed": []}
    for trial in reported:
        if best is None or trial.number != best.number:
            others[role_of(trial)].append(trial)
    series = [_curves(trials, some, role) for role, some in others.items() if some]
    if best is not None and best.intermediate_values:
        series.append(_curves(trials, [best], "best", f"trial {best.number}, the best"))
    pruned = f"; {count(len(others['pruned']), 'curve')} end where the pruner stopped them" if others["pruned"] else ""
    return Chart(
        "learning_curves",
        "Learning curves",
        f"{trials.objective} by epoch, counted from 0, of {count(len(reported), 'trial')}{pruned}.",
        [Panel(Axis("epoch", is_whole=True), Axis(trials.objective), series)],
        height=440,
    )


def _curves(trials: SweepTrials, some: Sequence[FrozenTrial], role: Role, name: str | None = None) -> Series:
    """Return the curves of some trials as one series, interrupted between them."""
    x: list[float] = []
    y: list[float] = []
    texts: list[str] = []
    for trial in some:
        text = trial_text(trials, trial)
        for step, value in sorted(trial.intermediate_values.items()):
            x.append(float(step))
            y.append(value if math.isfinite(value) else NAN)
            texts.append(text)
        x.append(NAN)
        y.append(NAN)
        texts.append("")
    return Series(name or role, "line", role, x, y, texts)


def timeline(trials: SweepTrials) -> Chart | None:
    """Show which trial ran when, on which lane."""
    found = spans(trials.ended)
    if not found:
        return None
    n_lanes, end = 1 + max(span.lane for span in found), max(span.end for span in found)
    busy = sum(span.end - span.start for span in found) / (n_lanes * end) if end else 0.0
    best = trials.best.number if trials.best else None
    by_role: dict[Role, list[Span]] = {"complete": [], "pruned": [], "failed": [], "best": []}
    for span in found:
        by_role["best" if span.trial.number == best else role_of(span.trial)].append(span)
    ticks = {float(lane): f"lane {lane}" for lane in range(n_lanes)}
    every = [_bars(trials, role, some) for role, some in by_role.items() if some]
    return Chart(
        "timeline",
        "Timeline of lanes",
        f"{count(len(found), 'trial')} on {count(n_lanes, 'lane')} in {end:.0f} s; lanes were busy {busy:.0%} of it.",
        [Panel(Axis("seconds"), Axis("", ticks), every)],
        height=150 + 40 * n_lanes,
    )


def _bars(trials: SweepTrials, role: Role, some: Sequence[Span]) -> Series:
    return Series(
        f"trial {some[0].trial.number}, the best" if role == "best" else role,
        "bars",
        role,
        [span.end - span.start for span in some],
        [float(span.lane) for span in some],
        [f"{trial_text(trials, span.trial)}; {span.end - span.start:.1f} s" for span in some],
        [span.start for span in some],
    )
