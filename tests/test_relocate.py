"""A moved or copied store: known at once, refused where it would write into the original, mended."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from broken import Kept
from conftest import BesomCommand, Folder, until
from stored import study_in, trial

import besom.app.cli
from besom.app.store import create_store
from besom.contained import LOCATIONS
from besom.errors import ConfigError, StoreDamaged, SweepLocked
from besom.lock import parent_lock
from besom.paths import Store
from besom.spool.journal import Journal
from besom.storage import load_study
from besom.upkeep import relocate as relocate_module
from besom.upkeep.moved import former_home, refuse_moved
from besom.upkeep.relocate import COLUMNS, relocate

READERS = ("status", "runs", "best")
OTHERS = (
    *("predict toy", "diff toy/0 toy/1", "export toy out", "report toy", "confirm toy", "reproduce toy"),
    *("delete toy --yes", "ui toy", "repair", "train", "sweep quick"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with a study in it, at home."""
    store = Store.at(tmp_path_factory.mktemp("made") / "mlruns")
    create_store(store)
    study_in(store).add_trial(trial("complete", [0.5], {"model.activation": "relu"}))
    gc.collect()  # a connection that is closed later would fold the -wal in meanwhile
    return store


@pytest.fixture
def copy(made: Store, tmp_path: Path) -> Store:
    """A copy of it, which is not."""
    shutil.copytree(made.root, tmp_path / "my copy #1")
    return Store.at(tmp_path / "my copy #1")


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Return what files hold, but for those that SQLite makes beside a database to read it."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith("-shm")]
    return {str(path): content for path in files if (content := path.read_bytes()) or path.suffix != ".db-wal"}


def addresses(store: Store) -> list[str]:
    with closing(sqlite3.connect(store.mlflow_db)) as database:
        return [address for (address,) in database.execute("select artifact_location from experiments")]


def test_a_store_at_home_is_one_through_a_link_too(made: Store, tmp_path: Path) -> None:
    assert former_home(made) is None
    (tmp_path / "link").symlink_to(made.root)
    assert former_home(Store.at(tmp_path / "link")) is None
    refuse_moved(made)
    assert former_home(Store.at(tmp_path / "nothing")) is None


def test_a_copied_store_and_a_moved_one_are_known(made: Store, copy: Store, tmp_path: Path) -> None:
    assert former_home(copy) == made.root
    with pytest.raises(ConfigError, match=r"was copied from .*; expected a store at home: 'besom relocate --store "):
        refuse_moved(copy)
    with closing(sqlite3.connect(copy.mlflow_db)) as database, database:
        database.execute("update experiments set artifact_location = 'file:///gone%20away/artifacts/0'")
    assert former_home(copy) == Path("/gone away")
    with pytest.raises(ConfigError, match="was moved from /gone away, where"):
        refuse_moved(copy)


@pytest.mark.parametrize(
    "address", ["mlflow-artifacts:/0", "s3://bucket/artifacts/0", "/elsewhere/mlruns/0", "file:///elsewhere/0"]
)
def test_artifacts_that_are_elsewhere_on_purpose_are_no_move(address: str, copy: Store) -> None:
    with closing(sqlite3.connect(copy.mlflow_db)) as database, database:
        database.execute("update experiments set artifact_location = ?", [address])
    assert former_home(copy) is None
    assert relocate(copy) == ([], [], [])


@pytest.mark.parametrize("command", READERS)
def test_who_reads_studies_only_says_so_and_goes_on(
    command: str, copy: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert besom.app.cli.run([command, "toy", "--store", str(copy.root)]) == 0
    out, err = capsys.readouterr()
    assert "toy" in out or "0.5" in out
    assert len(err.splitlines()) == 1
    assert f"besom: the store {copy.root} was copied from " in err
    assert f"'besom relocate --store {copy.root}' mends that" in err


@pytest.mark.parametrize("command", OTHERS)
def test_who_writes_or_reads_artifacts_refuses_before_anything_is_touched(
    command: str, copy: Store, made: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy.root.parent)
    monkeypatch.setenv("BESOM_STORE", str(copy.root))
    before = bytes_of(copy.root.parent), bytes_of(made.root)
    assert besom.app.cli.run(command.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "besom relocate" in err
    after = bytes_of(copy.root.parent), bytes_of(made.root)
    assert [set(one) for one in after] == [set(one) for one in before]
    assert after == before


def test_a_store_that_was_not_moved_is_left_alone(made: Store, capsys: pytest.CaptureFixture[str]) -> None:
    before = bytes_of(made.root)
    assert besom.app.cli.run(["relocate", "--store", str(made.root)]) == 0
    assert "nothing has moved" in capsys.readouterr().out
    assert bytes_of(made.root) == before
    assert besom.app.cli.run(["relocate", "--store", str(made.root.parent)]) == 2


def test_every_path_is_brought_after_the_store_in_the_form_it_had(copy: Store, made: Store) -> None:
    with closing(sqlite3.connect(copy.mlflow_db)) as database, database:
        values = f"'active', 'default', '{made.artifacts}/5'"  # as `mlflow server` writes it
        database.execute(
            "insert into experiments (experiment_id, name, lifecycle_stage, workspace, artifact_location) "
            f"values (5, 'of a UI', {values}), (6, 'of a bucket', 'active', 'default', 's3://b/artifacts/6')"
        )
    study = load_study(copy.studies_uri, "toy")
    study.set_user_attr("home", str(made.sweep("toy")))
    for name, uri in (("toy", made.mlflow_uri), ("served", "http://me@host"), ("other", "sqlite:////x/a.db")):
        copy.sweep(name).mkdir(parents=True)
        copy.tracking_uri(name).write_text(uri)
    journal = Journal(copy.spool("toy") / "r")
    journal.append({"op": "note"}, head={"run_id": "r", "uri": made.mlflow_uri})
    former, changes, elsewhere = relocate(copy)
    assert former == [made.root]
    assert journal.head()["uri"] == copy.mlflow_uri
    assert journal.operations() == [{"op": "note"}]
    assert addresses(copy) == [f"{copy.artifacts.as_uri()}/0", f"{copy.artifacts}/5", "s3://b/artifacts/6"]
    assert load_study(copy.studies_uri, "toy").user_attrs["home"] == str(copy.sweep("toy"))
    assert copy.tracking_uri("toy").read_text() == copy.mlflow_uri
    assert [(one.what, one.number) for one in changes] == [
        ("studies.db: home", 1),
        ("jobs/SWEEP/tracking_uri", 1),
        ("spool: journals", 1),
        ("mlflow.db: experiments.artifact_location", 2),
    ]
    assert [(one.sweep, one.uri) for one in elsewhere] == [("other", "sqlite:////x/a.db"), ("served", "http://me@host")]
    assert not list(copy.root.glob("*.before-relocate"))
    assert former_home(copy) is None
    assert relocate(copy) == ([], [], [])


def test_a_sweep_that_runs_is_not_relocated(copy: Store, made: Store) -> None:
    with (
        parent_lock(copy.lock("toy"), "toy"),
        pytest.raises(SweepLocked, match=f"sweep 'toy' is being run by process {os.getpid()}"),
    ):
        relocate(copy)
    assert former_home(copy) == made.root


@pytest.mark.parametrize(("name", "table"), [("mlflow.db", "runs"), ("studies.db", "trials")])
def test_a_store_that_somebody_has_open_is_not_relocated(name: str, table: str, copy: Store, made: Store) -> None:
    file = str(copy.root / name)
    code = (
        f"import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('select 1 from {table}').fetchone(); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code, file], stdin=subprocess.PIPE) as user:
        until(lambda: any(one.path == file for one in psutil.Process(user.pid).open_files()))
        with pytest.raises(ConfigError, match=rf"process {user.pid} \(.*\) has .* open; expected nobody at work"):
            relocate(copy)
        user.communicate(b"\n")
    assert former_home(copy) == made.root
    assert relocate(copy)[0] == [made.root]


@pytest.mark.parametrize("moment", ["_mlflow", "_tracking_uris", "_replace"])
def test_killed_at_any_moment_it_is_made_again(moment: str, copy: Store, made: Store) -> None:
    load_study(copy.studies_uri, "toy").set_user_attr("home", str(made.sweep("toy")))
    gc.collect()  # the child would find it open
    child = os.fork()
    if child == 0:  # pragma: no cover
        try:
            setattr(relocate_module, moment, lambda *arguments: os.kill(os.getpid(), signal.SIGKILL))
            relocate(copy)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert former_home(copy) == made.root
    relocate(copy)
    assert former_home(copy) is None
    assert load_study(copy.studies_uri, "toy").user_attrs["home"] == str(copy.sweep("toy"))
    assert not list(copy.root.glob("*.before-relocate"))


def torn_journal(store: Store) -> None:
    journal = Journal(store.spool("toy") / "r")
    journal.append({"op": "note"}, head={"run_id": "r"})
    (journal.folder / "operations.jsonl").write_text('{"form')


def noise_for_an_address(store: Store) -> None:
    store.sweep("toy").mkdir(parents=True)
    store.tracking_uri("toy").write_bytes(b"\xff\xfe")


def pipe_for_an_address(store: Store) -> None:
    store.sweep("toy").mkdir(parents=True)
    os.mkfifo(store.tracking_uri("toy"))


def noise_for_a_home(store: Store) -> None:
    load_study(store.studies_uri, "toy").set_user_attr("home", "/x")
    with closing(sqlite3.connect(store.studies_db)) as database, database:
        database.execute("update study_user_attributes set value_json = '\"/x' where key = 'home'")


def empty_studies(store: Store) -> None:
    store.studies_db.write_bytes(b"")


def lock_of_a_file_system(store: Store) -> None:
    store.lock("toy").parent.mkdir(parents=True)
    (store.lock("toy").parent / ".nfs0001").touch()


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (torn_journal, "operations.jsonl is left as it is: it has no first line"),
        (noise_for_an_address, "tracking_uri is left as it is: 'utf-8' codec"),
        (pipe_for_an_address, "tracking_uri is left as it is: it is no plain file"),
        (noise_for_a_home, ""),
        (empty_studies, ""),
        (lock_of_a_file_system, ""),
    ],
)
def test_a_small_file_that_is_damaged_is_told_and_the_store_is_relocated(
    harm: Callable[[Store], None], told: str, copy: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    harm(copy)
    relocate(copy)
    assert former_home(copy) is None
    said = capsys.readouterr().err
    assert len(said.splitlines()) == bool(told)
    assert told in said


@pytest.mark.parametrize("name", ["mlflow.db", "studies.db"])
def test_a_database_that_is_none_is_refused_and_nothing_is_made(name: str, copy: Store) -> None:
    (copy.root / name).write_text("words, and more words")
    with pytest.raises(StoreDamaged, match=f"{name} is no SQLite database"):
        relocate(copy)
    (copy.root / name).unlink()
    (copy.root / name).symlink_to("gone.db")
    with pytest.raises(StoreDamaged, match=f"{name} is a link to nothing"):
        relocate(copy)
    assert not (copy.root / "gone.db").exists()


@pytest.mark.parametrize(
    ("path", "root", "former", "after"),
    [
        ("/a/jobs/toy", "/b", "/a", "/b/jobs/toy"),
        ("/c/jobs/toy", "/b", "/a", None),
        ("/b/jobs/toy", "/b", "/a", None),
        ("/a/jobs/toy", "/a/mlruns", "/a", "/a/mlruns/jobs/toy"),
        ("/a/mlruns/jobs/toy", "/a/mlruns", "/a", None),  # of a call that was killed
        ("/a/mlruns/jobs/toy", "/a", "/a/mlruns", "/a/jobs/toy"),
        ("/a/jobs/toy", "/a", "/a/mlruns", None),
        (1, "/b", "/a", None),
    ],
)
def test_a_path_is_brought_after_the_store_once(path: object, root: str, former: str, after: str | None) -> None:
    assert relocate_module._inside(path, Store(Path(root)), [Path(former)]) == after


def test_what_is_deleted_by_its_address_is_relocated_too(copy: Store, made: Store) -> None:
    told = {(query.split(" from ")[1].split()[0], query.split()[1]) for query in LOCATIONS}
    assert told <= set(COLUMNS)
    with closing(sqlite3.connect(copy.mlflow_db)) as database, database:
        database.execute(
            "insert into trace_info (request_id, experiment_id, timestamp_ms, execution_time_ms, status) "
            "values ('t', 0, 1, 1, 'OK')"
        )
        database.execute(
            "insert into trace_tags (request_id, key, value) values ('t', 'mlflow.artifactLocation', ?)",
            [f"{made.artifacts.as_uri()}/0/traces/t/artifacts"],
        )
    relocate(copy)
    with closing(sqlite3.connect(copy.mlflow_db)) as database:
        [(address,)] = database.execute("select value from trace_tags").fetchall()
    assert address == f"{copy.artifacts.as_uri()}/0/traces/t/artifacts"


def test_nothing_is_written_through_a_link(copy: Store, made: Store, tmp_path: Path) -> None:
    away = tmp_path / "mine"
    away.mkdir()
    (away / "tracking_uri").write_text(made.mlflow_uri)
    copy.sweep("toy").parent.mkdir()
    copy.sweep("toy").symlink_to(away)
    relocate(copy)
    assert (away / "tracking_uri").read_text() == made.mlflow_uri


SHORT = ("sweep", "quick", "train.epochs=2", "data.n_train=200", "data.n_val=100")


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory, besom_command: BesomCommand) -> tuple[Folder, Path]:
    """A folder with a swept store that was moved there and relocated, and where it was, which is gone."""
    kept = Kept(Folder(tmp_path_factory.mktemp("old"), besom_command))
    there = tmp_path_factory.mktemp("new place")
    kept.folder.path.rename(there / "moved")
    folder = Folder(there / "moved", besom_command)
    folder.besom("relocate")
    return folder, kept.folder.path


@pytest.mark.service
def test_no_database_holds_the_old_place_anywhere(moved: tuple[Folder, Path]) -> None:
    folder, old = moved
    for file in ("mlflow.db", "studies.db"):
        with closing(sqlite3.connect(folder.path / "mlruns" / file)) as database:
            assert not [line for line in database.iterdump() if str(old) in line]


@pytest.mark.service
def test_what_was_recorded_is_found_where_the_store_is_now(moved: tuple[Folder, Path]) -> None:
    folder, old = moved
    assert "nothing is wrong" in folder.besom("doctor").stdout
    assert len(folder.json("predict", "quick")["predictions"]) == 5
    assert folder.json("diff", "quick/0", "quick/1")["differs"]
    page = Path(folder.json("report", "quick")["page"])
    assert page.is_relative_to(folder.path)
    assert not old.exists()


@pytest.mark.service
def test_a_model_is_evaluated_where_the_store_is_now(moved: tuple[Folder, Path]) -> None:
    folder, old = moved
    assert folder.besom("reproduce", "quick", "--from-model").stdout.startswith("bit-identical")
    assert not old.exists()


@pytest.mark.service
def test_the_champion_is_loaded_by_mlflow_itself_where_the_store_is_now(moved: tuple[Folder, Path]) -> None:
    folder, old = moved
    code = (
        "import mlflow, sys; mlflow.set_tracking_uri(sys.argv[1]); "
        "model = mlflow.keras.load_model('models:/quick@champion'); print(model.count_params())"
    )
    command = [sys.executable, "-c", code, f"sqlite:///{folder.path}/mlruns/mlflow.db"]
    loaded = subprocess.run(command, capture_output=True, text=True, cwd=folder.path, check=False)
    assert loaded.stdout.split()[-1] == str(folder.json("best", "quick")["n_params"]), loaded.stderr
    assert not old.exists()


@pytest.mark.service
def test_the_sweep_goes_on_where_it_is_now(moved: tuple[Folder, Path]) -> None:
    folder, old = moved
    folder.besom(*SHORT, "--trials", "4")
    assert [row["state"] for row in folder.json("runs", "quick")["trials"]] == ["COMPLETE"] * 4
    assert not old.exists()
    assert "nothing is wrong" in folder.besom("doctor").stdout


@pytest.mark.service
def test_a_copys_runs_go_into_the_copy_and_the_original_is_untouched(
    tmp_path: Path, besom_command: BesomCommand
) -> None:
    (tmp_path / "a").mkdir()
    kept = Kept(Folder(tmp_path / "a", besom_command))
    shutil.copytree(kept.folder.path / "mlruns", tmp_path / "b" / "mlruns")
    copy, before = Folder(tmp_path / "b", besom_command), bytes_of(kept.folder.path / "mlruns")
    assert "besom relocate" in copy.besom(*SHORT, "--trials", "4", code=2).stderr
    copy.besom("relocate")
    copy.besom(*SHORT, "--trials", "4")
    copy.besom("delete", "quick", "--yes")
    after = bytes_of(kept.folder.path / "mlruns")
    assert json.dumps(sorted(after)) == json.dumps(sorted(before))
    assert after == before
