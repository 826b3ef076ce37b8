"""The model that a run stored, read without running anything that is in its file.

The network is built anew from the run's config, which has passed `besom.retrain.trust.trusted`; out of the file come
numbers only, and their hash is checked. Knows nothing of what the model is then used for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from besom.compare.catalog import StoredRun, refuse_bulk
from besom.configs.config import typed
from besom.contained import refuse_outside
from besom.errors import BesomError, NotFound, one_line
from besom.fingerprint import weights_sha256
from besom.retrain.weights_file import refuse_bomb
from besom.uris import refuse_remote_artifacts

if TYPE_CHECKING:
    import keras

MODEL_FILE = "data/model.keras"
"""In the folder of a logged Keras model."""
MOST_BYTES = 4_000_000_000
"""Of such a file, before anybody knows its network."""


class Shaped(Protocol):
    """What of a data set a network depends on; a `besom.data.Dataset` has it."""

    @property
    def input_shape(self) -> tuple[int, int, int]: ...

    @property
    def n_classes(self) -> int: ...


@dataclass(frozen=True)
class StoredModel:
    """A copy of a run's ``model.keras``.

    Args:
        hashes: every stored copy of the hash of its weights: the run's tag, and the study's.
    """

    run_id: str
    file: Path
    hashes: frozenset[str]

    @classmethod
    def fetch(cls, run: StoredRun, folder: Path) -> StoredModel:
        """Copy a run's model into a folder.

        Raises:
            NotFound: the run has no model, or its file is gone.
            ConfigError: the file is elsewhere than it may be, no plain file, or too large.
        """
        hashes = weights_hashes(run)
        location = location_of(run)
        refuse_bulk(location, MODEL_FILE, MOST_BYTES)
        import mlflow.artifacts

        uri = f"{location}/{MODEL_FILE}"
        try:
            path = mlflow.artifacts.download_artifacts(uri, dst_path=str(folder), tracking_uri=run.uri)
        except Exception as error:  # MLflow raises another class for each kind of artifact store
            raise NotFound(
                f"the model of run {run.run_id} cannot be read: no {MODEL_FILE}: {one_line(error)}"
            ) from error
        return cls(run.run_id, Path(path), hashes)

    def network(self, content: Mapping[str, Any], dataset: Shaped) -> keras.Model:
        """Return the run's network with the weights out of the file; in a process that may import TensorFlow.

        Args:
            content: the run's trusted config.

        Raises:
            BesomError: the file does not hold the weights of this network, or not those that the trial trained.
        """
        from besom.trial import training

        training.start_trial(typed(content).train)
        return self.filled(content, dataset)

    def filled(self, content: Mapping[str, Any], dataset: Shaped) -> keras.Model:
        """Return the same in a process of somebody else, whose seeds and threads stay as they are; see `network`."""
        from besom import model

        config = typed(content)
        built = model.build(config.model, dataset.input_shape, dataset.n_classes)
        try:
            refuse_bomb(self.file, built.count_params())
            built.load_weights(str(self.file))
        except Exception as error:  # of the file, its zip or HDF5, or a layer that has other weights
            raise BesomError(f"the model of run {self.run_id} cannot be read: {one_line(error)}") from error
        self.check(built)
        return built

    def check(self, model: keras.Model) -> None:
        """Raise `BesomError` unless a model has the weights whose hash every copy says it is."""
        found = weights_sha256(model.get_weights())
        if self.hashes != {found}:
            stored = " and ".join(sorted(f"{one[:12]}…" for one in self.hashes))
            raise BesomError(
                f"the weights of run {self.run_id} have the hash {found[:12]}…, but the store holds {stored}: one or "
                f"the other was changed since; 'besom reproduce {self.run_id}' trains it again"
            )


def weights_hashes(run: StoredRun) -> frozenset[str]:
    """Return every stored copy of the hash of a run's weights.

    Raises:
        NotFound: the run ended before it had a model.
    """
    name = "weights_sha256"
    if name not in run.tags:
        raise NotFound(f"run {run.run_id} ended before it had a model; expected one that is COMPLETE")
    return frozenset({run.tags[name], run.study_hashes.get(name, run.tags[name])})


def location_of(run: StoredRun) -> str:
    """Return where MLflow keeps the model of a run.

    Raises:
        NotFound: the run has no model.
        ConfigError: its location is a server that the run is not of, or outside the store.
    """
    outputs = run.client.get_run(run.run_id).outputs
    if outputs is None or not outputs.model_outputs:
        raise NotFound(f"run {run.run_id} has no model; expected one that is COMPLETE")
    location = str(run.client.get_logged_model(outputs.model_outputs[-1].model_id).artifact_location)
    refuse_remote_artifacts(run.uri, location)
    if run.location is not None:
        refuse_outside(run.store, location)
    return location
