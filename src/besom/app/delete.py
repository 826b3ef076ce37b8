"""`besom delete`: a sweep goes wholly, so that its name can be used again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from besom.compare import champion
from besom.contained import refuse_deleting_outside
from besom.errors import BesomError, ConfigError
from besom.lock import parent_lock
from besom.paths import Store
from besom.storage import delete_study, find_study, has_storage
from besom.study_lock import study_lock
from besom.tracking import checked_file, is_given, mlflow_client, uri_of
from besom.uris import HTTP
from besom.whereabouts import place_of, storage_of
from besom.withheld import withheld

if TYPE_CHECKING:
    from optuna import Study


HALF_DELETED = "half_deleted"
"""User attribute of a study whose runs may be gone already: a sweep does not go on with it, but starts over."""


def is_half_deleted(study: Study | None) -> bool:
    """Tell whether somebody began to delete a sweep and was killed."""
    return study is not None and HALF_DELETED in study.user_attrs


def refuse_to_replace(store: Store, name: str, url: str) -> None:
    """Raise `ConfigError` where a server has trials of a sweep that this store has nothing of.

    They may be somebody else's, who uses the same server.
    """
    if url == store.studies_uri or store.sweep(name).is_dir():
        return
    study = find_study(url, name)
    if study is None or is_half_deleted(study):
        return
    if n_trials := len(study.get_trials(deepcopy=False)):
        raise ConfigError(
            f"{place_of(store, url)} has {n_trials} trials of sweep '{name}', and {store.root} has nothing of it: "
            f"--fresh would delete what may be somebody else's; expected another --name, or first: besom delete {name}"
        )


def delete_sweep(store: Store, name: str) -> None:
    """Delete a sweep that nobody runs.

    Raises:
        SweepLocked: a living process works on it.
        ConfigError: some of its files lie outside the store.
    """
    with parent_lock(store.lock(name), name):
        delete_locked(store, name)


def delete_locked(store: Store, name: str) -> None:
    """Delete a sweep whose lock is held: runs, artifacts, folders; what is not there is passed over.

    The study goes last: interrupted, the same call still finds the sweep and goes on.
    """
    checked_file(uri_of(store, name))  # before anything is marked as half gone
    _refuse_outside(store, name)
    url = storage_of(store, name)
    with study_lock(url, name):  # what a sweep is begun anew in may be another server than where it was
        _delete(store, name, url)


def _delete(store: Store, name: str, url: str) -> None:
    study = find_study(url, name)
    if study is not None:
        study.set_user_attr(HALF_DELETED, True)
    _delete_runs(store, name, study.user_attrs.get("id") if study is not None else None)
    for page in (store.reports / f"{name}.html", store.reports / f"{name}.csv"):
        page.unlink(missing_ok=True)
    shutil.rmtree(store.artifacts / name, ignore_errors=True)
    shutil.rmtree(store.spool(name), ignore_errors=True)
    if url != store.studies_uri:  # its folder knows where it is
        delete_study(url, name)
    shutil.rmtree(store.sweep(name), ignore_errors=True)
    if url == store.studies_uri and has_storage(url):
        delete_study(url, name)


def _refuse_outside(store: Store, name: str) -> None:
    """Raise `ConfigError` where what would be deleted lies outside the store: who made it may have meant that."""
    uri, database, experiment = uri_of(store, name), None, None
    if uri.startswith("sqlite:") and not is_given(uri):
        database = checked_file(uri)
    if database is not None:
        found = mlflow_client(uri).get_experiment_by_name(name)
        experiment = None if found is None else str(found.experiment_id)
    refuse_deleting_outside(store, name, database, experiment)


def _delete_runs(store: Store, name: str, study: str | None) -> None:
    uri = uri_of(store, name)
    client = mlflow_client(uri)
    champion.forget(client, name, study)
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return
    active = experiment.lifecycle_stage == "active"
    if active and uri.startswith(HTTP):  # a server empties its trash itself; the name must be free now
        client.rename_experiment(experiment.experiment_id, f"{name}-deleted-{time.time_ns()}")
    if active:
        client.delete_experiment(experiment.experiment_id)
    if not uri.startswith(HTTP):
        _refuse_outside(store, name)  # once more: the database may do more than it was told
        _collect(uri, name, str(experiment.experiment_id))


def _collect(uri: str, name: str, experiment_id: str) -> None:
    """Have MLflow's own collector remove a deleted experiment: until then it keeps the name."""
    command = [sys.executable, "-m", "mlflow", "gc", "--experiment-ids", experiment_id]
    # by environment, because everybody can read a command line
    where = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_BACKEND_STORE_URI": uri}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **where})
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BesomError(f"MLflow could not delete experiment '{name}' for good: {withheld(last)}")
