"""What the process that trains tells MLflow about its one run: `RunLogger`.

Everything is kept in the object and every call names the run, so that a lane can train one trial
after another. Knows nothing of sweeps.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from besom.paths import Store
from besom.tracking import (
    create_run,
    fix_environment,
    log_tags,
    log_values,
    milliseconds,
    open_experiment,
    process_tags,
    run_tags,
)

if TYPE_CHECKING:
    import keras

    from besom.data import Dataset

MODEL_NAME = "model"
"""A run's model is found under ``runs:/RUN_ID/model``."""
DIGEST_LENGTH = 36
"""MLflow's limit for a dataset's digest, in characters."""
STATES = {"FINISHED": "COMPLETE", "FAILED": "FAIL", "KILLED": "FAIL"}


class RunLogger:
    """Writes to one RUNNING run.

    Args:
        client: an ``MlflowClient``.
        run: the run, as the client returns it.
    """

    def __init__(self, client: Any, run: Any) -> None:
        self._client = client
        self._experiment_id = str(run.info.experiment_id)
        self._params = dict(run.data.params)
        self.run_id = str(run.info.run_id)

    @classmethod
    def attach(cls, uri: str, run_id: str) -> RunLogger:
        """Take over a run that the sweep's parent made; this process is the one that works on it now."""
        fix_environment()
        from mlflow import MlflowClient

        client = MlflowClient(uri)
        log_tags(client, run_id, process_tags())
        return cls(client, client.get_run(run_id))

    @classmethod
    def start(cls, uri: str, experiment: str, name: str, config: Mapping[str, Any]) -> RunLogger:
        """Make the run of one training outside a sweep.

        Raises:
            ConfigError: MLflow cannot be used, see `besom.tracking.open_experiment`.
        """
        client, experiment_id = open_experiment(uri, experiment, Store.at(config["paths"]["store"]))
        run_id = create_run(client, experiment_id, name, config, {"kind": "train", "state": "RUNNING"})
        return cls(client, client.get_run(run_id))

    def log_epoch(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of one epoch, counted from 0."""
        log_values(self._client, self.run_id, metrics, step)

    def log_stopped(self, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Log the last numbers and tags of a training that gave no model to show them with."""
        from mlflow.entities import Metric

        now = milliseconds()
        numbers = [Metric(key, float(value), now, 0) for key, value in metrics.items()]
        self._client.log_batch(self.run_id, metrics=numbers, tags=run_tags(tags))

    def log_dataset(self, dataset: Dataset) -> None:
        """Log what was trained on as the run's input: name, digest, split; not the images."""
        from mlflow.entities import Dataset as DatasetEntity
        from mlflow.entities import DatasetInput, InputTag

        entity = DatasetEntity(
            name=dataset.name,
            digest=dataset.digest[:DIGEST_LENGTH],
            source_type="code",
            source=json.dumps({"tags": {"mlflow.source.name": "besom.data"}}),
            schema=json.dumps(_dataset_schema(dataset)),
        )
        # MLflow keeps one entity for each digest, so what may differ between trials goes into tags
        tags = {
            "mlflow.data.context": "training",
            "n_train": str(len(dataset.x_train)),
            "n_val": str(len(dataset.x_val)),
            "split_digest": dataset.split_digest,
        }
        inputs = DatasetInput(entity, [InputTag(key, value) for key, value in tags.items()])
        self._log_inputs([inputs])

    def _log_inputs(self, inputs: list[Any]) -> None:
        """Log datasets, once more where another lane has logged the same ones at that moment.

        MLflow looks for the dataset and then inserts it; of two that do so at once the database refuses the second.
        """
        from mlflow.exceptions import MlflowException

        try:
            self._client.log_inputs(self.run_id, datasets=inputs)
        except MlflowException:
            self._client.log_inputs(self.run_id, datasets=inputs)

    def log_folder(self, folder: Path) -> None:
        """Copy everything in a folder to the run's artifacts."""
        self._client.log_artifacts(self.run_id, str(folder))

    def log_model(
        self, model: keras.Model, dataset: Dataset, metrics: Mapping[str, float], tags: Mapping[str, str]
    ) -> str:
        """Log a trained model with the run's last numbers and tags, and return its MLflow id.

        What ``mlflow.keras.log_model`` does, but for a run that is named, and linked only when the
        model is whole. Each call to MLflow is a transaction of its database, so numbers and tags share one.

        Args:
            metrics: about the whole training; MLflow shows them with the run and with the model.
        """
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus

        logged = self._client.create_logged_model(
            self._experiment_id, name=MODEL_NAME, source_run_id=self.run_id, params=self._params
        )
        self._log_last(logged.model_id, dataset, metrics, tags)
        with TemporaryDirectory() as folder:
            self._save(model, dataset, logged, f"{folder}/{MODEL_NAME}")
            self._client.log_model_artifacts(logged.model_id, f"{folder}/{MODEL_NAME}")
        self._client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
        self._client.log_outputs(self.run_id, [LoggedModelOutput(logged.model_id, step=0)])
        return str(logged.model_id)

    def end(self, status: str, reason: str | None = None) -> None:
        """End the run as ``FINISHED``, ``FAILED`` or ``KILLED``; a sweep's parent ends those of its trials."""
        log_tags(self._client, self.run_id, {"state": STATES[status], **({"reason": reason} if reason else {})})
        self._client.set_terminated(self.run_id, status)

    def _save(self, model: keras.Model, dataset: Dataset, logged: Any, folder: str) -> None:
        import mlflow.keras
        from mlflow.models import Model

        mlflow.keras.save_model(
            model,
            folder,
            mlflow_model=Model(
                artifact_path=logged.artifact_location,
                run_id=self.run_id,
                model_uuid=logged.model_id,
                model_id=logged.model_id,
            ),
            signature=_signature(model, dataset),
            conda_env=_environment(),
        )

    def _log_last(self, model_id: str, dataset: Dataset, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Metric

        now, digest = milliseconds(), dataset.digest[:DIGEST_LENGTH]
        with_model = [
            Metric(key, float(value), now, 0, model_id=model_id, dataset_name=dataset.name, dataset_digest=digest)
            for key, value in metrics.items()
        ]
        self._client.log_batch(self.run_id, metrics=with_model, tags=run_tags(tags))


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
