"""A store with a sweep in it that nobody trained: for what only reads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from besom.paths import Store
from besom.storage import open_storage

SPACE = {
    "model.activation": CategoricalDistribution(("relu", "swish", "tanh")),
    "model.batch_norm": CategoricalDistribution((False, True)),
    "model.pool": CategoricalDistribution((2, "none", None)),
    "model.conv.0.filters": IntDistribution(1, 64),
    "model.conv.1.filters": IntDistribution(1, 64),
    "train.learning_rate": FloatDistribution(1e-5, 1.0),
}
STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "infeasible": TrialState.PRUNED,
    "running": TrialState.RUNNING,
}


def store_in(folder: Path) -> Store:
    """Return a new store that readers take for one; MLflow has nothing in it."""
    store = Store(folder / "mlruns")
    store.root.mkdir()
    store.mlflow_db.touch()
    return store


def study_in(
    store: Store, name: str = "toy", directions: Sequence[str] = ("maximize",), total: int | None = None
) -> optuna.Study:
    """Return a new study without trials, as a sweep's parent leaves it."""
    study = optuna.create_study(storage=open_storage(store.studies_uri), study_name=name, directions=directions)
    study.set_user_attr("id", f"id of {name}")
    study.set_user_attr("n_trials", total)
    return study


def trial(
    outcome: str = "complete",
    values: Sequence[float] = (),
    params: dict[str, Any] | None = None,
    *,
    reports: Sequence[float] = (),
    seconds: float = 0.0,
    ago: float = 0.0,
    **facts: Any,
) -> FrozenTrial:
    """Return a trial that ran for so many seconds until so many ago, for ``study.add_trial``."""
    state = STATES.get(outcome, TrialState.FAIL)
    ended = {"outcome": outcome} if state.is_finished() else {}
    made = create_trial(
        state=state,
        values=list(values) or None,
        params=params or {},
        distributions={name: SPACE[name] for name in params or {}},
        user_attrs={"point": 0, **ended, **facts},
        intermediate_values=dict(enumerate(reports)),
    )
    end = datetime.now() - timedelta(seconds=ago)
    made.datetime_start = end - timedelta(seconds=seconds)
    made.datetime_complete = end if state.is_finished() else None
    return made
