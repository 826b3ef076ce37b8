"""The ways in which a store can be broken, one function each: what `besom doctor` has to find, and repair to mend."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from conftest import Folder

from besom.lock import process_identity
from besom.paths import Store
from besom.spool.client import RunWriter
from besom.spool.operations import Batch, End
from besom.upkeep.findings import Finding
from besom.upkeep.relocate import relocate

METRICS = ("metrics", "latest_metrics")
NOBODY = 2**22 + 1
"""A pid that no process has: more than Linux gives."""


@dataclass(frozen=True)
class Break:
    """One way: what breaks a store; level, place and words of what is found; whether repair mends it."""

    how: Callable[[Store], object]
    level: str
    where: str
    what: str
    mends: bool = False

    def matches(self, found: Finding) -> bool:
        pairs = ((self.level, found.level), (self.where, found.where), (self.what, found.what))
        return all(re.search(pattern, text) for pattern, text in pairs)


SMALL = ("--trials", "3", "train.epochs=2", "data.n_train=200", "data.n_val=100")


class Kept:
    """A real store as it was left by a finished sweep, to be broken and put back: addresses in it are absolute."""

    def __init__(self, folder: Folder) -> None:
        folder.besom("sweep", "quick", *SMALL)
        self.folder = folder
        self._kept = folder.path / "kept"
        shutil.copytree(folder.path / "mlruns", self._kept)

    def copied(self, folder: Path) -> Store:
        """Return a copy, at home in a folder: for what MLflow writes into, which keeps files open by their path."""
        shutil.copytree(self._kept, folder / "mlruns")
        store = Store.at(folder / "mlruns")
        relocate(store)
        return store

    def store(self) -> Store:
        """Return it, whole again."""
        root = self.folder.path / "mlruns"
        shutil.rmtree(root)
        shutil.copytree(self._kept, root)
        return Store.at(root)


def studies(store: Store, *statements: str) -> None:
    change(store.studies_db, *statements)


def mlflow(store: Store, *statements: str) -> None:
    change(store.mlflow_db, *statements)


def change(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        for statement in statements:
            database.execute(statement)


def run_id(store: Store, number: int = 1) -> str:
    query = "select value_json from trial_user_attributes join trials using (trial_id) where number = ? and key = ?"
    with closing(sqlite3.connect(store.studies_db)) as database:
        return str(json.loads(database.execute(query, (number, "run_id")).fetchone()[0]))


def of_run(store: Store, number: int = 1) -> str:
    return f"run_uuid = '{run_id(store, number)}'"


def parent(store: Store) -> str:
    query = "select run_uuid from tags where key = 'kind' and value = 'sweep'"
    with closing(sqlite3.connect(store.mlflow_db)) as database:
        return str(database.execute(query).fetchone()[0])


def running_trial(store: Store) -> None:
    studies(store, "update trials set state = 'RUNNING', datetime_complete = null where number = 1",
            "delete from trial_user_attributes where key = 'outcome' and trial_id = (select trial_id from trials "
            "where number = 1)")  # fmt: skip


def running_trial_without_result(store: Store) -> None:
    running_trial(store)
    mlflow(store, f"update runs set status = 'RUNNING', end_time = null where {of_run(store)}")
    (store.job("quick", 1) / "result.json").unlink()
    name_process(store, run_id(store), NOBODY)


def running_trial_elsewhere(store: Store) -> None:
    running_trial_without_result(store)
    mlflow(store, f"update tags set value = 'moon' where key = 'host' and {of_run(store)}")


def running_trial_of_a_living_process(store: Store) -> None:
    running_trial_without_result(store)
    name_process(store, run_id(store), **process_identity())


def name_process(store: Store, run: str, pid: object, **identity: object) -> None:
    for key, value in {"pid": pid, **identity}.items():
        mlflow(store, f"update tags set value = '{value}' where key = '{key}' and run_uuid = '{run}'")


def copied_run(store: Store, kind: str, status: str, experiment: int = 1, number: int = 1) -> str:
    """Give MLflow a further run, as another one is, of a process that lives no more; return its id."""
    made = "f" * 32
    columns = "name, source_type, user_id, start_time, lifecycle_stage, artifact_uri"
    mlflow(
        store,
        f"insert into runs (run_uuid, status, experiment_id, {columns}) select '{made}', '{status}', {experiment}, "
        f"{columns} from runs where {of_run(store, number)}",
        f"insert into tags (run_uuid, key, value) select '{made}', key, value from tags where {of_run(store, number)}",
        f"update tags set value = '{kind}' where key = 'kind' and run_uuid = '{made}'",
    )
    name_process(store, made, NOBODY)
    return made


def dead_training(store: Store) -> None:
    mlflow(
        store,
        "insert into experiments (experiment_id, name, artifact_location, lifecycle_stage, workspace) "
        f"values (9, 'train', '{store.artifacts.as_uri()}/train', 'active', 'default')",
    )
    copied_run(store, "train", "RUNNING", experiment=9)


def dead_parent(store: Store) -> None:
    mlflow(store, f"update runs set status = 'RUNNING', end_time = null where run_uuid = '{parent(store)}'")
    name_process(store, parent(store), NOBODY)


def one_point_twice(store: Store) -> None:
    studies(
        store,
        "update trial_params set param_value = (select param_value from trial_params other join trials using (trial_id)"
        " where number = 0 and other.param_name = trial_params.param_name) "
        "where trial_id = (select trial_id from trials where number = 1)",
    )


def changed_result(store: Store, **fields: object) -> None:
    file = store.job("quick", 1) / "result.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def artifact(store: Store, name: str) -> Path:
    return store.artifacts / "quick" / run_id(store) / "artifacts" / name


def model_file(store: Store) -> Path:
    query = "select destination_id from inputs where source_id = ? and source_type = 'RUN_OUTPUT'"
    with closing(sqlite3.connect(store.mlflow_db)) as database:
        [(model,)] = database.execute(query, (run_id(store),)).fetchall()
    return store.artifacts / "quick" / "models" / model / "artifacts" / "data" / "model.keras"


def overwritten(file: Path, at: int) -> None:
    """Put noise into the middle of a database, and no ``-wal`` beside it that would hide that."""
    change(file, "PRAGMA wal_checkpoint(TRUNCATE)") if file.stat().st_size else None
    with file.open("r+b") as opened:
        opened.seek(at)
        opened.write(b"\xff" * 4096 * 4)


def draft(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("half a fi")
    os.utime(path, (time.time() - 3600,) * 2)


def images(store: Store) -> None:
    store.images("quick").mkdir()
    (store.images("quick") / "about.json").write_text("{}")


def half_images(store: Store) -> None:
    half = store.sweep("quick") / "tmpab1_2cde"
    half.mkdir()
    (half / "x_train.npy").write_bytes(b"\x93NUMPY")


def half_a_store(store: Store) -> None:
    (store.root / ".creating").mkdir()
    (store.root / ".creating" / "mlflow.db").write_bytes(b"half")


def spooled_end(store: Store) -> None:
    """Have the end of a run wait on disk, as where MLflow is away when its trial ends."""
    mlflow(store, f"update runs set status = 'RUNNING', end_time = null where {of_run(store)}")
    mlflow(store, f"update tags set value = 'RUNNING' where key = 'state' and {of_run(store)}")
    writer = RunWriter(*(store.mlflow_uri, store, store.spool("quick"), run_id(store), 1), is_away=True, is_quiet=True)
    writer.write(End("FINISHED", 1_700_000_000_000, {"state": "COMPLETE"}))


def spooled_elsewhere(store: Store) -> None:
    """Have an epoch wait that a lane on another machine logged, which had been cut off and told no end."""
    writer = RunWriter(*(store.mlflow_uri, store, store.spool("quick"), run_id(store), 1), is_away=True, is_quiet=True)
    writer.write(Batch(metrics=[("waited", 1.0, 1_700_000_000_000, 0)]))
    journal = store.spool("quick") / run_id(store) / "operations.jsonl"
    head, *rest = journal.read_text().splitlines()
    journal.write_text("\n".join([json.dumps({**json.loads(head), "host": "moon"}), *rest, ""]))


def killed_while_it_wrote(store: Store) -> None:
    """Have a process write into the study and be killed: its ``-wal`` and ``-shm`` stay, with what it wrote."""
    code = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('PRAGMA journal_mode=WAL'); "
        "c.execute(\"update trials set state = 'RUNNING', datetime_complete = null where number = 1\"); "
        "c.execute(\"delete from trial_user_attributes where key = 'outcome' and trial_id = (select trial_id from "
        'trials where number = 1)"); c.commit(); os._exit(9)'
    )
    subprocess.run([sys.executable, "-c", code, str(store.studies_db)], check=False)
    assert (store.root / "studies.db-wal").stat().st_size > 0


WAYS: dict[str, Break] = {
    "a trial left RUNNING with its result": Break(
        running_trial, "warning", "quick/1", "its parent is dead and its result is whole: COMPLETE", mends=True
    ),
    "that only the -wal of the killed has": Break(
        killed_while_it_wrote, "warning", "quick/1", "its result is whole: COMPLETE", mends=True
    ),
    "a trial left RUNNING without one": Break(
        running_trial_without_result, "warning", "quick/1", "it left no result", mends=True
    ),
    "a trial of another host": Break(running_trial_elsewhere, "note", "quick/1", "was one of host 'moon'"),
    "a trial of a living process": Break(
        running_trial_of_a_living_process, "note", "quick/1", f"its process {os.getpid()} lives"
    ),
    "an end that waits on disk": Break(
        spooled_end, "warning", "sweep quick", "MLflow was not told 1 operations of 1 runs", mends=True
    ),
    "what a lane on another machine logged": Break(
        spooled_elsewhere, "warning", "sweep quick", "MLflow was not told 1 operations of 1 runs", mends=True
    ),
    "a run that did not end": Break(
        lambda store: mlflow(store, f"update runs set status = 'RUNNING', end_time = null where {of_run(store)}"),
        *("warning", "quick/1", "status RUNNING instead of FINISHED"),
        mends=True,
    ),
    "a run without an end": Break(
        lambda store: mlflow(store, f"update runs set end_time = null where {of_run(store)}"),
        *("warning", "quick/1", "its run has no end"),
        mends=True,
    ),
    "a run in another state": Break(
        lambda store: mlflow(store, f"update tags set value = 'FAIL' where key = 'state' and {of_run(store)}"),
        *("warning", "quick/1", "state FAIL instead of COMPLETE"),
        mends=True,
    ),
    "a run without its objective": Break(
        lambda store: mlflow(
            store, *(f"delete from {of} where key = 'objective' and {of_run(store)}" for of in METRICS)
        ),
        *("warning", "quick/1", "its run has no objective, the study 0"),
        mends=True,
    ),
    "a run with another objective": Break(
        lambda store: mlflow(
            store, *(f"update {of} set value = 0.125 where key = 'objective' and {of_run(store)}" for of in METRICS)
        ),
        *("warning", "quick/1", "its run has 0.125 objective, the study 0"),
        mends=True,
    ),
    "a run without a hash": Break(
        lambda store: mlflow(store, f"delete from tags where key = 'weights_sha256' and {of_run(store)}"),
        *("warning", "quick/1", "its run has no weights_sha256"),
        mends=True,
    ),
    "a run with another hash": Break(
        lambda store: mlflow(store, f"update tags set value = 'beef' where key = 'weights_sha256' and {of_run(store)}"),
        *("warning", "quick/1", "its run has another weights_sha256"),
        mends=True,
    ),
    "an epoch that is not there": Break(
        lambda store: mlflow(store, f"delete from metrics where key = 'val_loss' and step = 0 and {of_run(store)}"),
        *("error", "quick/1", "val_loss has 1 of 2 epochs"),
    ),
    "a run that MLflow lost": Break(
        lambda store: mlflow(store, f"update runs set lifecycle_stage = 'deleted' where {of_run(store)}"),
        *("error", "quick/1", "MLflow has no run [0-9a-f]{32}: it was deleted"),
    ),
    "a run that no trial has": Break(
        lambda store: copied_run(store, "trial", "FINISHED"), "warning", "run ffff", "no trial of sweep quick has it"
    ),
    "a run that no trial got": Break(
        lambda store: copied_run(store, "trial", "RUNNING"),
        *("warning", "run ffff", "of sweep quick is RUNNING, its process is dead"),
        mends=True,
    ),
    "a reproduction that was killed": Break(
        lambda store: copied_run(store, "reproduction", "RUNNING"),
        *("warning", "run ffff", "of sweep quick is RUNNING, its process is dead"),
        mends=True,
    ),
    "a training that was killed": Break(
        dead_training, "warning", "run ffff", "^quick-1 is RUNNING, its process is dead", mends=True
    ),
    "the sweep's own run of a dead parent": Break(
        dead_parent, "warning", "run", "^quick of sweep quick is RUNNING, its process is dead", mends=True
    ),
    "no run of the sweep": Break(
        lambda store: mlflow(store, f"update runs set lifecycle_stage = 'deleted' where run_uuid = '{parent(store)}'"),
        *("warning", "sweep quick", "no run of the sweep itself"),
    ),
    "two runs of the sweep": Break(
        lambda store: copied_run(store, "sweep", "FINISHED"), "warning", "sweep quick", "MLflow has 2 runs of it"
    ),
    "a point that was trained twice": Break(one_point_twice, "warning", "sweep quick", "trials 0, 1 are of one point"),
    "no result.json": Break(
        lambda store: (store.job("quick", 1) / "result.json").unlink(), "warning", "quick/1", "result.json is missing"
    ),
    "half a result.json": Break(
        lambda store: (store.job("quick", 1) / "result.json").write_text('{"number": 1'),
        *("warning", "quick/1", "result.json is no whole JSON"),
    ),
    "a result.json of another study": Break(
        lambda store: changed_result(store, study="beef"),
        *("warning", "quick/1", "result.json is of another study \\('beef' instead of "),
    ),
    "a result.json of another trial": Break(
        lambda store: changed_result(store, number=2), "warning", "quick/1", "result.json is of trial 2"
    ),
    "a result.json without a value": Break(
        lambda store: changed_result(store, values=[]), "warning", "quick/1", "result.json is not whole"
    ),
    "a result.json that says something else": Break(
        lambda store: changed_result(store, values=[0.125]),
        "warning",
        "quick/1",
        "says COMPLETE \\[0.125\\], the study",
    ),
    "no folder of the sweep": Break(
        lambda store: shutil.rmtree(store.sweep("quick")), "error", "sweep quick", "its folder .*jobs/quick is gone"
    ),
    "the folder of another study": Break(
        lambda store: (store.sweep("quick") / ".study").write_text("beef"), "error", "sweep quick", "of another study"
    ),
    "no snapshot": Break(
        lambda store: shutil.rmtree(store.snapshot("quick") / "conf"), "warning", "sweep quick", "snapshot has no conf/"
    ),
    "no config": Break(
        lambda store: artifact(store, "config.yaml").unlink(), "error", "quick/1", "missing or empty: .*config.yaml"
    ),
    "an empty fingerprint": Break(
        lambda store: artifact(store, "fingerprint.json").write_bytes(b""), "error", "quick/1", "fingerprint.json$"
    ),
    "no model": Break(lambda store: model_file(store).unlink(), "error", "quick/1", "data/model.keras"),
    "a model that MLflow does not name": Break(
        lambda store: mlflow(store, f"delete from inputs where source_id = '{run_id(store)}'"),
        *("error", "quick/1", "missing or empty: its model"),
    ),
    "no file of MLflow": Break(lambda store: store.mlflow_db.unlink(), "error", "mlflow.db", "there is no file"),
    "an empty file": Break(lambda store: store.mlflow_db.write_bytes(b""), "error", "mlflow.db", "is empty"),
    "no database": Break(
        lambda store: store.studies_db.write_text("words, and more words"), "error", "studies.db", "begins with b'words"
    ),
    "noise in a database": Break(
        lambda store: overwritten(store.studies_db, 8192), "error", "studies.db", "studies.db is damaged: "
    ),
    "half a database": Break(
        lambda store: os.truncate(store.mlflow_db, 300_000), "error", "mlflow.db", "mlflow.db is damaged: "
    ),
    "somebody else's database": Break(
        lambda store: (store.studies_db.unlink(), change(store.studies_db, "create table a (b)")),
        *("error", "studies.db", "is not of optuna: no such table"),
    ),
    "MLflow's of yesterday": Break(
        lambda store: mlflow(store, "update alembic_version set version_num = '451aebb31d03'"),
        *("error", "mlflow.db", "of an older mlflow than"),
    ),
    "Optuna's of tomorrow": Break(
        lambda store: studies(store, "update alembic_version set version_num = 'v99.0.0'"),
        *("error", "studies.db", "of a newer optuna than"),
    ),
    "half a store": Break(half_a_store, "warning", "^.creating$", "half a store", mends=True),
    "a draft of a result": Break(
        lambda store: draft(store.job("quick", 1) / ".result.json.0123456789ab"),
        *("warning", "jobs/quick/1/.result.json.0123456789ab", "a draft"),
        mends=True,
    ),
    "a draft of a report": Break(
        lambda store: draft(store.reports / ".quick.html.0123456789ab"), "warning", "^reports/.quick", "a draft", True
    ),
    "decoded images": Break(images, "warning", "^jobs/quick/images$", "decoded images, of a sweep that", mends=True),
    "half of the decoded images": Break(half_images, "warning", "^jobs/quick/tmpab1_2cde$", "half of the", mends=True),
    "a copy of before a relocation": Break(
        lambda store: (store.root / "mlflow.db.before-relocate").touch(),
        "warning",
        "^mlflow.db.before",
        "relocate",
        True,
    ),
    "a lock that nobody holds": Break(
        lambda store: store.lock("quick").write_text('{"host": "a", "pid": 1, "process_start": 1.0}'),
        *("note", "sweep quick", "its last parent had no time to sign off"),
        mends=True,
    ),
    "a folder without a study": Break(
        lambda store: store.snapshot("other").mkdir(parents=True), "note", "jobs/other", "of a sweep that has no study"
    ),
}
