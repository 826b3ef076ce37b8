"""What a training of `besom reproduce` or `besom confirm` could not tell MLflow is there before it is compared."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from besom.app.store import create_store
from besom.errors import BesomError
from besom.paths import OUTSIDE_SWEEPS, Store
from besom.results import TrialResult
from besom.retrain.lanes import Training, pass_on, train_all
from besom.spool.client import RunWriter
from besom.spool.deliver import Delivered, deliver
from besom.spool.operations import Batch
from besom.tracking import open_experiment

EPOCH = Batch(metrics=[("val_loss", 0.5, 1_000, 0), ("objective", 0.9, 1_000, 0)])
DONE = TrialResult(-1, "COMPLETE", [0.9])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.at(tmp_path / "mlruns")
    create_store(made)
    return made


def begun(store: Store, uri: str) -> tuple[Any, Training]:
    """Return a client and a training whose run has an epoch that waits."""
    client, experiment = open_experiment(store.mlflow_uri, "again", store)
    training = Training({"paths": {"store": str(store.root)}}, uri, client.create_run(experiment).info.run_id)
    RunWriter(uri, store, store.spool(OUTSIDE_SWEEPS), training.run_id, is_away=True).write(EPOCH)
    return client, training


def test_it_is_told_while_its_lane_lives(store: Store) -> None:
    client, training = begun(store, store.mlflow_uri)
    pass_on(training, DONE)
    run = client.get_run(training.run_id)
    assert (run.data.metrics, run.info.status) == ({"val_loss": 0.5, "objective": 0.9}, "RUNNING")  # the caller ends it
    assert not store.spools.exists()
    pass_on(training, DONE)


def test_while_it_waits_nothing_is_compared_and_its_end_waits_with_it(store: Store) -> None:
    client, training = begun(store, store.mlflow_uri)
    with closing(sqlite3.connect(store.mlflow_db, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BesomError, match=r"^MLflow was not told all of run .* \(.* locked\): it waits in ") as why:
            pass_on(training, DONE)
        other.execute("ROLLBACK")
    assert (why.value.exit_code, "'besom repair'" in str(why.value)) == (1, True)
    assert deliver(store, OUTSIDE_SWEEPS, store.mlflow_uri, lambda run_ids: None) == Delivered(1)
    run = client.get_run(training.run_id)
    assert (run.info.status, run.data.tags["state"], run.data.metrics["objective"]) == ("FINISHED", "COMPLETE", 0.9)


@pytest.mark.service  # a lane with TensorFlow
def test_a_training_that_had_to_wait_is_whole_when_its_result_is_given(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client, begun_ = begun(store, store.mlflow_uri)
    content = {
        "data": {"_target_": "besom.data.mnist_5k", "n_train": 130, "n_val": 50, "n_test": 50},
        "model": {"_target_": "besom.model.cnn", "conv": [{"filters": 2, "kernel_size": 5, "strides": 2}], "dense": 8},
        "train": {"epochs": 2},
        "tracking": {"experiment": "again"},
        "paths": {"store": str(store.root)},
    }
    training = Training(content, store.mlflow_uri, begun_.run_id)
    [(place, result)] = train_all([training], n_lanes=1, threads=1, fresh=False)
    assert (place, result.state) == (0, "COMPLETE")
    assert len(client.get_metric_history(training.run_id, "train_loss")) == 2
    assert client.get_run(training.run_id).data.tags["weights_sha256"] == result.facts["weights_sha256"]
    assert not store.spools.exists()
