"""SQLite files of a store: what changes by itself is refused, what cannot heal is not tried again, a copy is of now."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from besom.app.store import create_store
from besom.databases import PAUSE, Patience, PatientConnection, copied, readable, rules_in, tables_in
from besom.errors import StoreBusy, StoreDamaged
from besom.paths import Store
from besom.storage import open_storage
from besom.upkeep.check_databases import databases
from besom.upkeep.untouched import looking


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store as the installed MLflow and Optuna make it."""
    store = Store.at(tmp_path_factory.mktemp("fresh") / "mlruns")
    create_store(store)
    open_storage(store.studies_uri)
    return store


def filled(file: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(file)) as database, database:
        for statement in statements:
            database.execute(statement)
    return file


def test_what_the_libraries_make_themselves_passes(fresh: Store) -> None:
    assert "runs" in tables_in(fresh.mlflow_db)
    assert "trials" in tables_in(fresh.studies_db)
    with looking() as look:
        assert list(databases(fresh, look)) == []


REFUSING = "create trigger t before update on a when new.b = 1 begin select raise(abort, 'no; never'); end"
CHANGING = {
    "a trigger": "create trigger t after insert on a begin update a set b = '/elsewhere'; end",
    "one that refuses, too": "create trigger t before update on a begin delete from a; select raise(abort, 'no'); end",
    "one that looks so": "create trigger t before update on a when 'begin select raise(abort, ''no''); end' begin "
    "delete from a; select raise(abort, 'begin select raise(abort, '); end",
    "a view": "create view runs as select b from a",
}


@pytest.mark.parametrize("statement", CHANGING.values(), ids=CHANGING)
def test_what_changes_rows_or_hides_them_is_refused(statement: str, tmp_path: Path) -> None:
    file = filled(tmp_path / "mlflow.db", "create table a (b)", REFUSING.replace("trigger t", "trigger harmless"))
    assert tables_in(file) == {"a"}
    filled(file, statement)
    with pytest.raises(StoreDamaged, match=r"mlflow.db has the (trigger 't'|view 'runs'), which no library makes"):
        tables_in(file)
    with closing(sqlite3.connect(file)) as database:
        assert len(rules_in(database)) == 1


def test_a_trigger_in_a_store_is_found_by_the_doctor(fresh: Store, tmp_path: Path) -> None:
    with closing(sqlite3.connect(fresh.mlflow_db)) as whole, closing(sqlite3.connect(tmp_path / "mlflow.db")) as copy:
        whole.backup(copy)
        copy.execute("create trigger t after insert on tags begin update runs set artifact_uri = '/elsewhere'; end")
    with looking() as look:
        [found] = databases(Store(tmp_path), look)
    assert (found.level, found.where) == ("error", "mlflow.db")
    assert "has the trigger 't', which no library makes" in found.what


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return filled(tmp_path / "a.db", "PRAGMA journal_mode=WAL", "create table a (b)", "insert into a values (1)")


def test_a_transaction_that_others_have_overtaken_is_not_tried_again(file: Path) -> None:
    with closing(sqlite3.connect(file, factory=PatientConnection)) as mine:
        mine.isolation_level = None
        mine.cursor().execute("begin")
        mine.cursor().execute("select b from a").fetchall()
        filled(file, "insert into a values (2)")
        since = time.monotonic()
        with pytest.raises(StoreBusy, match=f"{file} was written by another program while this one read it; nothing"):
            mine.cursor().execute("insert into a values (3)")
        assert time.monotonic() - since < 1
        mine.cursor().execute("rollback")
        mine.cursor().execute("insert into a values (3)")


def test_what_is_refused_at_once_is_tried_again_after_a_pause(file: Path) -> None:
    attempts: list[float] = []

    def refused() -> None:
        attempts.append(time.monotonic())
        with closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as other:
            other.execute("begin immediate")

    with closing(sqlite3.connect(file, isolation_level=None)) as holder:
        holder.execute("begin immediate")
        with pytest.raises(StoreBusy):
            Patience(str(file), 5 * PAUSE)(refused)
    assert 2 <= len(attempts) <= 7


WRITER = """
import sqlite3, sys
while True:
    database = sqlite3.connect(sys.argv[1])
    database.execute("insert into a values (1)")
    database.commit()
    database.close()
"""
"""Its ``-wal`` comes and goes."""


@pytest.fixture
def writer(file: Path) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(file)]) as process:
        yield
        process.kill()


def test_a_wal_that_goes_while_it_is_copied_is_no_failure(file: Path, tmp_path: Path, writer: None) -> None:
    assert False not in [copied(file, tmp_path / f"copy {n}") for n in range(20)]


def test_a_copy_has_no_wal_of_an_attempt_before(file: Path, tmp_path: Path) -> None:
    (tmp_path / "copy-wal").write_bytes(b"of another")
    assert copied(file, tmp_path / "copy")
    assert not (tmp_path / "copy-wal").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_what_is_read_by_way_of_a_copy_is_as_it_is_now() -> None:
    with tempfile.TemporaryDirectory(prefix="besom-test-") as name:
        folder = Path(name)
        file = filled(folder / "a.db", "PRAGMA journal_mode=WAL", "create table a (b)", "insert into a values (1)")
        folder.chmod(0o755)
        child = os.fork()
        if child == 0:  # pragma: no cover
            is_right = False
            try:
                is_right = _is_of_now(file)
            finally:
                os._exit(0 if is_right else 1)
        assert os.waitpid(child, 0)[1] == 0


def _is_of_now(file: Path) -> bool:  # pragma: no cover
    """Read as somebody who may not write, before and after somebody who may has written."""
    found = []
    for statement in ("insert into a values (2)", "insert into a values (3)"):
        os.setresuid(65534, 65534, 0)
        there, again = readable(file), readable(file)
        assert there == again != file, "it is copied once"
        with closing(sqlite3.connect(there)) as database:
            found.append(database.execute("select count(*) from a").fetchone()[0])
        os.setresuid(0, 0, 0)
        filled(file, statement)
    return found == [1, 2]
