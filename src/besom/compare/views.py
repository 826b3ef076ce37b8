"""All charts of a sweep, in the order in which they are read."""

from __future__ import annotations

from collections.abc import Mapping

from besom.compare import cost_views, search_views
from besom.compare.charts import Chart
from besom.compare.trials import SweepTrials


def charts_of(trials: SweepTrials, importances: Mapping[str, float]) -> list[Chart]:
    """Return the charts that there is something to see in.

    Args:
        importances: as `besom.compare.importances.of` gives them.
    """
    every = [
        search_views.history(trials),
        search_views.importance_chart(trials, importances),
        search_views.slices(trials, importances),
        search_views.parallel_coordinates(trials),
        cost_views.pareto_front(trials),
        cost_views.learning_curves(trials),
        cost_views.timeline(trials),
    ]
    return [chart for chart in every if chart is not None]
