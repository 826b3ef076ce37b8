"""`besom doctor`, `besom repair` and `besom relocate` of sweeps whose study is in a real PostgreSQL server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from broken import NOBODY, SMALL, mlflow
from conftest import BesomCommand, Folder, until
from databases import Postgres, postgres
from test_postgres import SLOW, n_ended, started, whole

from besom.errors import SweepLocked
from besom.paths import Store
from besom.spool.client import RunWriter
from besom.spool.operations import End
from besom.study_lock import StudyLock, study_holder, study_lock
from besom.upkeep.books import open_books
from besom.upkeep.relocate import relocate
from besom.upkeep.studies import study_of
from besom.upkeep.untouched import looking
from besom.whereabouts import names_in_servers

pytestmark = pytest.mark.service

OF_MACHINE = ("disk", "environment")


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, besom_command: BesomCommand, server: Postgres) -> Path:
    """The store of a finished sweep, its study in the database ``kept``."""
    server.sql("create database kept")
    path = tmp_path_factory.mktemp("swept")
    given = {"BESOM_STORAGE": whole(server.url("kept"))}
    Folder(path, besom_command).besom("sweep", "quick", *SMALL, env=given)
    return path / "mlruns"


@dataclass(frozen=True)
class Made:
    """A copy of that store with a copy of its database, to be broken."""

    folder: Folder
    store: Store
    server: Postgres
    url: str

    def sql(self, statement: str) -> str:
        return self.server.sql(statement, self.url.rpartition("/")[2]).strip()

    def found(self, *args: str) -> list[tuple[str, str, str]]:
        """Return what doctor finds beside what is told of every machine."""
        done = self.folder._command("doctor", *args, "--format", "json", cwd=self.folder.path)
        assert done.returncode in (0, 1), done.stderr
        findings = json.loads(done.stdout)["findings"]
        return [(one["level"], one["where"], one["what"]) for one in findings if one["where"] not in OF_MACHINE]

    def repaired(self, *args: str, code: int = 0) -> list[tuple[str, str, str]]:
        deeds = self.folder.json("repair", *args, code=code)["deeds"]
        return [(one["deed"], one["where"], one["what"]) for one in deeds]

    def leave_running(self, *numbers: int) -> None:
        """Bring the study to where a killed parent leaves it."""
        some = ",".join(map(str, numbers))
        self.sql(f"update trials set state = 'RUNNING', datetime_complete = null where number in ({some})")
        self.sql(
            "delete from trial_user_attributes where key = 'outcome' and trial_id in "
            f"(select trial_id from trials where number in ({some}))"
        )

    def states(self) -> str:
        return self.sql("select string_agg(state::text, ' ' order by number) from trials")

    def run_id(self, number: int) -> str:
        value = self.sql(
            "select value_json from trial_user_attributes join trials using (trial_id) "
            f"where key = 'run_id' and number = {number}"
        )
        return str(json.loads(value))

    def content(self) -> dict[str, bytes]:
        """Return every file of the store but those that SQLite and locks make and remove."""
        files = [file for file in self.store.root.rglob("*") if file.is_file() and not file.name.endswith("-shm")]
        return {str(file): file.read_bytes() for file in files}


@pytest.fixture
def made(
    swept: Path, tmp_path: Path, server: Postgres, besom_command: BesomCommand, monkeypatch: pytest.MonkeyPatch
) -> Made:
    name = f"d{time.time_ns()}"
    server.sql(f"create database {name} template kept")
    shutil.copytree(swept, tmp_path / "mlruns")
    store, url = Store.at(tmp_path / "mlruns"), server.url(name)
    relocate(store)
    store.storage("quick").write_text(url)
    monkeypatch.setenv("BESOM_STORAGE", whole(url))

    def command(*args: str, cwd: Path, env: dict[str, str] | None = None, timeout: float = 120) -> Any:
        return besom_command(*args, cwd=cwd, env={"BESOM_STORAGE": whole(url), **(env or {})}, timeout=timeout)

    return Made(Folder(tmp_path, command), store, server, url)  # type: ignore[arg-type]


@contextmanager
def stopped(server: Postgres) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.start()


def test_of_a_whole_sweep_nothing_is_wrong_and_nothing_is_to_be_mended(made: Made) -> None:
    assert made.found() == made.found("quick") == []
    assert made.repaired() == made.repaired("quick") == []
    assert "no sweep 'other'" in made.folder.besom("doctor", "other", code=2).stderr
    assert "no sweep 'other'" in made.folder.besom("repair", "other", code=2).stderr


def test_trials_of_a_dead_parent_are_found_and_closed_in_the_server(made: Made) -> None:
    made.leave_running(1, 2)
    (made.store.job("quick", 2) / "result.json").unlink()
    run = made.run_id(2)
    mlflow(
        made.store,
        f"update runs set status = 'RUNNING', end_time = null where run_uuid = '{run}'",
        f"update tags set value = '{NOBODY}' where key = 'pid' and run_uuid = '{run}'",
    )
    found = {where: what for level, where, what in made.found() if level == "warning"}
    assert found.keys() == {"quick/1", "quick/2"}
    assert "its parent is dead and its result is whole: COMPLETE" in found["quick/1"]
    assert "its parent is dead and it left no result" in found["quick/2"]
    would = made.repaired("--dry-run")
    assert {deed for deed, _, _ in would} == {"would"}
    assert made.states() == "COMPLETE RUNNING RUNNING"
    done = made.repaired()
    assert [(where, what) for deed, where, what in done if deed == "done"] == [one[1:] for one in would]
    assert made.states() == "COMPLETE COMPLETE FAIL"
    assert made.found() == made.repaired() == []
    assert not made.store.studies_db.exists()


def test_of_a_sweep_that_was_killed_every_trial_is_closed_and_the_rest_is_trained(
    made: Made, clean_environment: dict[str, str]
) -> None:
    (made.folder.path / "slow.yaml").write_text(SLOW)
    ended = n_ended(made.server, made.url)
    sweep = started(made.folder, made.url, clean_environment, "slow.yaml")
    until(lambda: n_ended(made.server, made.url) >= ended + 2, 120)
    assert [one[0] for one in made.repaired("slow")] == ["alone"]
    os.killpg(sweep.pid, signal.SIGKILL)
    sweep.wait()
    assert {where for level, where, _ in made.found("slow") if level == "warning"} != set()
    assert {deed for deed, _, _ in made.repaired("slow")} == {"done"}
    assert "RUNNING" not in made.states()
    assert [one for one in made.found("slow") if one[0] != "note"] == made.repaired("slow") == []
    made.folder.besom("sweep", "slow.yaml")
    states = [trial["state"] for trial in made.folder.json("runs", "slow", "--all")["trials"]]
    assert states.count("COMPLETE") == 8


def test_what_waits_for_mlflow_is_told_it_and_the_study_in_the_server_which_run_it_became(made: Made) -> None:
    run = made.run_id(1)
    mlflow(
        made.store,
        f"update runs set status = 'RUNNING', end_time = null where run_uuid = '{run}'",
        f"update tags set value = 'RUNNING' where key = 'state' and run_uuid = '{run}'",
    )
    spool = made.store.spool("quick")
    writer = RunWriter(made.store.mlflow_uri, made.store, spool, run, 1, is_away=True, is_quiet=True)
    writer.write(End("FINISHED", 1_700_000_000_000, {"state": "COMPLETE"}))
    del writer
    assert [what for _, where, what in made.found() if where == "sweep quick"] != []
    assert {deed for deed, _, _ in made.repaired()} == {"done"}
    assert made.found() == made.repaired() == []


def test_while_a_parent_lives_on_another_machine_nothing_is_touched(made: Made) -> None:
    made.leave_running(1)
    before = made.content()
    lock = StudyLock(made.url, "quick")
    lock.acquire()
    try:
        who = f"process {os.getpid()} of {socket.gethostname()} works on it"
        assert made.found() == [("note", "sweep quick", f"{who}; it is checked when nobody does")]
        for args in ((), ("quick",), ("--dry-run",)):
            assert made.repaired(*args) == [("alone", "sweep quick", f"{who}: it is left alone")]
    finally:
        lock.release()
    assert made.states() == "COMPLETE RUNNING COMPLETE"
    assert made.content() == before
    assert [one[0] for one in made.repaired()] == ["done"]


def test_who_lost_the_lock_to_another_writes_nothing(made: Made) -> None:
    with study_lock(made.url, "quick"), looking() as look:
        study = study_of(made.store, "quick", look)
        assert study is not None
        assert study.storage is not None
        books = open_books(made.store, "quick", study, look, last_parent={})
        books.open_study().engine.dispose()
        made.server.sql("select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'")
        other = StudyLock(made.url, "quick")
        other.acquire()
        try:
            with pytest.raises(SweepLocked):
                books.open_study()
        finally:
            other.release()
            study.storage.engine.dispose()


def test_a_lock_of_that_name_in_another_database_is_another_ones(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    other = made.server.url("kept")
    monkeypatch.setenv("BESOM_STORAGE", whole(other))
    with study_lock(made.url, "quick"):
        assert study_holder(made.url, "quick") == {"host": socket.gethostname(), "pid": str(os.getpid())}
        assert study_holder(other, "quick") is None


class TestTakenUpElsewhere:
    @pytest.fixture
    def elsewhere(self, made: Made, tmp_path: Path) -> Made:
        """Another machine's store of the same sweep, which trained one trial more."""
        (tmp_path / "elsewhere").mkdir()
        folder = Folder(tmp_path / "elsewhere", made.folder._command)
        folder.besom("sweep", "quick", *SMALL, "--trials", "4")
        return Made(folder, Store.at(folder.path / "mlruns"), made.server, made.url)

    def test_each_store_is_checked_for_what_ran_from_it(self, made: Made, elsewhere: Made) -> None:
        told = "ran from another store: what they left is checked there"
        assert made.found() == [("note", "sweep quick", f"trials 3 {told}")]
        assert elsewhere.found() == [("note", "sweep quick", f"trials 0, 1, 2 {told}")]
        assert made.repaired() == elsewhere.repaired() == []

    def test_a_trial_that_another_store_may_have_the_result_of_is_left_to_it(self, made: Made, elsewhere: Made) -> None:
        made.leave_running(3)
        level, where, what = made.found()[0]
        assert (level, where) == ("note", "quick/3")
        assert "it may have run from another store" in what
        assert [one[:2] for one in made.repaired()] == [("alone", "quick/3")]
        assert made.states() == "COMPLETE COMPLETE COMPLETE RUNNING"
        assert [one[0] for one in elsewhere.repaired()] == ["done"]
        assert made.states() == "COMPLETE COMPLETE COMPLETE COMPLETE"

    def test_other_images_are_refused_there_too(self, made: Made, tmp_path: Path) -> None:
        folders, images = [], np.random.default_rng(0).integers(0, 256, (300, 28, 28), dtype=np.uint8)
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            folders.append(Folder(tmp_path / name, made.folder._command))
            np.savez(tmp_path / name / "mine.npz", x=images, y=np.arange(300) % 3)
            images[0, 0, 0] ^= 1
        own = ("data=npz", "data.path=mine.npz", "data.n_train=150", "data.n_val=60", "data.n_test=60")
        sweep = ("sweep", "quick", "--name", "mine", *own, "train.epochs=1")
        folders[0].besom(*sweep, "--trials", "1")
        refused = folders[1].besom(*sweep, "--trials", "2", code=2).stderr
        assert "sweep 'mine' was started with other images (SHA-256 " in refused
        assert not (tmp_path / "two" / "mlruns").exists()
        shutil.copy(tmp_path / "one" / "mine.npz", tmp_path / "two" / "mine.npz")
        folders[1].besom(*sweep, "--trials", "2")

    def test_a_lost_folder_or_run_of_this_store_is_still_told(self, made: Made, elsewhere: Made) -> None:
        shutil.rmtree(made.store.job("quick", 1))
        mlflow(made.store, f"update runs set lifecycle_stage = 'deleted' where run_uuid = '{made.run_id(2)}'")
        found = {where: what for level, where, what in made.found() if level != "note"}
        assert found["quick/1"].endswith("result.json is missing")
        assert "MLflow has no run" in found["quick/2"]


class TestAway:
    def test_a_server_that_does_not_answer_is_a_finding_of_its_own_and_the_rest_is_checked(self, made: Made) -> None:
        (made.store.root / "jobs" / "quick" / ".result.json.0123456789ab").write_text("")
        os.utime(made.store.root / "jobs" / "quick" / ".result.json.0123456789ab", (1, 1))
        before = made.content()
        with stopped(made.server):
            start = time.monotonic()
            found = made.found()
            left = made.repaired(code=1)
            took = time.monotonic() - start
        assert took < 30
        why = f"its study cannot be read: hydra.sweeper.storage={made.url} cannot be reached: "
        assert [one[:2] for one in found] == [
            ("error", "sweep quick"),
            ("warning", "jobs/quick/.result.json.0123456789ab"),
        ]
        assert found[0][2].startswith(why)
        assert [one[:2] for one in left] == [("left", "sweep quick")]
        assert left[0][2].startswith(why)
        assert made.content() == before

    def test_one_that_takes_connections_and_says_nothing_is_waited_for_once_and_for_seconds(self, made: Made) -> None:
        shutil.copytree(made.store.sweep("quick"), made.store.sweep("second"))
        with socket.create_server(("127.0.0.1", 0), backlog=8) as silent:
            url = f"postgresql+psycopg://besom@127.0.0.1:{silent.getsockname()[1]}/optuna"
            for name in ("quick", "second"):
                made.store.storage(name).write_text(url)
            start = time.monotonic()
            done = made.folder._command(
                "doctor", "--format", "json", cwd=made.folder.path, env={"BESOM_STORAGE": whole(url)}
            )
            took = time.monotonic() - start
        found = json.loads(done.stdout)["findings"]
        assert [one["where"] for one in found if one["level"] == "error"] == ["sweep quick", "sweep second"]
        assert 5 < took < 20

    def test_a_user_without_rights_is_told_so(self, made: Made) -> None:
        user = f"u{time.time_ns()}"
        made.server.sql(f"create role {user} login password 'of-nobody'")
        url = made.url.replace("besom@", f"{user}@")
        made.store.storage("quick").write_text(url)
        given = {"BESOM_STORAGE": url.replace("@", ":of-nobody@")}
        for args in (("status", "quick"), ("sweep", "quick", *SMALL), ("delete", "quick", "--yes")):
            refused = made.folder.besom(*args, code=2, env=given).stderr
            assert f"{url} cannot be used: permission denied for table" in refused
        assert "permission denied for table" in made.folder.besom("doctor", code=1, env=given).stdout

    def test_a_server_that_only_the_store_names_is_not_asked(self, made: Made) -> None:
        made.store.storage("quick").write_text("postgresql+psycopg://besom@db.example.org/optuna")
        [(level, where, what)] = made.found()
        assert (level, where) == ("error", "sweep quick")
        assert "if that is your server, say so: BESOM_STORAGE=postgresql+psycopg://besom@db.example.org/optuna" in what

    def test_a_database_without_the_study_is_told_and_nothing_is_made_in_it(self, made: Made) -> None:
        empty = f"e{time.time_ns()}"
        made.server.sql(f"create database {empty}")
        url = made.server.url(empty)
        made.store.storage("quick").write_text(url)
        before = made.content()
        assert made.found() == [
            ("error", "sweep quick", f"its study cannot be read: {url} has no study 'quick' any more")
        ]
        assert [one[0] for one in made.repaired(code=1)] == ["left"]
        for args in (("status", "quick"), ("reproduce", "quick"), ("export", "quick/0", "out"), ("confirm", "quick")):
            assert f"{url} has lost it" in made.folder.besom(*args, code=2).stderr
        refused = made.folder.besom("sweep", "quick", *SMALL, code=2).stderr
        assert f"has the results of 3 trials, and {url} does not know their sweep" in refused
        assert "-wal" not in refused
        assert made.content() == before
        assert made.server.sql("select count(*) from pg_tables where schemaname = 'public'", empty).strip() == "0"


def test_a_moved_store_is_brought_after_itself_without_its_server_which_has_no_path_of_it(made: Made) -> None:
    new = made.folder.path / "data"
    shutil.move(made.store.root, new)
    moved = Made(made.folder, Store.at(new), made.server, made.url)
    with stopped(made.server):
        made.folder.besom("relocate", "--store", "data")
    assert moved.found("--store", "data") == moved.repaired("--store", "data") == []
    old = str(made.store.root)
    for table in ("study_user_attributes", "study_system_attributes", "trial_user_attributes"):
        assert made.sql(f"select count(*) from {table} where value_json like '%{old}%'") == "0"
    assert "bit-identical" in made.folder.besom("reproduce", "quick", "--store", "data").stdout


def test_a_sweep_that_is_named_as_the_file_with_its_storage_is_no_sweep_called_locks(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    for file in (store.lock("storage"), store.storage("quick")):
        file.parent.mkdir(parents=True)
        file.touch()
    assert names_in_servers(store) == ["quick"]
