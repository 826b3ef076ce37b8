"""One trial from its config to its MLflow run, in this process: alone, inside a sweep, pruned and failed."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from omegaconf import OmegaConf

from besom.app.store import create_store
from besom.configs.config import typed
from besom.errors import GeometryError, NonFinite, TrialPruned
from besom.fingerprint import array_sha256, history_sha256, weights_sha256
from besom.paths import Store
from besom.reporting import TrialHandle, running
from besom.tracking import MlflowTracker
from besom.trial import trial

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
    "predictions.csv", "fingerprint.json",
}  # fmt: skip
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


def files(client: Any, run: Any) -> set[str]:
    return {file.path for file in client.list_artifacts(run.info.run_id)}


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
    once = {"objective", "best_epoch", "n_params", "n_macs", "fit_seconds"}
    assert set(run.data.metrics) == once | {"train_loss", "train_accuracy", "val_loss", "val_accuracy"}
    assert [point.step for point in client.get_metric_history(run.info.run_id, "val_loss")] == [0, 1]
    assert files(client, run) == FILES
    assert run.inputs.dataset_inputs[0].dataset.name == "mnist_5k"
    assert len(run.outputs.model_outputs) == 1
    file = client.download_artifacts(run.info.run_id, "fingerprint.json", str(tmp_path))
    stored = json.loads(Path(file).read_text())
    assert {f"fingerprint.{part}" for part in stored} | HASHES <= set(run.data.tags)
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
    assert set(handle.facts) == {"n_val", "n_params", "n_macs", "best_epoch", "fit_seconds", *HASHES}
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
    assert "objective" not in run.data.metrics
    assert files(client, run) == {"config.yaml", "layers.csv"}


def test_a_failed_trial_of_a_sweep_leaves_its_traceback_in_the_log(
    store: Store, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_for(store, learning_rate=1e30, optimizer="sgd")
    handle, _ = in_sweep(store, config)
    with running(handle), caplog.at_level(logging.ERROR), pytest.raises(NonFinite, match=r"^train_loss became nan"):
        trial.run(config)
    assert "the trial failed" in caplog.text
    assert "NonFinite: train_loss became nan" in caplog.text
    assert files(client, client.get_run(handle.run_id)) == {"config.yaml", "layers.csv"}


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
    assert files(client, run) == FILES - {"layers.csv"}
    file = Path(client.download_artifacts(run.info.run_id, "confusion_matrix.csv", str(tmp_path)))
    assert [line.partition(",")[0] for line in file.read_text().splitlines()] == ["truth", "0", "1"]
