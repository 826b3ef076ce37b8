"""One trial from its config to its MLflow run, in this process: alone, inside a sweep, pruned and failed."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from omegaconf import OmegaConf
from test_convolutions import naive

from besom import data
from besom.app.store import create_store
from besom.configs.config import tracked_leaves, typed
from besom.errors import ConfigError, DataError, GeometryError, NonFinite, TrialPruned
from besom.fingerprint import PARTS, array_sha256, history_sha256, weights_sha256
from besom.paths import Store
from besom.reporting import TrialHandle, running
from besom.tracking import MlflowTracker
from besom.trial import trial
from besom.trial.outcome import Fit

pytestmark = [
    # MLflow silences it itself, but not where warnings are errors
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
    # MLflow's own mappers, with SQLAlchemy 2.1
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    # Keras' own conversion of variables, with NumPy 2
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

FILES = {
    "config.yaml", "layers.csv", "learning_curve.png", "confusion_matrix.csv", "confusion_matrix.png",
    "predictions.csv", "mistakes.csv", "mistakes.png", "fingerprint.json", "filters", "feature_maps",
    "requirements.txt",
}  # fmt: skip
STOPPED_FILES = {"config.yaml", "layers.csv", "fingerprint.json", "requirements.txt"}
FINGERPRINT = {f"fingerprint.{part}" for part in PARTS}
HASHES = {"weights_sha256", "history_sha256", "predictions_sha256"}


def pair(count: int = 60) -> tuple[Any, Any]:
    """A user's own loader: black and white images of 6x6."""
    labels = np.arange(count) % 2
    return np.full((count, 6, 6), 255, np.uint8) * labels[:, None, None].astype(np.uint8), labels


def flat(input_shape: tuple[int, ...], n_classes: int) -> keras.Model:
    """A user's own builder."""
    inputs = keras.Input(input_shape)
    outputs = keras.layers.Dense(n_classes, "softmax")(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, outputs)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store.at(tmp_path_factory.mktemp("project") / "mlruns")
    create_store(made)
    return made


@pytest.fixture(scope="module")
def client(store: Store) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(store.mlflow_uri)


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def config_for(store: Store, **train: Any) -> dict[str, Any]:
    return {
        "data": {"_target_": "besom.data.mnist_5k", "n_train": 130, "n_val": 50, "n_test": 50},
        "model": {"_target_": "besom.model.cnn", "conv": [{"filters": 2, "kernel_size": 5, "strides": 2}], "dense": 8},
        "train": {"epochs": 2, **train},
        "tracking": {"uri": None, "experiment": "alone"},
        "paths": {"store": str(store.root)},
    }


def newest(client: Any, experiment: str = "alone") -> Any:
    found = client.get_experiment_by_name(experiment)
    return client.search_runs([found.experiment_id], order_by=["attributes.start_time DESC"])[0]


def files(client: Any, run: Any, folder: str | None = None) -> set[str]:
    """Return the names of a run's artifacts, whether there is a change to the code that is not committed or not."""
    return {file.path for file in client.list_artifacts(run.info.run_id, folder)} - {"uncommitted.diff"}


def in_sweep(store: Store, config: Mapping[str, Any], prune_at: int | None = None) -> tuple[TrialHandle, list[int]]:
    """Return the handle of a sweep's trial, its run made as the parent makes it, and the steps reported to it."""
    tracker = MlflowTracker()
    tracker.open_sweep("search", config)
    steps: list[int] = []

    def channel(step: int, value: float) -> bool:
        steps.append(step)
        return step == prune_at

    return TrialHandle(3, tracker.start_trial(3, config, {}), channel), steps


def test_training_once_gives_everything_that_is_compared(store: Store) -> None:
    epochs: list[tuple[int, set[str]]] = []
    outcome = trial.train_once(typed(config_for(store)), lambda epoch, metrics: epochs.append((epoch, set(metrics))))
    metrics = {"train_loss", "train_accuracy", "val_loss", "val_accuracy"}
    assert epochs == [(0, metrics), (1, metrics)]
    assert outcome.probabilities.shape == (50, 10)
    assert outcome.probabilities.dtype == np.float32
    right = outcome.probabilities.argmax(axis=1) == outcome.dataset.y_val
    assert np.mean(right) == pytest.approx(outcome.fit.objective)
    assert outcome.n_params == outcome.model.count_params()
    assert outcome.hashes == {
        "weights_sha256": weights_sha256(outcome.model.get_weights()),
        "history_sha256": history_sha256(outcome.fit.history),
        "predictions_sha256": array_sha256(outcome.probabilities),
    }
    assert outcome.fingerprint["data"] == outcome.dataset.digest
    assert outcome.fingerprint["threads"] == 1


def test_a_training_alone_leaves_a_finished_run_with_all_that_it_found(
    store: Store, client: Any, tmp_path: Path
) -> None:
    config = config_for(store)
    objective = trial.run(OmegaConf.create(config))
    run = newest(client)
    assert (run.info.status, run.data.tags["state"]) == ("FINISHED", "COMPLETE")
    assert run.data.metrics["objective"] == objective
    once = {"objective", "best_epoch", "n_params", "n_macs", "fit_seconds", "latency_ms"}
    assert set(run.data.metrics) == once | {"train_loss", "train_accuracy", "val_loss", "val_accuracy"}
    assert [point.step for point in client.get_metric_history(run.info.run_id, "val_loss")] == [0, 1]
    assert 0 < run.data.metrics["latency_ms"] < 1000
    assert files(client, run) == FILES
    assert files(client, run, "filters") == {"filters/conv_0.png"}
    assert files(client, run, "feature_maps") == {"feature_maps/conv_0.png", "feature_maps/maps.npz"}
    assert run.inputs.dataset_inputs[0].dataset.name == "mnist_5k"
    assert len(run.outputs.model_outputs) == 1
    file = client.download_artifacts(run.info.run_id, "fingerprint.json", str(tmp_path))
    stored = json.loads(Path(file).read_text())
    parts = {f"fingerprint.{part}" for part in stored if part != "sources"}  # too many for a tag
    assert parts | HASHES <= set(run.data.tags)
    assert run.data.tags["fingerprint.code"] == stored["code"]
    again = trial.train_once(typed(config), lambda epoch, metrics: None)
    assert {name: run.data.tags[name] for name in HASHES} == again.hashes


def test_a_trial_of_a_sweep_trains_into_the_run_that_the_sweep_made(store: Store, client: Any) -> None:
    config = config_for(store)
    handle, steps = in_sweep(store, config)
    with running(handle):
        objective = trial.run(config)
    run = client.get_run(handle.run_id)
    assert run.info.status == "RUNNING"  # its parent ends it
    assert steps == [0, 1]
    assert run.data.metrics["objective"] == objective
    assert set(handle.facts) == {"n_val", "n_params", "n_macs", "best_epoch", "fit_seconds", "latency_ms", *HASHES}
    assert json.loads(json.dumps(handle.facts)) == handle.facts
    assert handle.facts["n_params"] == run.data.metrics["n_params"]
    assert files(client, run) == FILES


def test_a_pruned_trial_records_what_it_has_and_raises_what_the_sweep_knows(store: Store, client: Any) -> None:
    config = config_for(store, epochs=5)
    handle, steps = in_sweep(store, config, prune_at=1)
    with running(handle), pytest.raises(TrialPruned, match=r"^pruned at step 1 with 0\.\d+$") as caught:
        trial.run(config)
    assert type(caught.value) is TrialPruned
    assert steps == [0, 1]
    assert set(handle.facts) == {"n_val", "n_params", "n_macs", "best_epoch", "fit_seconds"}
    run = client.get_run(handle.run_id)
    assert [point.step for point in client.get_metric_history(handle.run_id, "val_accuracy")] == [0, 1]
    once = {"best_epoch", "n_params", "n_macs", "fit_seconds"}
    assert set(run.data.metrics) == once | {"train_loss", "train_accuracy", "val_loss", "val_accuracy"}
    assert set(run.data.tags) >= FINGERPRINT
    assert not HASHES & set(run.data.tags)
    assert files(client, run) == STOPPED_FILES | {"learning_curve.png"}


def test_a_failed_trial_of_a_sweep_leaves_its_traceback_in_the_log(
    store: Store, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_for(store, learning_rate=1e30, optimizer="sgd")
    handle, _ = in_sweep(store, config)
    with running(handle), caplog.at_level(logging.ERROR), pytest.raises(NonFinite, match=r"^train_loss became nan"):
        trial.run(config)
    assert "the trial failed" in caplog.text
    assert "NonFinite: train_loss became nan" in caplog.text
    run = client.get_run(handle.run_id)
    assert files(client, run) == STOPPED_FILES  # there is no number to draw
    assert set(run.data.tags) >= FINGERPRINT
    assert "fit_seconds" not in handle.facts


def test_a_trial_that_fails_after_some_epochs_leaves_these(
    store: Store, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(store, epochs=5)
    handle, steps = in_sweep(store, config)

    def report(step: int, value: float) -> None:
        handle.channel(step, value)
        if step == 1:
            raise ValueError("the wire was cut")

    monkeypatch.setattr("besom.trial.training.report", report)
    with running(handle), pytest.raises(ValueError, match="the wire was cut"):
        trial.run(config)
    run = client.get_run(handle.run_id)
    assert steps == [0, 1]
    accuracies = [point.value for point in client.get_metric_history(handle.run_id, "val_accuracy")]
    assert run.data.metrics["best_epoch"] == accuracies.index(max(accuracies))
    assert run.data.metrics["fit_seconds"] == handle.facts["fit_seconds"] > 0
    assert {"n_params", "n_macs"} <= set(run.data.metrics)
    assert files(client, run) == STOPPED_FILES | {"learning_curve.png"}


EPOCHS = {"val_loss": [0.5, 0.2, 0.3, math.nan], "val_accuracy": [0.7, 0.8, 0.9, 0.95]}


@pytest.mark.parametrize(
    ("history", "objective", "expected"),
    [
        (EPOCHS, "val_accuracy", (2, 0.9)),
        (EPOCHS, "val_loss", (1, 0.2)),
        ({"val_loss": [math.inf], "val_accuracy": [0.5]}, "val_accuracy", None),
        ({"own_metric": [0.5]}, "val_accuracy", None),
        ({}, "val_accuracy", None),
    ],
    ids=["an accuracy", "a loss", "no number", "another metric", "no epoch"],
)
def test_the_best_epoch_so_far_is_one_that_is_all_numbers(
    history: dict[str, list[float]], objective: str, expected: tuple[int, float] | None
) -> None:
    fit = Fit.so_far(history, objective, 3.0)
    assert (fit if fit is None else (fit.best_epoch, fit.objective)) == expected


def test_a_trial_without_data_leaves_its_config_and_size(store: Store, client: Any) -> None:
    config = config_for(store)
    config["data"] = {"_target_": "besom.data.mnist_5k", "n_train": 6000}
    config["tracking"]["experiment"] = "no data"
    with pytest.raises(DataError, match="6000"):
        trial.run(config)
    run = newest(client, "no data")
    assert (run.info.status, run.data.tags["state"]) == ("FAILED", "FAIL")
    assert "DataError: " in run.data.tags["reason"]
    assert set(run.data.metrics) == {"n_params", "n_macs"}
    assert files(client, run) == {"config.yaml", "layers.csv", "requirements.txt"}


def test_ctrl_c_is_heard_while_a_server_says_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "8")
    config = config_for(store)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        config["tracking"]["uri"] = f"http://127.0.0.1:{mute.getsockname()[1]}"

        def interrupt() -> None:
            connection, _ = mute.accept()  # it is asked now
            with connection:
                os.kill(os.getpid(), signal.SIGINT)
                end.wait(20)

        end = threading.Event()
        thread = threading.Thread(target=interrupt, daemon=True)
        thread.start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            trial.run(config)
        assert time.monotonic() - began < 7
        end.set()
        thread.join()


def test_a_server_that_says_nothing_is_told_in_a_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("besom.trial.run_logger.SECONDS", 0.3)
    config = config_for(store)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        config["tracking"]["uri"] = f"http://127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(ConfigError, match=r"^MLflow at http://127.0.0.1:\d+ cannot be used: no answer in 0.3 sec"):
            trial.run(config)


def test_a_network_that_does_not_fit_its_images_leaves_no_run(store: Store, client: Any) -> None:
    config = config_for(store)
    config["model"]["conv"] = [{"kernel_size": 29}]
    config["tracking"]["experiment"] = "never"
    with pytest.raises(GeometryError, match=r"model.conv.0.kernel_size=29 does not fit the 28.28.1 feature map"):
        trial.run(config)
    assert client.get_experiment_by_name("never") is None


def test_a_users_own_loader_and_builder_are_trained_like_besoms(store: Store, client: Any, tmp_path: Path) -> None:
    config = config_for(store, epochs=1, objective="val_loss")
    config["data"] = {"_target_": f"{__name__}.pair", "count": 80, "n_val": 10, "n_test": 10, "rescale": "unit"}
    config["model"] = {"_target_": f"{__name__}.flat"}
    config["tracking"]["experiment"] = "own"
    trial.run(config)
    run = newest(client, "own")
    assert run.data.metrics["n_params"] == 36 * 2 + 2
    assert "n_macs" not in run.data.metrics
    assert files(client, run) - {"mistakes.png"} == FILES - {"layers.csv", "filters", "feature_maps", "mistakes.png"}
    file = Path(client.download_artifacts(run.info.run_id, "confusion_matrix.csv", str(tmp_path)))
    assert [line.partition(",")[0] for line in file.read_text().splitlines()] == ["truth", "0", "1"]


def test_the_stored_feature_maps_are_convolutions_of_the_stored_weights(
    store: Store, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.keras

    config = config_for(store)
    config["data"]["rescale"] = "unit"
    config["model"]["conv"] = [
        {"filters": 3, "kernel_size": 5, "padding": "same", "strides": 2},
        {"filters": 4, "kernel_size": 3, "batch_norm": True, "pool": 2, "dropout": 0.5},
        {"filters": 2, "kernel_size": 2},
    ]
    trial.run(config)
    run_id = newest(client).info.run_id
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.mlflow_uri)
    model = mlflow.keras.load_model(f"runs:/{run_id}/model")
    with np.load(client.download_artifacts(run_id, "feature_maps/maps.npz", str(tmp_path))) as kept:
        image, maps = kept["image"], [kept[f"conv_{number}"] for number in range(3)]
    np.testing.assert_array_equal(image, data.load(config["data"]).x_val[0])
    for number, found in enumerate(maps):
        layer = model.get_layer(f"conv_{number}")
        inputs = keras.Model(model.input, layer.input)(image[np.newaxis], training=False)[0]
        expected = naive(np.asarray(inputs), *layer.get_weights(), layer.padding, layer.strides)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def monitors() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "SystemMetricsMonitor"]


@pytest.mark.parametrize("fails", [False, True])
def test_system_metrics_are_logged_while_a_trial_runs_however_it_ends(
    store: Store, client: Any, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    config = config_for(store)
    config["tracking"]["system_metrics"] = True
    seen: list[list[str]] = []

    def train(*args: Any) -> Any:
        seen.append(monitors())
        assert mlflow.active_run() is None
        time.sleep(0.7)
        if fails:
            raise NonFinite("no number")
        return once(*args)

    once = trial.train_once
    monkeypatch.setattr(trial, "train_once", train)
    handle, _ = in_sweep(store, config)
    with running(handle), pytest.raises(NonFinite) if fails else nullcontext():
        trial.run(config)
    assert seen == [["SystemMetricsMonitor"]]
    assert monitors() == []
    run = client.get_run(handle.run_id)
    assert run.info.status == "RUNNING"
    assert 0 <= run.data.metrics["system/cpu_utilization_percentage"] <= 100
    assert run.data.metrics["system/system_memory_usage_megabytes"] > 0
    assert len(client.get_metric_history(handle.run_id, "system/cpu_utilization_percentage")) >= 3
    assert not [name for name in handle.facts if "system" in name]


def test_without_being_asked_no_system_metrics_are_logged(store: Store, client: Any) -> None:
    handle, _ = in_sweep(store, config_for(store))
    with running(handle):
        trial.run(config_for(store))
    assert not [name for name in client.get_run(handle.run_id).data.metrics if name.startswith("system/")]


def test_system_metrics_are_of_no_account_to_a_result(store: Store, client: Any) -> None:
    plain, watched = config_for(store), config_for(store)
    watched["tracking"]["system_metrics"] = True
    assert tracked_leaves(plain) == tracked_leaves(watched)
    one, other = (trial.train_once(typed(config), lambda epoch, metrics: None) for config in (plain, watched))
    assert one.fingerprint == other.fingerprint
    assert one.hashes == other.hashes
