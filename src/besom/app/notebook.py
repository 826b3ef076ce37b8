"""What a notebook asks of a store: `runs`, `study`, `load` and `images`, which ``besom`` itself offers.

Only reads. Importing it imports nothing heavy. It fixes neither threads nor seeds: the notebook may have imported
TensorFlow with settings of its own, and who loads a model trains nothing.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from besom.errors import BesomError, DataError, one_line
from besom.temporary import temporary_folder

MOST_PARAMS = 50_000_000
"""Of a network of somebody's own builder, whose size only its run says."""

if TYPE_CHECKING:
    import keras
    import numpy as np
    import optuna
    import pandas as pd
    from numpy.typing import NDArray

    from besom.compare.catalog import StoredRun
    from besom.paths import Store


def runs(sweep: str, store: str | Path | None = None, *, lost_too: bool = False) -> pd.DataFrame:
    """Return the trials of a sweep as a table, one row a trial, as ``besom runs`` shows them.

    Args:
        sweep: its name, such as ``"quick"``.
        store: the folder to read; by default ``BESOM_STORE``, else the project's ``mlruns``.
        lost_too: with the attempts that died with their lane or parent.

    Raises:
        NotFound: there is no such store or sweep.
    """
    with _without_widgets():
        from besom.compare.frame import frame

    return frame(study(sweep, store), lost_too=lost_too)


def study(sweep: str, store: str | Path | None = None) -> optuna.Study:
    """Return the Optuna study of a sweep, for Optuna's own plots and importances.

    It is the store's own, not a copy: to read, not to ``tell`` or ``optimize``, which `besom sweep` alone may do.

    Raises:
        NotFound: there is no such store or sweep.
    """
    with _without_widgets():
        from besom.compare.catalog import open_study

    from besom.upkeep.moved import say_if_moved

    found = _store(store)
    say_if_moved(found)
    return open_study(found, sweep)


def load(run_or_sweep: str, store: str | Path | None = None) -> keras.Model:
    """Return the trained model of a run, or of a sweep's best trial, after its weights' hash was checked.

    Of a network of besom's own only the numbers are read from the file. One of a builder of yours Keras reads in its
    safe mode: Python code in the file is refused, and layers of your own need the module that registers them
    (``keras.saving.register_keras_serializable``) imported before.

    Args:
        run_or_sweep: a sweep's name for its champion, ``SWEEP/NUMBER`` for one of its trials, or an MLflow run id.
        store: as in `runs`.

    Raises:
        NotFound: there is no such run or sweep, or it has no model.
        BesomError: the model cannot be read, or its weights are not those that the trial trained.

    Example:
        >>> model = besom.load("quick")
        >>> model.predict(besom.images("quick")[0]).argmax(axis=1)
    """
    return _read_model(_run(run_or_sweep, store))


def images(
    run_or_sweep: str, store: str | Path | None = None, *, allow: Sequence[str] = ()
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the validation images of a run, or of a sweep's best trial, as its model saw them, and their labels.

    The test images stay locked.

    Args:
        run_or_sweep: as in `load`.
        store: as in `runs`.
        allow: packages that a loader may be imported from, as ``--allow`` of `besom reproduce`.

    Returns:
        Images, float32 of shape (n_val, height, width, channels), and labels of shape (n_val,); read-only.

    Raises:
        NotFound: there is no such run or sweep.
        ConfigError: the config is none, its images come from a loader of a package that is not allowed, or, coming from
            a server, from a file outside the project around the working directory.
        DataError: the data is gone, or no longer what the model was trained on.
    """
    from besom import data
    from besom.configs.config import typed
    from besom.retrain.trust import trusted_content

    run = _run(run_or_sweep, store)
    content = trusted_content({**run.config(), "model": {}}, run, allow)  # whoever builds the model is not asked here
    dataset = data.load(typed(content).data)
    now = {"fingerprint.data": dataset.digest, "fingerprint.split": dataset.split_digest}
    if changed := [name for name, digest in now.items() if run.tags.get(name, digest) != digest]:
        raise DataError(
            f"the images of run {run.run_id} are no longer those it was trained on ({', '.join(changed)} differs); "
            f"expected the same file as then, or train on the new ones"
        )
    return dataset.x_val, dataset.y_val


@contextmanager
def _without_widgets() -> Iterator[None]:
    """Import Optuna without tqdm's word about the widgets that its bars would be in a notebook: none is shown here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")
        yield


def _store(given: str | Path | None) -> Store:
    from besom.compare.catalog import store_of

    return store_of(given)


def _run(run_or_sweep: str, store: str | Path | None) -> StoredRun:
    with _without_widgets():
        from besom.compare.catalog import find_run

    from besom.upkeep.moved import refuse_moved

    found = _store(store)
    refuse_moved(found)  # the model is where MLflow's address says
    return find_run(found, run_or_sweep)


def _read_model(run: StoredRun) -> Any:
    """Read a run's model without touching the tracking URI that the notebook may have set for itself."""
    from besom.configs.config import typed
    from besom.configs.schema import CnnConfig
    from besom.export.model_file import shapes_of
    from besom.retrain.stored_model import StoredModel, weights_hashes
    from besom.retrain.weights_file import refuse_bomb

    weights_hashes(run)  # before TensorFlow is imported: a run without a model is told at once
    content = run.config()
    is_own = isinstance(typed(content).model, CnnConfig)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # else TensorFlow greets with the CPU's instruction sets
    from besom.quiet import native_stderr_hushed

    with native_stderr_hushed():
        import keras

        keras.ops.zeros(1)  # the first operation looks for a GPU, and complains where there is none

    with temporary_folder() as folder:
        stored = StoredModel.fetch(run, folder)
        if is_own:
            return stored.filled(content, shapes_of(run, folder))
        try:
            refuse_bomb(stored.file, _n_params(run))
            # by Keras itself: mlflow.keras would take a SavedModel too where the stored MLmodel says so, and
            # TensorFlow runs what is in one
            model = keras.saving.load_model(stored.file, safe_mode=True)
        except Exception as error:  # of the file, its zip, its JSON, its weights, or a layer that Keras does not know
            raise BesomError(f"the model of run {run.run_id} cannot be read: {one_line(error)}") from error
    stored.check(model)
    return model


def _n_params(run: StoredRun) -> int:
    """Return how many parameters a run says that its network has, none where it says nothing that can be."""
    said = run.client.get_run(run.run_id).data.metrics.get("n_params", 0.0)
    return int(said) if 0 <= said <= MOST_PARAMS else 0
