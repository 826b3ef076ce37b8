"""`besom sweep NAME --dry-run`: what a sweep would do, without a store, a lane or a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna

from besom.app.plan import PlannedSweep
from besom.configs.config import plain
from besom.configs.overrides import is_sweep
from besom.engines.launcher import lane_count
from besom.errors import GeometryError
from besom.sweep.standing import point_text
from besom.sweep.study import SweepStudy
from besom.trial.measure import measure

FIRST_POINTS = 5
MACS_PER_SECOND = 2.0e10
"""Forward, backward and update of the seed's CNN on one core of 2024: about 2e10 multiply-adds a second."""
SECONDS_PER_TRIAL = 1.0
"""Tracing, pictures and logging of one trial."""


def preview(plan: PlannedSweep) -> str:
    """Return the size of the space, the first points of a seeded search, and an estimate of the time."""
    settings = plan.settings
    points = first_points(plan)
    size = (
        f"{settings.search.space.size:,} points" if settings.search.space.size is not None else "infinitely many points"
    )
    lines = [
        f"sweep '{plan.name}': {len(settings.search.space.params)} parameters, {size}, "
        f"{settings.total if settings.total is not None else 'any number of'} trials",
        *(f"  {index}: {point_text(point)}" for index, point in enumerate(points)),
    ]
    if settings.seed is None:
        lines.append("  (no seed is set: a real start draws its own points)")
    seconds = [_seconds(plan, point) for point in points]
    known = [value for value in seconds if value is not None]
    if known and settings.total is not None:
        lanes = lane_count(plan.made.config.hydra.launcher.n_lanes, plan.trial.train.threads)
        total = sum(known) / len(known) * settings.total / min(lanes, settings.total)
        lines.append(f"about {total:,.0f} s on {lanes} lanes, judged by the multiply-adds of these points")
    return "\n".join(lines)


def first_points(plan: PlannedSweep) -> list[dict[str, Any]]:
    """Return the points that the sweep would start with, from a study in memory."""
    settings = plan.settings
    study = SweepStudy(None, plan.name, settings.search, {}, optuna.pruners.NopPruner())
    seed = study.seed(settings.seed)
    points: list[dict[str, Any]] = []
    for place, point in enumerate(settings.enqueue[:FIRST_POINTS]):
        taken = study.take(place, point, seed)
        points += [taken.point] if taken else []
    while len(points) < min(FIRST_POINTS, settings.total or FIRST_POINTS):
        asked = study.ask(seed)
        if asked is None:
            break
        points.append(asked.point)
    return points


def _seconds(plan: PlannedSweep, point: Mapping[str, Any]) -> float | None:
    """Return about how long one trial takes, None where its network is not besom's or does not fit."""
    from besom import data
    from besom.configs.compose import compose

    fixed = [text for text in plan.made.overrides if not is_sweep(text)]
    content = plain(compose(plan.stage.folder, [*fixed, *plan.settings.search.space.overrides(point)]))
    try:
        macs = measure(content).get("n_macs")
    except GeometryError:
        return None
    n_train = len(data.load(plan.trial.data).y_train)
    return None if macs is None else SECONDS_PER_TRIAL + 3 * macs * n_train * plan.trial.train.epochs / MACS_PER_SECOND
