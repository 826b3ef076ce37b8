"""An MLflow server that is slow, gone or broken costs a sweep seconds, no trial, no number, no file.

Real: ``mlflow server`` behind a proxy that fails on demand, and besom's own command.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import BesomCommand, Folder, until
from proxy import Proxy
from servers import mlflow_server

pytestmark = [pytest.mark.service, pytest.mark.timeout(1200)]

TRIALS = 3
SMALL = ("quick", "--trials", str(TRIALS), "train.epochs=2", "data.n_train=200", "hydra.launcher.n_lanes=2")
EPOCH_METRICS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
ARTIFACTS = {"config.yaml", "fingerprint.json", "learning_curve.png", "layers.csv", "trial.log"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, clean_environment: dict[str, str]) -> Iterator[str]:
    """Return the address of ``mlflow server``."""
    with mlflow_server(tmp_path_factory.mktemp("server"), clean_environment) as address:
        yield address


@pytest.fixture
def proxy(server: str) -> Iterator[Proxy]:
    made = Proxy(server)
    yield made
    made.close()


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory, besom_command: BesomCommand) -> dict[int, str]:
    """The weights of each trial where nothing fails."""
    folder = Folder(tmp_path_factory.mktemp("healthy"), besom_command)
    folder.besom("sweep", *SMALL)
    return weights(folder, "quick")


def weights(folder: Folder, name: str) -> dict[int, str]:
    trials = folder.json("runs", name)["trials"]
    assert {one["state"] for one in trials} == {"COMPLETE"}
    return {one["number"]: one["weights_sha256"] for one in trials}


@pytest.fixture
def sweep(proxy: Proxy, tmp_path: Path, besom_command: BesomCommand) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return ``sweep(*args)``, which runs the small sweep, through the proxy, under a name of this test."""
    folder = Folder(tmp_path, besom_command)

    def run(*args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        return folder.besom(
            "sweep", *SMALL, "--name", tmp_path.name.strip("_"), f"tracking.uri={proxy.address}", *args, code=code
        )

    return run


def spooled(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "mlruns" / "spool").rglob("*") if path.is_file()]


def check_whole(server: str, tmp_path: Path, besom_command: BesomCommand) -> None:
    """MLflow has every run of the sweep once, as if nothing had failed."""
    from mlflow import MlflowClient

    name, client = tmp_path.name.strip("_"), MlflowClient(server)
    experiment = client.get_experiment_by_name(name)
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    assert {run.info.status for run in runs} == {"FINISHED"}
    [parent] = [run for run in runs if run.data.tags["kind"] == "sweep"]
    assert (parent.data.metrics["n_complete"], parent.info.end_time >= parent.info.start_time) == (TRIALS, True)
    trials = [run for run in runs if run.data.tags["kind"] == "trial"]
    assert sorted(int(run.data.tags["trial"]) for run in trials) == list(range(TRIALS))
    rows = {one["number"]: one for one in Folder(tmp_path, besom_command).json("runs", name)["trials"]}
    for run in trials:
        row = rows[int(run.data.tags["trial"])]
        assert (row["run_id"], row["weights_sha256"]) == (run.info.run_id, run.data.tags["weights_sha256"])
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["state"] == "COMPLETE"
        assert run.data.metrics["objective"] == row["objective"]
        assert run.data.params["train.epochs"] == "2"
        for metric in EPOCH_METRICS:
            assert [point.step for point in client.get_metric_history(run.info.run_id, metric)] == [0, 1]
        assert {file.path for file in client.list_artifacts(run.info.run_id)} >= ARTIFACTS
        assert len(run.inputs.dataset_inputs) == 1
        [output] = run.outputs.model_outputs
        model = client.get_logged_model(output.model_id)
        assert (str(model.status), model.source_run_id) == ("READY", run.info.run_id)
        assert [metric.key for metric in model.metrics if metric.key == "objective"] == ["objective"]
        assert 0 < run.info.end_time - run.info.start_time < 240_000
    models = client.search_logged_models([experiment.experiment_id])
    assert len(models) == TRIALS
    assert spooled(tmp_path) == []


def test_a_slow_server_is_waited_for_and_nothing_is_spooled(
    server: str, proxy: Proxy, sweep: Any, healthy: dict[int, str], tmp_path: Path, besom_command: BesomCommand
) -> None:
    proxy.seconds = 0.2
    proxy.turn("delay")
    said = sweep().stderr
    assert proxy.hits["delay"] > 50
    assert "does not answer" not in said
    assert weights(Folder(tmp_path, besom_command), tmp_path.name.strip("_")) == healthy
    check_whole(server, tmp_path, besom_command)


@pytest.mark.parametrize(
    ("mode", "part"),
    [
        ("refuse", "runs/log-inputs"),
        ("500", "logged-models"),
        ("cut", "runs/create"),
        ("hang", "runs/log-batch"),
        pytest.param("refuse", "runs/create", marks=pytest.mark.torture),
        pytest.param("cut", "logged-models", marks=pytest.mark.torture),
        pytest.param("cut", "mlflow-artifacts", marks=pytest.mark.torture),
        pytest.param("reset", "mlflow-artifacts", marks=pytest.mark.torture),
        pytest.param("500", "runs/update", marks=pytest.mark.torture),
        pytest.param("hang", "logged-models", marks=pytest.mark.torture),
        pytest.param("hang", "runs/create", marks=pytest.mark.torture),
    ],
)
def test_a_server_that_goes_for_good_in_the_middle_costs_no_trial_and_the_next_start_tells_it_all(
    mode: str,
    part: str,
    server: str,
    proxy: Proxy,
    sweep: Any,
    healthy: dict[int, str],
    tmp_path: Path,
    besom_command: BesomCommand,
) -> None:
    folder, name = Folder(tmp_path, besom_command), tmp_path.name.strip("_")
    proxy.at(part, mode, 2 if part == "runs/create" else 1)  # the first one is the sweep's own run
    began = time.monotonic()
    said = sweep().stderr
    assert time.monotonic() - began < 200
    assert proxy.hits[mode] >= 1
    assert said.count("does not answer") == 1
    assert "the sweep's charts are not in MLflow yet" in said
    assert weights(folder, name) == healthy
    assert folder.json("status", name)["undelivered"] >= 1
    assert spooled(tmp_path)
    proxy.on_request = lambda path: None
    proxy.turn("pass")
    sweep()
    check_whole(server, tmp_path, besom_command)
    assert folder.json("status", name)["undelivered"] == 0


def test_a_server_that_is_gone_for_a_while_gets_all_in_the_same_start(
    server: str, proxy: Proxy, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    proxy.at("runs/log-inputs", "refuse")
    sweep = [*(sys.executable, "-m", "besom", "sweep", *SMALL, "--trials", "6"), f"tracking.uri={proxy.address}"]
    said = ""
    with subprocess.Popen(
        sweep, cwd=tmp_path, env=clean_environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            said += line
            if "does not answer" in line:
                proxy.turn("pass")
    assert process.returncode == 0, said
    assert proxy.hits["refuse"] >= 1
    assert said.count("does not answer") == 1
    assert said.count("answers again: all that waited is delivered") == 1
    assert spooled(tmp_path) == []


def test_a_sweep_whose_server_never_answered_is_refused_and_nothing_is_made(
    proxy: Proxy, sweep: Any, tmp_path: Path
) -> None:
    proxy.turn("500")
    refused = sweep(code=2)
    assert f"MLflow at {proxy.address} cannot be used: it answers with HTTP 500" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "mlruns").exists()


def test_a_resume_goes_on_without_its_server(
    server: str, proxy: Proxy, sweep: Any, healthy: dict[int, str], tmp_path: Path, besom_command: BesomCommand
) -> None:
    folder, name = Folder(tmp_path, besom_command), tmp_path.name.strip("_")
    sweep("--trials", "1")
    proxy.turn("refuse")
    sweep()
    assert weights(folder, name) == healthy
    rows = folder.json("runs", name)["trials"]
    assert [one["run_id"].startswith("spooled-") for one in rows] == [False, True, True]
    waits = folder.besom("diff", f"{name}/1", f"{name}/2", code=2).stderr
    assert "is not in MLflow yet: it waits in" in waits
    proxy.turn("pass")
    sweep()
    check_whole(server, tmp_path, besom_command)


def test_a_training_outside_a_sweep_is_spooled_and_told_and_delivered_by_the_next(
    server: str, proxy: Proxy, tmp_path: Path, besom_command: BesomCommand
) -> None:
    from mlflow import MlflowClient

    folder = Folder(tmp_path, besom_command)
    train = ("train", "train.epochs=1", "data.n_train=100", f"tracking.uri={proxy.address}")
    proxy.at("runs/log-inputs", "refuse")
    said = folder.besom(*train, "tracking.experiment=alone").stderr
    assert "besom: MLflow does not answer; run " in said
    assert spooled(tmp_path)
    proxy.on_request = lambda path: None
    proxy.turn("pass")
    folder.besom(*train, "tracking.experiment=alone")
    assert spooled(tmp_path) == []
    client = MlflowClient(server)
    runs = client.search_runs([client.get_experiment_by_name("alone").experiment_id])
    assert [(run.info.status, len(run.outputs.model_outputs)) for run in runs] == [("FINISHED", 1)] * 2


def test_a_store_that_another_program_locks_for_a_minute_loses_nothing(
    healthy: dict[int, str], tmp_path: Path, besom_command: BesomCommand, clean_environment: dict[str, str]
) -> None:
    folder, database = Folder(tmp_path, besom_command), tmp_path / "mlruns" / "mlflow.db"
    command = [sys.executable, "-m", "besom", "sweep", *SMALL]
    with subprocess.Popen(
        command, cwd=tmp_path, env=clean_environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        until(lambda: bool(list((tmp_path / "mlruns" / "jobs" / "quick").glob("0/*.log"))), 120)
        with sqlite3.connect(database, timeout=30, isolation_level=None) as other:
            other.execute("BEGIN EXCLUSIVE")
            since = time.monotonic()
            until(lambda: bool(spooled(tmp_path)))
            time.sleep(max(0.0, since + 60 - time.monotonic()))
            other.execute("ROLLBACK")
        _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert weights(folder, "quick") == healthy
    folder.besom("sweep", *SMALL)
    assert spooled(tmp_path) == []
    statuses = folder.mlflow("select status, count(*) from runs group by status")
    assert statuses == [("FINISHED", TRIALS + 1)]
    names = folder.mlflow("select count(*) from metrics where key = 'val_accuracy'")
    assert names == [(2 * TRIALS,)]
    assert folder.mlflow("select status, count(*) from logged_models group by status") == [(2, TRIALS)]
    assert json.loads((tmp_path / "mlruns" / "jobs" / "quick" / "0" / "result.json").read_text())["state"] == "COMPLETE"
