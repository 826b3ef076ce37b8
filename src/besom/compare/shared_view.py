"""How MLflow's table of runs opens on a sweep: its trials only, best first, with the columns that matter.

MLflow keeps a shared view as JSON in a tag of the experiment; an address with its key opens it. Knows nothing of
servers.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from besom.compare.trials import SweepTrials

KEY = "besom"
TAG = f"mlflow.sharedViewState.{KEY}"
TAG_LENGTH = 5000
"""MLflow's limit for a tag of an experiment, in characters."""
COLUMNS = ["attributes.`Created`", "attributes.`Duration`"]
METRICS = ["objective", "n_params", "n_macs", "fit_seconds"]


def state(trials: SweepTrials) -> str:
    """Return the view; of very many parameters the last ones are left out."""
    params = list(trials.params)
    while len(text := _text(trials, params)) > TAG_LENGTH:
        params.pop()
    return text


def _text(trials: SweepTrials, params: list[str]) -> str:
    return json.dumps(
        {
            "searchFilter": "tags.kind = 'trial'",
            "orderByKey": "metrics.`objective`",
            "orderByAsc": not trials.is_maximized,
            "selectedColumns": [
                *COLUMNS,
                *(f"metrics.`{name}`" for name in METRICS),
                *(f"params.`{name}`" for name in params),
            ],
        }
    )


def query(*, has_view: bool) -> str:
    """Return what follows the address of the runs of an experiment.

    Args:
        has_view: whether the experiment has the tag; without it the runs are sorted at least.
    """
    return f"?viewStateShareKey={KEY}" if has_view else "?orderByKey=metrics.%60objective%60&orderByAsc=false"
