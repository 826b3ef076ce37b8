"""`besom train`: one tracked run, its states, and the seed notebook to the number."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from conftest import BesomCommand

SMALL = ("train.epochs=1", "data.n_train=200", "model.conv.0.strides=3")


def runs(folder: Path) -> list[dict[str, Any]]:
    """Return status and tags of each run in a store."""
    with sqlite3.connect(folder / "mlruns" / "mlflow.db") as database:
        found = database.execute("select run_uuid, status from runs").fetchall()
        return [
            {"status": status, **dict(database.execute("select key, value from tags where run_uuid = ?", (run_id,)))}
            for run_id, status in found
        ]


def test_train_is_one_finished_run(project: Path, besom_command: BesomCommand) -> None:
    done = besom_command("train", *SMALL, cwd=project)
    assert done.returncode == 0, done.stderr
    (run,) = runs(project)
    assert (run["status"], run["kind"], run["state"]) == ("FINISHED", "train", "COMPLETE")
    assert len(run["weights_sha256"]) == 64
    assert "port.cc" not in done.stderr


def test_a_loss_that_is_no_number_is_a_failed_run_with_its_reason(project: Path, besom_command: BesomCommand) -> None:
    done = besom_command("train", *SMALL, "train.optimizer=sgd", "train.learning_rate=1e30", cwd=project)
    assert done.returncode == 1
    assert "became nan in epoch 0" in done.stderr
    assert "Traceback" not in done.stderr
    (run,) = runs(project)
    assert (run["status"], run["state"]) == ("FAILED", "FAIL")


@pytest.mark.service  # for the time that it takes
def test_multirun_trains_every_combination(project: Path, besom_command: BesomCommand) -> None:
    done = besom_command("train", "-m", *SMALL, "model.activation=relu,tanh", cwd=project)
    assert done.returncode == 0, done.stderr
    assert [run["status"] for run in runs(project)] == ["FINISHED"] * 2


def test_the_summary_of_the_baseline_is_the_seeds(project: Path, besom_command: BesomCommand) -> None:
    shown = json.loads(besom_command("summary", "experiment=baseline", "--format", "json", cwd=project).stdout)
    assert [layer["params"] for layer in shown["layers"]] == [0, 78, 456, 0, 201_684, 850]
    assert shown["n_params"] == 203_068


@pytest.mark.service  # for the time that it takes
@pytest.mark.skipif("BESOM_MNIST_NPZ" not in os.environ, reason="BESOM_MNIST_NPZ does not name the whole MNIST")
def test_the_whole_mnist_trains_from_a_file(project: Path, besom_command: BesomCommand) -> None:
    data = ("experiment=baseline", f"data.path={os.environ['BESOM_MNIST_NPZ']}", "train.epochs=1", "data.n_train=5000")
    done = besom_command("train", *data, cwd=project)
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(project / "mlruns" / "mlflow.db") as database:
        metrics = dict(database.execute("select key, value from latest_metrics"))
    assert metrics["n_params"] == 203_068
    assert metrics["val_accuracy"] > 0.85
