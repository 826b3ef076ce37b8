"""`besom delete`: a sweep goes wholly, so that its name can be used again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from besom.catalog import trials_of
from besom.errors import BesomError
from besom.lock import refuse_if_locked
from besom.paths import Store
from besom.study import delete_study


def delete_sweep(store: Store, name: str) -> None:
    """Delete a sweep's runs, artifacts, study and job folders; what is not there is passed over.

    The study goes last but for the folders: interrupted, the same call finds the sweep and goes on.

    Raises:
        SweepLocked: a living process runs the sweep.
    """
    refuse_if_locked(store.lock(name), name)
    _delete_runs(os.environ.get("MLFLOW_TRACKING_URI") or store.mlflow_uri, name)
    shutil.rmtree(store.artifacts / name, ignore_errors=True)
    if trials_of(store.studies_uri, name) or store.studies_db.exists():
        delete_study(store.studies_uri, name)
    shutil.rmtree(store.sweep(name), ignore_errors=True)


def _delete_runs(uri: str, name: str) -> None:
    from besom.tracking import fix_environment

    fix_environment()
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return
    if experiment.lifecycle_stage == "active":
        client.delete_experiment(experiment.experiment_id)
    # MLflow keeps deleted experiments, and their names, until its own collector has run
    command = [sys.executable, "-m", "mlflow", "gc", "--experiment-ids", str(experiment.experiment_id)]
    collected = subprocess.run(
        [*command, "--backend-store-uri", uri, "--tracking-uri", uri], capture_output=True, text=True, check=False
    )
    if collected.returncode != 0:
        last = (collected.stderr.strip().splitlines() or ["no message"])[-1]
        raise BesomError(f"MLflow could not delete experiment '{name}' for good: {last}")
