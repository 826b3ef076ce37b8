"""The runs of an experiment as they are checked: out of a database that is only read, or from a server.

Of the database MLflow's tables are read as they are: MLflow itself would write when it opens it, and takes 2 s.
"""

from __future__ import annotations

import math
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

EPOCH_METRICS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
OF_EXPERIMENT = (
    "run_uuid in (select run_uuid from runs join experiments using (experiment_id) where experiments.name = ?)"
)


@dataclass(frozen=True)
class RunRecord:
    """One run.

    Args:
        ended: Unix milliseconds, None where it has no end.
        steps: of each metric of epochs, in order.
        params: a few that say how far it was to be trained; all of them from a server.
        models: addresses of the models that it logged, None where nobody asked.
    """

    run_id: str
    name: str
    status: str
    ended: int | None
    artifacts: str
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    steps: Mapping[str, list[int]] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    models: list[str] | None = None

    @property
    def kind(self) -> str | None:
        return self.tags.get("kind")


def in_database(database: sqlite3.Connection, experiment: str) -> list[RunRecord]:
    """Return the runs of an experiment that are not in the trash, none where there is no such experiment."""
    tags = _texts(database, "tags", experiment)
    params = _texts(database, "params", experiment)
    metrics: dict[str, dict[str, float]] = defaultdict(dict)
    query = f"select run_uuid, key, value, is_nan from latest_metrics where {OF_EXPERIMENT}"
    for run_id, key, value, is_nan in database.execute(query, [experiment]):
        metrics[run_id][key] = math.nan if is_nan else value
    steps, models = _steps(database, experiment), _models(database, experiment)
    query = (
        "select run_uuid, name, status, end_time, artifact_uri from runs where lifecycle_stage = 'active' and "
        f"{OF_EXPERIMENT} order by start_time"
    )
    return [
        RunRecord(
            *(run_id, name, status, ended, artifacts),
            *(tags[run_id], metrics[run_id], steps[run_id], params[run_id], models[run_id]),
        )
        for run_id, name, status, ended, artifacts in database.execute(query, [experiment])
    ]


def _texts(database: sqlite3.Connection, table: str, experiment: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for run_id, key, value in database.execute(
        f"select run_uuid, key, value from {table} where {OF_EXPERIMENT}", [experiment]
    ):
        found[run_id][key] = value
    return found


def _steps(database: sqlite3.Connection, experiment: str) -> dict[str, dict[str, list[int]]]:
    found: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    keys = ", ".join(f"'{key}'" for key in EPOCH_METRICS)
    query = f"select distinct run_uuid, key, step from metrics where key in ({keys}) and {OF_EXPERIMENT} order by step"
    for run_id, key, step in database.execute(query, [experiment]):
        found[run_id][key].append(step)
    return found


def _models(database: sqlite3.Connection, experiment: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    query = (
        "select inputs.source_id, logged_models.artifact_location from inputs join logged_models on "
        "inputs.destination_id = logged_models.model_id join runs on runs.run_uuid = inputs.source_id "
        "join experiments on experiments.experiment_id = runs.experiment_id "
        "where inputs.source_type = 'RUN_OUTPUT' and experiments.name = ? order by inputs.step"
    )
    for run_id, location in database.execute(query, [experiment]):
        found[run_id].append(location)
    return found


def experiments_in(database: sqlite3.Connection) -> list[str]:
    """Return the names of the experiments that are not in the trash."""
    return [name for (name,) in database.execute("select name from experiments where lifecycle_stage = 'active'")]


def on_server(client: Any, experiment: str) -> list[RunRecord]:
    """Return the same of a server; ``client`` is an ``MlflowClient``."""
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return []
    every, token = [], None
    while True:
        page = client.search_runs([found.experiment_id], page_token=token)
        every += [_of_server(client, run) for run in page]
        token = page.token
        if not token:
            return every


def _of_server(client: Any, run: Any) -> RunRecord:
    steps = {key: _history(client, run, key) for key in EPOCH_METRICS if key in run.data.metrics}
    info = run.info
    return RunRecord(
        *(str(info.run_id), str(info.run_name), str(info.status), info.end_time, str(info.artifact_uri)),
        *(dict(run.data.tags), dict(run.data.metrics), steps, dict(run.data.params)),
    )


def _history(client: Any, run: Any, key: str) -> list[int]:
    return sorted({point.step for point in client.get_metric_history(run.info.run_id, key)})
