"""The model of a run as a file that is safe to hand on: the network built anew, the run's weights in it, their hash
checked. What else is in the stored file stays there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from besom.compare.catalog import MOST_BYTES, StoredRun, refuse_bulk
from besom.configs.config import typed
from besom.configs.stored import read_stored
from besom.errors import BesomError, ConfigError, NotFound, one_line
from besom.quiet import native_stderr_hushed
from besom.retrain.stored_model import StoredModel, location_of, weights_hashes
from besom.seeding import fix_runtime
from besom.temporary import temporary_folder


@dataclass(frozen=True)
class Shapes:
    """What goes into a model and what comes out, by the signature that it was stored with: no image is needed."""

    input_shape: tuple[int, int, int]
    n_classes: int


def save_model(run: StoredRun, content: Mapping[str, Any], file: Path) -> None:
    """Save the model of a run with a trusted config under a name that ends in ``.keras``.

    Raises:
        NotFound: the run has no model, or its files are gone.
        BesomError: it is not the one that the trial trained.
    """
    weights_hashes(run)  # before TensorFlow is imported: a run without a model is told at once
    fix_runtime(typed(content).train.threads)
    with native_stderr_hushed():
        import keras

        keras.ops.zeros(1)  # the first operation looks for a GPU, and complains where there is none
    with temporary_folder() as folder:
        stored = StoredModel.fetch(run, folder)
        network = stored.network(content, shapes_of(run, folder))
    network.save(file)


def shapes_of(run: StoredRun, folder: Path) -> Shapes:
    """Return the shapes of a run's stored model; its description is copied into a folder.

    Raises:
        NotFound: the run has no model, or its description is gone.
        ConfigError: that is elsewhere than it may be, no plain file, or too large.
        BesomError: it has no signature as besom stores it.
    """
    location = location_of(run)
    refuse_bulk(location, "MLmodel", MOST_BYTES)
    import mlflow.artifacts

    try:
        path = mlflow.artifacts.download_artifacts(f"{location}/MLmodel", dst_path=str(folder), tracking_uri=run.uri)
    except Exception as error:  # MLflow raises another class for each kind of artifact store
        raise NotFound(f"the model of run {run.run_id} cannot be read: {one_line(error)}") from error
    try:
        signature = read_stored(Path(path).read_text(encoding="utf-8"), "MLmodel")["signature"]
        (_, height, width, channels), (_, n_classes) = (_shape(signature[side]) for side in ("inputs", "outputs"))
        return Shapes((int(height), int(width), int(channels)), int(n_classes))
    except (ConfigError, KeyError, IndexError, TypeError, ValueError) as error:
        raise BesomError(
            f"the signature of the model of run {run.run_id} cannot be read ({one_line(error)}); expected one tensor "
            "in, one out, as besom stores it"
        ) from error


def _shape(text: str) -> list[Any]:
    [tensor] = json.loads(text)
    shape: list[Any] = tensor["tensor-spec"]["shape"]
    return shape
