"""A store with a sweep in it that nobody trained, whole for who reads it: study, runs, artifacts, results."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from stored import study_in, trial

from besom.app.store import create_store
from besom.databases import fold_in
from besom.paths import Store
from besom.results import TrialResult
from besom.tracking import MlflowTracker, log_tags, log_values

ARTIFACTS = {
    "config.yaml": "data: {}\nmodel: {activation: swish}\ntrain: {seed: 1}\n",
    "fingerprint.json": '{"packages": {"python": "3.11"}}\n',
    "predictions.csv": "p0,t0,predicted,truth\n0.90,1,0,0\n",
}
HASHES = {f"{name}_sha256": "a" * 64 for name in ("weights", "history", "predictions")}


def small_store(folder: Path) -> Store:
    """Make a store with the sweep `quick`, which has two trials."""
    store = Store(folder)
    create_store(store)
    tracker, study = MlflowTracker(), study_in(store, "quick", total=2)
    study.set_user_attr("settings", {})
    tracker.open_sweep("quick", {"paths": {"store": str(store.root)}, "tracking": {"uri": None}})
    for number, accuracy in enumerate((0.9, 0.8)):
        run_id = tracker.start_trial(number, {"model": {"activation": "swish"}, "train": {"seed": number}}, {})
        log_values(tracker._client, run_id, {"val_accuracy": accuracy, "objective": accuracy, "fit_seconds": 1.0})
        log_tags(tracker._client, run_id, {"fingerprint.data": '"one"', **HASHES})
        artifacts = store.artifacts / "quick" / run_id / "artifacts"
        artifacts.mkdir(parents=True)
        for name, text in ARTIFACTS.items():
            (artifacts / name).write_text(text)
        tracker.end_trial(run_id, "COMPLETE", None, died=False)
        job = store.job("quick", number)
        job.mkdir(parents=True)
        TrialResult(number, "COMPLETE", [accuracy], facts=HASHES).write(job, "id of quick")
        study.add_trial(trial("complete", [accuracy], run_id=run_id, **HASHES))
    for database in (store.mlflow_db, store.studies_db):
        fold_in(database)
    return store


def copied(store: Store, folder: Path) -> Store:
    """Copy a store, its artifacts with it."""
    copy = Store(folder)
    shutil.copytree(store.root, copy.root)
    with closing(sqlite3.connect(copy.mlflow_db)) as database, database:
        for table, column in (("runs", "artifact_uri"), ("experiments", "artifact_location")):
            places = (str(store.root), str(copy.root))
            database.execute(f"update {table} set {column} = replace({column}, ?, ?)", places)
    fold_in(copy.mlflow_db)
    return copy
