"""Finds sweeps and runs by name in a store; only reads, and never makes a store."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from besom.errors import NotFound, did_you_mean
from besom.paths import Store
from besom.storage import find_study, has_storage, load_study, study_names
from besom.sweep.tally import Tally
from besom.tracking import fix_environment, uri_of


def trials_of(storage: str, name: str) -> list[Any]:
    """Return the trials of a sweep, none where it does not exist."""
    study = find_study(storage, name)
    return [] if study is None else study.get_trials(deepcopy=False)


def no_store(store: Store) -> NotFound:
    """Return the error of a reader that finds no store."""
    return NotFound(
        f"no store at {store.root}; make one with 'besom sweep quick', or name it with --store or BESOM_STORE"
    )


def refuse_unknown(store: Store, name: str) -> None:
    """Raise `NotFound` unless the store has a sweep of that name."""
    if not store.exists:
        raise no_store(store)
    known = study_names(store.studies_uri) if has_storage(store.studies_uri) else []
    if name not in known:
        there = f"there is {', '.join(known)}" if known else "there is none yet"
        raise NotFound(f"no sweep '{name}' in {store.root}; {there}{did_you_mean(name, known)}")


@dataclass(frozen=True)
class StoredRun:
    """One run as MLflow has it.

    Args:
        sweep: name of its sweep, None outside one.
        study_hashes: the hashes that the study holds for the trial, beside those in the tags.
    """

    uri: str
    run_id: str
    experiment_id: str
    tags: Mapping[str, str]
    sweep: str | None
    study_hashes: Mapping[str, str]
    client: Any
    store: Store

    def artifact(self, path: str) -> str:
        """Return the text of an artifact.

        Raises:
            NotFound: the run has no such artifact.
        """
        with tempfile.TemporaryDirectory() as folder:
            try:
                file = self.client.download_artifacts(self.run_id, path, folder)
                return Path(file).read_text(encoding="utf-8")
            except Exception as error:  # MLflow raises another class for each kind of artifact store
                raise NotFound(f"run {self.run_id} has no artifact {path}; it ended before it wrote one") from error

    def config(self) -> dict[str, Any]:
        """Return the frozen config, as data: nothing in it is imported or called here."""
        loaded: dict[str, Any] = yaml.safe_load(self.artifact("config.yaml"))
        return loaded

    def history(self) -> dict[str, list[float]]:
        """Return the metrics of each epoch, in order of epochs."""
        names = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
        return {name: self._values(name) for name in names}

    def _values(self, name: str) -> list[float]:
        points = sorted(self.client.get_metric_history(self.run_id, name), key=lambda point: point.step)
        return [point.value for point in points]


def find_run(store: Store, run_or_sweep: str) -> StoredRun:
    """Return a run by its id, or the best trial's run of a sweep by its name.

    Raises:
        NotFound: there is neither, or the sweep has no complete trial.
    """
    known = study_names(store.studies_uri) if has_storage(store.studies_uri) else []
    if run_or_sweep in known:
        return _open_run(store, uri_of(store, run_or_sweep), _best_run_id(store, run_or_sweep))
    uris = list(dict.fromkeys(uri_of(store, sweep) for sweep in (None, *known)))
    if not store.exists and uris == [store.mlflow_uri]:
        raise no_store(store)
    for uri in uris:
        with suppress(NotFound):
            return _open_run(store, uri, run_or_sweep)
    there = f"the sweeps there are {', '.join(known)}" if known else "there is no sweep yet"
    raise NotFound(f"no run or sweep '{run_or_sweep}' in {store.root}; {there}{did_you_mean(run_or_sweep, known)}")


def _best_run_id(store: Store, name: str) -> str:
    study = load_study(store.studies_uri, name)
    trial = Tally.of(study).best
    if trial is None or "run_id" not in trial.user_attrs:
        raise NotFound(f"sweep '{name}' has no complete trial yet; see 'besom status {name}'")
    return str(trial.user_attrs["run_id"])


def _open_run(store: Store, uri: str, run_id: str) -> StoredRun:
    fix_environment()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(uri)
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise NotFound(f"no run '{run_id}'") from error
    tags = dict(run.data.tags)
    sweep = tags.get("sweep") if tags.get("kind") == "trial" else None
    return StoredRun(
        uri, run_id, run.info.experiment_id, tags, sweep, _study_hashes(store, sweep, run_id), client, store
    )


def _study_hashes(store: Store, sweep: str | None, run_id: str) -> dict[str, str]:
    trials = trials_of(store.studies_uri, sweep) if sweep else []
    mine = [trial for trial in trials if trial.user_attrs.get("run_id") == run_id]
    return {key: value for trial in mine for key, value in trial.user_attrs.items() if key.endswith("_sha256")}
