"""What the process that trains tells MLflow about its one run: `RunLogger`.

Everything is kept in the object and every call names the run, so that a lane can train one trial
after another. Knows nothing of sweeps.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from besom.errors import ConfigError
from besom.experiments import fix_environment, import_mlflow, milliseconds, open_experiment, process_tags
from besom.paths import OUTSIDE_SWEEPS, SPOOL, Store
from besom.spool.attempt import bounded
from besom.spool.client import SECONDS, RunWriter, creation, made
from besom.spool.logged_model import UNKNOWN_ID
from besom.spool.operations import Artifacts, Batch, End, Input, Model, Point, param_batches, source_tags
from besom.temporary import temporary_folder
from besom.withheld import without_password

if TYPE_CHECKING:
    import keras

    from besom.data import Dataset

MODEL_NAME = "model"
"""A run's model is found under ``runs:/RUN_ID/model``."""
DIGEST_LENGTH = 36
"""MLflow's limit for a dataset's digest, in characters."""
STATES = {"FINISHED": "COMPLETE", "FAILED": "FAIL", "KILLED": "FAIL"}


class RunLogger:
    """Writes to one RUNNING run, or on disk while MLflow is away.

    Args:
        writer: the way into the run.
    """

    def __init__(self, writer: RunWriter) -> None:
        self._writer = writer
        self.run_id = writer.run_id

    @classmethod
    def attach(
        cls, uri: str, run_id: str, store: Store, trial: int | None = None, *, is_elsewhere: bool = False
    ) -> RunLogger:
        """Take over a run that the sweep's parent made; this process is the one that works on it now.

        Args:
            trial: its number.
            is_elsewhere: the parent is on another machine. Where MLflow is a file of SQLite, which two machines cannot
                write, what is logged waits for the parent.
        """
        fix_environment()
        waits = is_elsewhere and uri.startswith("sqlite:")
        writer = RunWriter(uri, store, spool_folder(store), run_id, trial, is_away=waits, is_quiet=waits)
        writer.write(Batch(tags=process_tags()))
        return cls(writer)

    @classmethod
    def start(cls, uri: str, experiments: dict[str, str], name: str, store: Store) -> RunLogger:
        """Make the run of one training outside a sweep.

        Args:
            experiments: the one that it is to be in, see `opened`.
        """
        [experiment] = experiments
        tags = {**source_tags(), "kind": "train", "state": "RUNNING"}
        create = creation(experiment, name, milliseconds(), tags)
        return cls(made(uri, store, store.spool(OUTSIDE_SWEEPS), create, experiments=experiments))

    def log_config(self, config: Mapping[str, Any]) -> None:
        """Log a config as params."""
        for batch in param_batches(config):
            self._writer.write(batch)

    @property
    def is_spooling(self) -> bool:
        """Whether MLflow is away, so that what is logged waits on disk."""
        return self._writer.is_spooling

    def log_epoch(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of one epoch, counted from 0."""
        self._writer.write(Batch(metrics=_points(metrics, step)))

    def log_stopped(self, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Log the last numbers and tags of a training that gave no model to show them with."""
        self._writer.write(Batch(metrics=_points(metrics), tags=tags))

    def log_dataset(self, dataset: Dataset) -> None:
        """Log what was trained on as the run's input: name, digest, split; not the images."""
        entity = {
            "name": dataset.name,
            "digest": dataset.digest[:DIGEST_LENGTH],
            "source_type": "code",
            "source": json.dumps({"tags": {"mlflow.source.name": "besom.data"}}),
            "schema": json.dumps(_dataset_schema(dataset)),
        }
        # MLflow keeps one entity for each digest, so what may differ between trials goes into tags
        tags = {
            "mlflow.data.context": "training",
            "n_train": str(len(dataset.x_train)),
            "n_val": str(len(dataset.x_val)),
            "split_digest": dataset.split_digest,
        }
        self._writer.write(Input(entity, tags))

    def log_folder(self, folder: Path) -> None:
        """Copy everything in a folder to the run's artifacts."""
        self._writer.write(Artifacts(), folder)

    def log_model(
        self, model: keras.Model, dataset: Dataset, metrics: Mapping[str, float], tags: Mapping[str, str]
    ) -> None:
        """Log a trained model with the run's last numbers and tags.

        What ``mlflow.keras.log_model`` does, but for a run that is named, and linked only when the
        model is whole, see `besom.spool.logged_model`.

        Args:
            metrics: about the whole training; MLflow shows them with the run and with the model.
        """
        digest = dataset.digest[:DIGEST_LENGTH]
        with temporary_folder() as home:
            folder = home / MODEL_NAME
            self._save(model, dataset, folder)
            self._writer.write(Model(MODEL_NAME, dataset.name, digest, _points(metrics), dict(tags)), folder)

    def end(self, status: str, reason: str | None = None) -> None:
        """End the run as ``FINISHED``, ``FAILED`` or ``KILLED``; a sweep's parent ends those of its trials."""
        tags = {"state": STATES[status], **({"reason": reason} if reason else {})}
        self._writer.write(End(status, milliseconds(), tags))

    def _save(self, model: keras.Model, dataset: Dataset, folder: Path) -> None:
        import mlflow.keras
        from mlflow.models import Model as Description

        mlflow.keras.save_model(
            model,
            str(folder),
            mlflow_model=Description(
                artifact_path=MODEL_NAME, run_id=self.run_id, model_uuid=UNKNOWN_ID, model_id=UNKNOWN_ID
            ),
            signature=_signature(model, dataset),
            conda_env=_environment(),
        )


def opened(uri: str, experiment: str, store: Store) -> dict[str, str]:
    """Return the id of an experiment by its name; it is made where it is missing.

    Raises:
        ConfigError: MLflow cannot be used, see `besom.experiments.open_experiment`.
    """
    import_mlflow(uri)
    try:
        _, experiment_id = bounded(partial(open_experiment, uri, experiment, store), SECONDS)
    except TimeoutError as error:
        raise ConfigError(f"MLflow at {without_password(uri)} cannot be used: {error}") from error
    return {experiment: experiment_id}


def spool_folder(store: Store) -> Path:
    """Return where the runs of this process wait: in the spool of the sweep that it works for, else outside."""
    return store.spool(os.environ.get(SPOOL) or OUTSIDE_SWEEPS)


def _points(metrics: Mapping[str, float], step: int = 0) -> list[Point]:
    now = milliseconds()
    return [(key, float(value), now, step) for key, value in metrics.items()]


def _environment() -> dict[str, Any]:
    """Return what the model needs, as a conda environment, from which MLflow writes ``requirements.txt``.

    To infer it takes MLflow 5 s; given a plain pip list it warns in every venv that has no pip.
    """
    packages = [f"{package}=={version(package)}" for package in ("mlflow", "keras", "tensorflow")]
    dependencies = [f"python={platform.python_version()}", "pip", {"pip": packages}]
    return {"name": "mlflow-env", "channels": ["conda-forge"], "dependencies": dependencies}


def _tensor(shape: tuple[int, ...], dtype: str = "float32") -> Any:
    """Return the MLflow schema of one tensor, ``shape`` without the batch."""
    import numpy as np
    from mlflow.types import Schema, TensorSpec

    return Schema([TensorSpec(np.dtype(dtype), (-1, *shape))])


def _signature(model: keras.Model, dataset: Dataset) -> Any:
    from mlflow.models import ModelSignature

    return ModelSignature(inputs=_tensor(dataset.input_shape), outputs=_tensor(model.output_shape[1:]))


def _dataset_schema(dataset: Dataset) -> dict[str, Any]:
    images, labels = _tensor(dataset.input_shape), _tensor((), str(dataset.y_train.dtype))
    return {"mlflow_tensorspec": {"features": images.to_json(), "targets": labels.to_json()}}
