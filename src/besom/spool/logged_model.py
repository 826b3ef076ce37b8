"""A trained model as MLflow keeps it: made, filled, linked with its run only when it is whole.

What ``mlflow.keras.log_model`` does, for a run that is named, and so that it can be done twice. Knows nothing of Keras:
it is given the folder that ``save_model`` wrote, whose ids were not known then.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from besom.spool.attempt import once
from besom.temporary import temporary_folder

UNKNOWN_ID = f"m-{'0' * 32}"
"""Stands in a saved model for the id that MLflow gives it."""


def log_model(
    client: Any,
    run_id: str,
    name: str,
    folder: Path,
    metrics: Callable[[str], list[Any]],
    tags: list[Any],
    check_place: Callable[[str], None],
    *,
    again: bool,
) -> str:
    """Log a saved model with the run's last numbers and tags, and return its id.

    Each call to MLflow is a transaction of its database, so numbers and tags share one.

    Args:
        check_place: raises where a model is not to be written.
        metrics: gives MLflow's metrics of the training, for the id of the model that they are shown with.
        again: whether it may have been done before, in part or wholly.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    run = client.get_run(run_id)
    logged = (_known(client, run, name) if again else None) or _made(client, run, name)
    check_place(logged.artifact_location)
    client.log_batch(run_id, metrics=metrics(logged.model_id), tags=tags)
    with temporary_folder() as draft:
        copy = draft / name
        shutil.copytree(folder, copy)
        _stamp(copy, run_id, logged)
        client.log_model_artifacts(logged.model_id, str(copy))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    outputs = run.outputs.model_outputs if run.outputs is not None else []
    if logged.model_id not in {output.model_id for output in outputs}:
        with once():
            client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return str(logged.model_id)


def _made(client: Any, run: Any, name: str) -> Any:
    with once():
        return client.create_logged_model(
            run.info.experiment_id, name=name, source_run_id=run.info.run_id, params=dict(run.data.params)
        )


def _known(client: Any, run: Any, name: str) -> Any:
    query = f"source_run_id = '{run.info.run_id}' AND name = '{name}'"
    found = client.search_logged_models([run.info.experiment_id], query, max_results=1)
    return found[0] if found else None


def _stamp(folder: Path, run_id: str, logged: Any) -> None:
    """Write the ids into the model's description."""
    from mlflow.models import Model

    description = Model.load(str(folder))
    description.run_id = run_id
    description.model_id = description.model_uuid = logged.model_id
    description.artifact_path = logged.artifact_location
    description.save(str(folder / "MLmodel"))
