"""The work that every peer does the same way: images, network, training, MLflow, results.

Written as Keras' and MLflow's documentation shows it. Keras and MLflow are imported late, so that a parent
that only hands out trials does not pay for them.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

GRID: dict[str, list[Any]] = {"filters_0": [3, 6], "filters_1": [6, 12], "activation": ["relu", "swish"]}
EXPERIMENT = "peers"
BATCH_SIZE = 32
LEARNING_RATE = 1e-3
TUNED_COMPILING = {"steps_per_execution": 25}
TUNED_FITTING = {"validation_batch_size": 1000}
"""What somebody adds who knows where Keras spends its time on small networks; both are besom's own settings too."""


def arguments(*flags: str) -> argparse.Namespace:
    """Return the options of a contestant: data, epochs, and flags of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True, help="npz with x_train, y_train, x_val, y_val")
    parser.add_argument("--epochs", type=int, default=3)
    for flag in flags:
        parser.add_argument(flag, action="store_true")
    return parser.parse_args()


@lru_cache
def load(path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return x_train, y_train, x_val, y_val: pixels 0 to 255 in float32, labels one-hot; read once a process."""
    with np.load(path) as file:
        x_train, y_train, x_val, y_val = (file[name] for name in ("x_train", "y_train", "x_val", "y_val"))
    one_hot = np.eye(10, dtype="float32")
    return x_train.astype("float32"), one_hot[y_train], x_val.astype("float32"), one_hot[y_val]


def network(filters_0: int, filters_1: int, activation: str, **compiling: Any) -> Any:
    """Return the compiled CNN.

    Args:
        compiling: more arguments of ``model.compile``.
    """
    import keras
    from keras import layers

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(filters_0, 5, activation=activation),
            layers.Conv2D(filters_1, 5, activation=activation),
            layers.Flatten(),
            layers.Dense(84, activation=activation),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.RMSprop(LEARNING_RATE),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
        **compiling,
    )
    return model


def fit(model: Any, data: Sequence[np.ndarray], epochs: int, callbacks: Sequence[Any] = (), **fitting: Any) -> Any:
    """Train the model and return Keras' history.

    Args:
        fitting: more arguments of ``model.fit``.
    """
    x_train, y_train, x_val, y_val = data
    return model.fit(
        x_train,
        y_train,
        batch_size=BATCH_SIZE,
        epochs=epochs,
        validation_data=(x_val, y_val),
        callbacks=list(callbacks),
        verbose=0,
        **fitting,
    )


def open_mlflow() -> str:
    """Make MLflow's database and experiment in the working folder, for this process and those it starts.

    Before any trial: of two processes that make the tables at once, one fails. Returns the URI.
    """
    uri = os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{Path.cwd() / 'mlflow.db'}"
    os.environ["MLFLOW_EXPERIMENT_NAME"] = EXPERIMENT
    import mlflow

    mlflow.set_experiment(EXPERIMENT)
    return uri


def epoch_logger() -> Any:
    """Return the Keras callback that logs the metrics of each epoch to the active MLflow run."""
    import keras
    import mlflow

    return keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: mlflow.log_metrics(logs, step=epoch))


def log_model(model: Any) -> None:
    """Log the model to the active run; MLflow would need 5 s to find out what is said here."""
    import mlflow.keras
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    pixels, classes = (Schema([TensorSpec(np.dtype("float32"), shape)]) for shape in ((-1, 28, 28, 1), (-1, 10)))
    mlflow.keras.log_model(
        model,
        name="model",
        signature=ModelSignature(inputs=pixels, outputs=classes),
        pip_requirements=[f"{package}=={version(package)}" for package in ("mlflow", "keras", "tensorflow")],
    )


def trial(params: Mapping[str, Any], data: Sequence[np.ndarray], epochs: int, tuned: bool) -> dict[str, Any]:
    """Train one configuration into an MLflow run of its own and return its result."""
    import mlflow

    compiling, fitting = tuning(tuned)
    model = network(**params, **compiling)
    with mlflow.start_run():
        mlflow.log_params(params)
        started = time.perf_counter()
        history = fit(model, data, epochs, [epoch_logger()], **fitting)
        seconds = time.perf_counter() - started
        log_model(model)
    return result(params, history.history["val_accuracy"], seconds, model.count_params())


def tuning(wanted: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return more arguments of ``model.compile`` and of ``model.fit``; none where not wanted."""
    return (TUNED_COMPILING, TUNED_FITTING) if wanted else ({}, {})


def result(params: Mapping[str, Any], by_epoch: Sequence[float], seconds: float, n_params: int) -> dict[str, Any]:
    """Return what is reported of one configuration; ``seconds`` are those inside ``model.fit``."""
    accuracies = [float(value) for value in by_epoch]
    return {
        "params": {name: params[name] for name in GRID},
        "val_accuracy": max(accuracies),
        "val_accuracy_by_epoch": accuracies,
        "seconds": seconds,
        "n_params": n_params,
    }


def write_results(results: Sequence[Mapping[str, Any]]) -> None:
    """Leave the results where the runner looks for them: in the working folder."""
    Path("results.json").write_text(json.dumps(list(results), indent=1), encoding="utf-8")
