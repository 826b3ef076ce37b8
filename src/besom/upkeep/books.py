"""Both books of one sweep as they are at a moment: the study, which is the truth, and MLflow, which follows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
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
from besom.storage import open_storage
from besom.study_lock import study_holder, study_lock
from besom.sweep.endings import job_folder_of
from besom.sweep.ownership import OWNER
from besom.sweep.run_ids import ids_in, run_id_of
from besom.sweep.study import DATA_DIGEST
from besom.tracking import uri_of
from besom.upkeep.run_records import RunRecord, in_database, on_server
from besom.upkeep.studies import Found
from besom.upkeep.untouched import Untouched
from besom.uris import HTTP
from besom.withheld import without_password

MARKS = {"id", "settings", DATA_DIGEST}
"""Attributes that only a sweep's study has, one of them always, see `besom.sweep.study.SweepStudy`."""
HOME = "home"
"""The study's attribute that is a path, see `besom.sweep.study.SweepStudy.home`."""
MOST_BYTES = 10_000
"""Of a file of besom's own with a line or a name in it."""


@dataclass(frozen=True)
class Books:
    """A sweep.

    Args:
        url: where its study is.
        uri: where its runs went.
        runs: by id; None where MLflow cannot be read, and ``unread`` says why.
        holder: who works on the sweep now, see `besom.lock.holder_of`; None where nobody else does.
        waiting: what MLflow was not told yet, by run.
        last_parent: who held its lock last and had no time to clear it; empty where that is not known.
    """

    store: Store
    name: str
    url: str
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

    @property
    def is_in_store(self) -> bool:
        """Tell whether the study is in the store's own file, not in a server."""
        return self.url == self.store.studies_uri

    def ran_elsewhere(self, trial: FrozenTrial) -> bool:
        """Tell whether a trial may have run from another store: several take up a sweep whose study is in a server."""
        if self.is_in_store or "point" not in trial.user_attrs:
            return False
        is_of_server = self.uri.startswith(HTTP)  # whose MLflow is of all stores
        if self.is_waiting(trial) or (not is_of_server and self.run_of(trial) is not None):
            return False
        return not self._is_folder_of_study or not job_folder_of(trial, self.home).is_dir()

    @cached_property
    def _is_folder_of_study(self) -> bool:
        owner = self.home / OWNER
        return owner.is_file() and owner.read_text(encoding="utf-8", errors="replace") == self.id

    def has_lost_run_of(self, trial: FrozenTrial) -> bool:
        """Tell whether MLflow has a trial's run no more; the MLflow of another store is not looked at."""
        if self.run_id_of(trial) is None or self.run_of(trial) is not None or self.is_waiting(trial):
            return False
        return self.uri.startswith(HTTP) or not self.ran_elsewhere(trial)

    def open_study(self) -> RDBStorage:
        """Open the study's storage for writing; who does holds the sweep's locks.

        Raises:
            SweepLocked: that in the study's server was lost with its session, and another parent has it now.
            ConfigError: the server cannot be reached.
        """
        with study_lock(self.url, self.name) as lock:
            if lock is None:
                return open_storage(self.url)
            lock.acquire()
            return open_storage(self.url, lock.acquire)

    def run_of(self, trial: FrozenTrial) -> RunRecord | None:
        """Return a trial's run, None where it has none or MLflow has it no more."""
        return (self.runs or {}).get(str(self.run_id_of(trial)))

    def trial_of(self, run: RunRecord) -> FrozenTrial | None:
        """Return the trial that a run's tags name, where the study has it."""
        number = run.tags.get("trial", "")
        return self.trials[int(number)] if number.isdecimal() and int(number) < len(self.trials) else None


def _freed(one: Waiting, trials: Sequence[FrozenTrial], holder: Mapping[str, Any] | None) -> Waiting:
    """Return what waits; of a trial that is over, in a sweep that nobody runs, nobody adds to it any more.

    Its journal alone does not say so where a process of another machine wrote it, which may have been cut off.
    """
    number = one.trial
    if holder is not None or not isinstance(number, int) or not 0 <= number < len(trials):  # it may be anybody's
        return one
    return replace(one, is_free=True) if trials[number].state.is_finished() else one


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
    store: Store, name: str, found: Found, look: Untouched, last_parent: Mapping[str, Any] | None = None
) -> Books:
    """Return the books of a sweep whose study can be read.

    Args:
        last_parent: of a sweep whose lock this process holds.

    Raises:
        OSError: a lock cannot be read, so that nobody can tell whether somebody works on it.
        ConfigError: the study's server went away.
    """
    assert found.storage is not None, "it can be read"
    study = optuna.load_study(study_name=name, storage=found.storage)
    # before the trials: once it is gone, they are final
    holder = holder_of_sweep(store, name, found) if last_parent is None else None
    last_parent = last_parent_of(store, name) if last_parent is None else last_parent
    trials = study.get_trials(deepcopy=False)
    uri, runs, unread = _runs_of(store, name, look)
    by_id = None if runs is None else {run.run_id: run for run in runs}
    waiting = {one.run_id: _freed(one, trials, holder) for one in pending(store, name)}
    return Books(store, name, found.url, study, trials, uri, by_id, unread, holder, waiting, last_parent)


def holder_of_sweep(store: Store, name: str, found: Found | None = None) -> Mapping[str, Any] | None:
    """Return who works on a sweep, from another store too where its study is in a server; None where nobody does.

    Args:
        found: its study; None where it has none, or where only this store matters.

    Raises:
        OSError: a lock cannot be read.
        ConfigError: the study's server went away.
    """
    home = home_of(store, name, found.attributes if found is not None else {})
    folders = dict.fromkeys((store.sweep(name), home))
    for lock in (store.lock(name), studies_lock(store, name), *(folder / "parent.lock" for folder in folders)):
        if (holder := holder_of(lock)) is not None:
            return holder
    return study_holder(found.url, name) if found is not None else None


def named(holder: Mapping[str, Any]) -> str:
    """Return who works on a sweep, as words."""
    return f"process {holder['pid']} of {holder['host']}" if holder else "a process"


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
