"""Finds stores, and sweeps and runs by name in them; only reads, and never makes a store.

Imports only what finding takes: `besom runs` is to answer at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from besom.configs.project import Project
from besom.contained import local_path, refuse_outside
from besom.errors import MOST_QUOTED, ConfigError, NotFound, StoreDamaged, did_you_mean
from besom.files import Unusable, kind_of
from besom.paths import SWEEP_NAME, Store
from besom.storage import find_study
from besom.sweep.run_ids import known_ids, run_id_of
from besom.sweep.tally import Tally
from besom.temporary import temporary_folder
from besom.tracker import is_provisional
from besom.uris import refuse_remote_artifacts
from besom.whereabouts import all_study_names, place_of, storage_of

if TYPE_CHECKING:
    from optuna import Study


MOST_BYTES = 20_000_000
"""Of a text among a run's artifacts; a fingerprint or a config has some thousand."""


def store_of(given: str | Path | None) -> Store:
    """Return the store that readers read: the given one, else what the project's config says, as for writers."""
    if given:
        return Store.at(given)
    project = Project.around(Path.cwd())
    if not project.has_own_paths:
        return Store.at(os.environ.get("BESOM_STORE") or "mlruns", project.root)
    from besom.configs.compose import compose, store_path

    with project.staged() as stage:
        return Store.at(store_path(compose(stage.folder, [])), project.root)


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
    known = sweep_names(store)
    if name not in known:
        raise _no_sweep(store, name, known)


def open_study(store: Store, name: str) -> Study:
    """Return the study of a sweep, for reading.

    Raises:
        NotFound: there is no store, or no such sweep in it.
    """
    if not store.exists:
        raise no_store(store)
    return _known_study(store, name)


def _known_study(store: Store, name: str) -> Study:
    study = find_study(storage_of(store, name), name) if SWEEP_NAME.fullmatch(name) else None
    if study is None:
        raise _no_sweep(store, name, [known for known in sweep_names(store) if known != name])
    return study


def sweep_names(store: Store) -> list[str]:
    """Return the names of the sweeps in a store, none where there is no store."""
    return all_study_names(store)


def _no_sweep(store: Store, name: str, known: Sequence[str]) -> NotFound:
    there = f"there is {', '.join(known)}" if known else "there is none yet"
    if SWEEP_NAME.fullmatch(name) and any(store.sweep(name).glob("*/result.json")):
        place = place_of(store, storage_of(store, name))
        there = f"{store.sweep(name)} is there, but {place} has lost it: put that back from a copy"
    name = name[:MOST_QUOTED]
    return NotFound(f"no sweep '{name}' in {store.root}; {there}{did_you_mean(name, known)}")


@dataclass(frozen=True)
class StoredRun:
    """One run as MLflow has it.

    Args:
        sweep: name of its sweep, None outside one.
        study_hashes: the hashes that the study holds for the trial, beside those in the tags.
        location: of its artifacts, where they must be in the store; None where somebody here named MLflow.
    """

    uri: str
    run_id: str
    experiment_id: str
    tags: Mapping[str, str]
    sweep: str | None
    study_hashes: Mapping[str, str]
    client: Any
    store: Store
    location: str | None = None

    def refuse_links(self, path: str = "") -> None:
        """Raise `ConfigError` where an artifact, or one of all of them, is a link out of the store."""
        if self.location is not None:
            refuse_outside(self.store, self.location, path)

    def refuse_bulk(self, path: str, most: int) -> None:
        """Raise `ConfigError` where an artifact, or a folder of them, has more bytes than anybody expects there."""
        if self.location is not None:
            refuse_bulk(self.location, path, most)

    def artifact(self, path: str) -> str:
        """Return the text of an artifact.

        Raises:
            NotFound: the run has no such artifact.
            StoreDamaged: it is no text.
            ConfigError: it is a link out of the store, no plain file, or too large.
        """
        self.refuse_links(path)
        self.refuse_bulk(path, MOST_BYTES)
        with temporary_folder() as folder:
            try:
                file = self.client.download_artifacts(self.run_id, path, str(folder))
                return Path(file).read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                raise StoreDamaged(f"{path} of run {self.run_id} is no text: {error}") from error
            except Exception as error:  # MLflow raises another class for each kind of artifact store
                raise NotFound(f"run {self.run_id} has no artifact {path}; it ended before it wrote one") from error

    def config(self) -> dict[str, Any]:
        """Return the frozen config, as data: nothing in it is imported or called here.

        Raises:
            NotFound: the run has none.
            ConfigError: it is no frozen config.
        """
        from besom.configs.stored import read_stored

        return read_stored(self.artifact("config.yaml"), f"config.yaml of run {self.run_id}")

    def params(self) -> dict[str, str]:
        """Return the config's leaves as MLflow has them: text by dotted key."""
        return dict(self.client.get_run(self.run_id).data.params)

    def history(self) -> dict[str, list[float]]:
        """Return the metrics of each epoch, in order of epochs."""
        names = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
        return {name: self._values(name) for name in names}

    def _values(self, name: str) -> list[float]:
        points = sorted(self.client.get_metric_history(self.run_id, name), key=lambda point: point.step)
        return [point.value for point in points]


def refuse_bulk(location: str, path: str, most: int) -> None:
    """Refuse to copy artifacts that are no plain files or larger than expected; of others than local ones nobody knows.

    A file without content takes no room in a store, its copy may fill the disk.

    Args:
        location: of a run's or a model's artifacts.
        path: of one of them, or of a folder with them.

    Raises:
        ConfigError: naming the file.
    """
    base = local_path(location)
    if base is None:
        return
    place, total = base / path, 0
    for file in [Path(folder, name) for folder, _, names in os.walk(place) for name in names] or [place]:
        try:
            kind = kind_of(file)
        except Unusable as error:
            raise ConfigError(f"{file} cannot be read: {error}; expected a file as besom writes it") from error
        if kind == "other":
            raise ConfigError(f"{file} is no plain file; expected one as besom writes it")
        total += file.stat().st_size if kind == "file" else 0
    if total > most:
        raise ConfigError(f"{place} has {total:,} bytes; expected at most {most:,}, as besom writes it")


def find_run(store: Store, run_or_sweep: str) -> StoredRun:
    """Return a run by its id, by ``SWEEP/NUMBER`` of its trial, or by its sweep's name, whose best trial it is.

    Raises:
        NotFound: there is none of these, or the sweep has no complete trial.
    """
    from besom.tracking import uri_of

    known = sweep_names(store)
    sweep, is_trial, number = run_or_sweep.partition("/")
    if sweep in known:
        run_id = _run_id_of(store, sweep, number) if is_trial else _best_run_id(store, sweep)
        return open_run(store, uri_of(store, sweep), run_id)
    uris = list(dict.fromkeys(_uris_of(store, known)))
    if not store.exists and uris == [store.mlflow_uri]:
        raise no_store(store)
    for uri in uris:
        with suppress(NotFound):
            return open_run(store, uri, run_or_sweep)
    there = f"the sweeps there are {', '.join(known)}" if known else "there is no sweep yet"
    name, near = run_or_sweep[:MOST_QUOTED], did_you_mean(sweep[:MOST_QUOTED], known)
    raise NotFound(f"no run or sweep '{name}' in {store.root}; {there}{near}")


def _uris_of(store: Store, known: Sequence[str]) -> Iterator[str]:
    """Yield where runs may be; a server that only the store names is not asked."""
    from besom.tracking import uri_of

    yield uri_of(store, None)
    for sweep in known:
        with suppress(ConfigError):
            yield uri_of(store, sweep)


def _run_id_of(store: Store, name: str, number: str) -> str:
    study = _known_study(store, name)
    trials = study.get_trials(deepcopy=False)
    if not number.isdecimal() or len(number) > 18 or int(number) >= len(trials):
        there = f"expected a number from 0 to {len(trials) - 1}" if trials else "it has none yet"
        raise NotFound(f"sweep '{name}' has no trial '{number[:MOST_QUOTED]}'; {there}")
    trial = trials[int(number)]
    run_id = run_id_of(trial, known_ids(study))
    if run_id is None:
        raise NotFound(f"trial {number} of sweep '{name}' has no run; it ended before it had one")
    return run_id


def _best_run_id(store: Store, name: str) -> str:
    study = _known_study(store, name)
    trial = Tally.of(study).best
    run_id = run_id_of(trial, known_ids(study)) if trial is not None else None
    if run_id is None:
        raise NotFound(f"sweep '{name}' has no complete trial yet; see 'besom status {name}'")
    return run_id


def open_run(store: Store, uri: str, run_id: str) -> StoredRun:
    """Return the run of an id.

    Raises:
        NotFound: MLflow at ``uri`` has no such run.
        ConfigError: its artifacts are said to be on a server that the run is not of, or outside the store.
        StoreDamaged: MLflow's database cannot be read.
    """
    from besom.disk import explain
    from besom.tracking import is_given, mlflow_client

    if is_provisional(run_id):
        raise NotFound(
            f"run '{run_id}' is not in MLflow yet: it waits in {store.spools}; 'besom sweep' of its sweep delivers it, "
            "or 'besom repair'"
        )

    client = mlflow_client(uri)
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise explain(error) or NotFound(f"no run '{run_id}'") from error
    location = str(run.info.artifact_uri)
    refuse_remote_artifacts(uri, location)
    is_contained = uri.startswith("sqlite:") and not is_given(uri)
    if is_contained:
        refuse_outside(store, location, everything=False)
    tags = dict(run.data.tags)
    sweep = tags.get("sweep") if tags.get("kind") == "trial" else None
    return StoredRun(
        uri, run_id, run.info.experiment_id, tags, sweep, _study_hashes(store, sweep, run_id), client, store,
        location if is_contained else None,
    )  # fmt: skip


def _study_hashes(store: Store, sweep: str | None, run_id: str) -> dict[str, str]:
    study = find_study(storage_of(store, sweep), sweep) if sweep else None
    if study is None:
        return {}
    became = known_ids(study)
    mine = [trial for trial in study.get_trials(deepcopy=False) if run_id_of(trial, became) == run_id]
    return {key: value for trial in mine for key, value in trial.user_attrs.items() if key.endswith("_sha256")}
