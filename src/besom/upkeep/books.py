"""Both books of one sweep as they are at a moment: the study, which is the truth, and MLflow, which follows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from besom.errors import UserError, one_line
from besom.experiments import mlflow_client
from besom.files import Unusable, read_bounded
from besom.lock import holder_of, identity_in
from besom.paths import SWEEP_NAME, Store
from besom.spool.deliver import Waiting, pending
from besom.spool.probe import why_away
from besom.sweep.run_ids import ids_in, run_id_of
from besom.tracking import uri_of
from besom.upkeep.run_records import RunRecord, in_database, on_server
from besom.upkeep.untouched import Untouched
from besom.withheld import without_password

optuna.logging.set_verbosity(optuna.logging.WARNING)

MARKS = {"id", "settings"}
"""Attributes of every sweep's study, see `besom.sweep.study.SweepStudy`."""
HOME = "home"
"""The study's attribute that is a path, see `besom.sweep.study.SweepStudy.home`."""
MOST_BYTES = 10_000
"""Of a file of besom's own with a line or a name in it."""


@dataclass(frozen=True)
class Books:
    """A sweep.

    Args:
        uri: where its runs went.
        runs: by id; None where MLflow cannot be read, and ``unread`` says why.
        holder: who works on the sweep now, see `besom.lock.holder_of`; None where nobody else does.
        waiting: what MLflow was not told yet, by run.
        last_parent: who held its lock last and had no time to clear it; empty where that is not known.
    """

    store: Store
    name: str
    study: optuna.Study
    trials: list[FrozenTrial]
    uri: str
    runs: Mapping[str, RunRecord] | None
    unread: str | None
    holder: Mapping[str, Any] | None
    waiting: Mapping[str, Waiting]
    last_parent: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.study.user_attrs.get("id", ""))

    @cached_property
    def home(self) -> Path:
        """The folder that its jobs' folders are counted from."""
        return home_of(self.store, self.name, self.study.user_attrs)

    @cached_property
    def became(self) -> dict[str, str]:
        """Which runs provisional ids became, see `besom.sweep.run_ids`."""
        return ids_in(self.study.user_attrs)

    def run_id_of(self, trial: FrozenTrial) -> str | None:
        """Return the id of a trial's run, None where it has none; a provisional one while it waits to be made."""
        return run_id_of(trial, self.became)

    def is_waiting(self, trial: FrozenTrial) -> bool:
        """Tell whether MLflow was not told all of a trial's run yet."""
        return bool({str(trial.user_attrs.get("run_id")), self.run_id_of(trial)} & set(self.waiting))

    def run_of(self, trial: FrozenTrial) -> RunRecord | None:
        """Return a trial's run, None where it has none or MLflow has it no more."""
        return (self.runs or {}).get(str(self.run_id_of(trial)))

    def trial_of(self, run: RunRecord) -> FrozenTrial | None:
        """Return the trial that a run's tags name, where the study has it."""
        number = run.tags.get("trial", "")
        return self.trials[int(number)] if number.isdecimal() and int(number) < len(self.trials) else None


def storage_of(store: Store, look: Untouched) -> RDBStorage | None:
    """Return the store's studies to be read, None where there is no file; of another version of Optuna too.

    Raises:
        Exception: SQLAlchemy's or Optuna's; the database is damaged.
    """
    if not store.studies_db.is_file():
        return None
    how = {"creator": lambda: look.connect(store.studies_db)}
    return RDBStorage("sqlite://", engine_kwargs=how, skip_table_creation=True)


def studies_in(storage: RDBStorage | None) -> dict[str, dict[str, Any]]:
    """Return the attributes of every study in a storage, by name; some may be none of besom's, see `why_no_sweep`."""
    found = [] if storage is None else storage.get_all_studies()
    return {study.study_name: study.user_attrs for study in sorted(found, key=lambda one: one.study_name)}


def why_no_sweep(name: str, attributes: Mapping[str, Any]) -> str | None:
    """Return why a study is none that besom made, or can look after; None of a sweep's."""
    if not MARKS & set(attributes):
        return "it is a study that besom did not make: it is left alone"
    if not SWEEP_NAME.fullmatch(name):
        return "besom cannot look after a study of such a name: no folder is called so"
    return None


def home_of(store: Store, name: str, attributes: Mapping[str, Any]) -> Path:
    """Return the folder that the folders of a sweep's jobs are counted from; of another app's it is its own."""
    kept = attributes.get(HOME)
    return Path(kept) if isinstance(kept, str) and Path(kept).is_absolute() else store.sweep(name)


def open_books(
    store: Store, name: str, storage: RDBStorage, look: Untouched, last_parent: Mapping[str, Any] | None = None
) -> Books:
    """Return the books of a sweep that the storage has.

    Args:
        last_parent: of a sweep whose lock this process holds.

    Raises:
        OSError: a lock cannot be read, so that nobody can tell whether somebody works on it.
    """
    study = optuna.load_study(study_name=name, storage=storage)
    # before the trials: once it is gone, they are final
    holder = holder_of_sweep(store, name, home_of(store, name, study.user_attrs)) if last_parent is None else None
    last_parent = last_parent_of(store, name) if last_parent is None else last_parent
    trials = study.get_trials(deepcopy=False)
    uri, runs, unread = _runs_of(store, name, look)
    by_id = None if runs is None else {run.run_id: run for run in runs}
    waiting = {one.run_id: one for one in pending(store, name)}
    return Books(store, name, study, trials, uri, by_id, unread, holder, waiting, last_parent)


def holder_of_sweep(store: Store, name: str, home: Path | None = None) -> Mapping[str, Any] | None:
    """Return who works on a sweep, None where nobody does.

    Args:
        home: see `home_of`.

    Raises:
        OSError: a lock cannot be read.
    """
    folders = dict.fromkeys((store.sweep(name), home or store.sweep(name)))
    for lock in (store.lock(name), studies_lock(store, name), *(folder / "parent.lock" for folder in folders)):
        if (holder := holder_of(lock)) is not None:
            return holder
    return None


def studies_lock(store: Store, name: str) -> Path:
    """Return the file that a sweep of another app holds locked, whose study is in this store, see `besom.sweep`."""
    return store.root.resolve() / f".{store.studies_db.name}-{name}.lock"


def last_parent_of(store: Store, name: str) -> dict[str, Any]:
    """Return who is written in a sweep's lock: its parent, living or killed; empty where that signed off."""
    try:
        return identity_in(read_bounded(store.lock(name), MOST_BYTES))
    except Unusable:  # there is none
        return {}


def _runs_of(store: Store, name: str, look: Untouched) -> tuple[str, list[RunRecord] | None, str | None]:
    """Return where a sweep's runs are, the runs, and why there are none to be read."""
    try:
        uri = uri_of(store, name)
    except UserError as error:
        return "", None, str(error)
    try:
        if uri.startswith("sqlite:///"):
            file = Path(uri.removeprefix("sqlite:///"))
            if not file.is_file():
                return uri, None, f"there is no file {file}"
            with closing(look.connect(file)) as database:
                return uri, in_database(database, name), None
        if reason := why_away(uri):
            return uri, None, reason
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        return uri, on_server(mlflow_client(uri), name), None
    except Exception as error:  # SQLite's, SQLAlchemy's or MLflow's, of any kind
        return uri, None, without_password(one_line(error))
