"""A store appears whole or not at all, once, however many parents want it at the same time."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from conftest import BesomCommand

from besom.app.store import create_store, databases_of, refuse_two_machines
from besom.errors import ConfigError, SweepLocked
from besom.lock import is_of_another_boot, parent_lock, process_identity
from besom.paths import Store, write_atomically

pytestmark = pytest.mark.filterwarnings(
    # MLflow's own mappers, with SQLAlchemy 2.1
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
)


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store that two parents made at the same time, after a third was killed while it made it."""
    store = Store.at(tmp_path_factory.mktemp("project") / "mlruns")
    killed = store.root / ".creating"
    killed.mkdir(parents=True)
    (killed / "mlflow.db").write_bytes(b"half a database")
    with ThreadPoolExecutor(2) as parents:
        list(parents.map(create_store, [store, store]))
    return store


def rows(store: Store, query: str) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(store.mlflow_db)) as connection:
        return connection.execute(query).fetchall()


def test_the_database_is_migrated_and_in_wal_mode(raced: Store) -> None:
    assert raced.exists
    assert rows(raced, "PRAGMA journal_mode") == [("wal",)]
    assert len(rows(raced, "SELECT version_num FROM alembic_version")) == 1


def test_the_default_experiment_writes_into_the_store(raced: Store) -> None:
    assert rows(raced, "SELECT artifact_location FROM experiments") == [(f"{raced.artifacts.as_uri()}/0",)]


def test_nothing_of_a_killed_creation_is_left(raced: Store) -> None:
    visible = {path.name for path in raced.root.iterdir() if not path.name.endswith((".lock", "-wal", "-shm"))}
    assert visible == {"mlflow.db"}


def test_a_store_that_is_there_is_left_alone(raced: Store) -> None:
    before = raced.mlflow_db.stat()
    create_store(raced)
    after = raced.mlflow_db.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_store_in_a_folder_of_any_name_is_made_without_a_word(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    store = Store.at(tmp_path / "my sweeps #1, é")
    with caplog.at_level(logging.INFO):
        create_store(store)
    assert store.exists
    assert [path.name for path in tmp_path.iterdir()] == [store.root.name]
    assert (*capfd.readouterr(), caplog.text) == ("", "", "")


def test_a_file_in_the_place_of_the_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlruns").write_text("not a folder")
    with pytest.raises(ConfigError, match=r"^paths\.store='.*mlruns' cannot be made: .*; expected a folder that can"):
        create_store(Store.at(tmp_path / "mlruns"))


class TestOneStoreOfTwoMachines:
    """A disk that both have: SQLite's files stand only one of them at a time."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = Store.at(tmp_path / "mlruns")
        lock = store.lock("theirs")
        with parent_lock(lock, "theirs"):
            who = json.loads(lock.read_text())
            lock.write_text(json.dumps({**who, "host": "another", "process_boot": "0-another-boot/1"}))
            yield store

    def test_a_sweep_is_refused_while_another_machine_runs_one(
        self, store: Store, tmp_path: Path, besom_command: BesomCommand
    ) -> None:
        refused = besom_command("sweep", "quick", "--trials", "1", cwd=tmp_path)
        assert refused.returncode == 2
        assert "studies.db and " in refused.stderr
        assert "and another runs sweep 'theirs' in it; wait for that, or give another store" in refused.stderr
        assert not store.exists
        assert not store.sweep("quick").exists()

    SERVERS = ("postgresql+psycopg://me@db/studies", "http://mlflow:5000")

    def test_who_has_both_in_servers_is_not(self, store: Store) -> None:
        refuse_two_machines(store, "ours", databases_of(store, *self.SERVERS))

    def test_neither_is_who_meets_one_whose_study_and_runs_are_there(self, store: Store) -> None:
        write_atomically(store.storage("theirs"), self.SERVERS[0])
        with pytest.raises(SweepLocked, match=r"mlflow\.db of this store"):
            refuse_two_machines(store, "ours", databases_of(store, store.studies_uri, store.mlflow_uri))
        write_atomically(store.tracking_uri("theirs"), self.SERVERS[1])
        refuse_two_machines(store, "ours", databases_of(store, store.studies_uri, store.mlflow_uri))

    def test_a_process_of_this_machine_is_none_of_another(self) -> None:
        assert not is_of_another_boot(process_identity())
