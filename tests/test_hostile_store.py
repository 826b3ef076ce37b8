"""A store that comes from others reads, deletes and sends nothing outside, whatever its databases and links say."""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import optuna
import pytest
from conftest import BesomCommand, Folder

from besom.app.delete import delete_sweep
from besom.app.store import create_store, refuse_read_only
from besom.compare import champion
from besom.compare.catalog import refuse_bulk
from besom.contained import local_path, refuse_deleting_outside, refuse_outside
from besom.errors import BesomError, ConfigError
from besom.experiments import open_experiment
from besom.paths import Store
from besom.retrain.weights_file import refuse_bomb
from besom.storage import open_storage, study_names

SMALL = ("train.epochs=1", "data.n_train=100", "data.n_val=50")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, besom_command: BesomCommand) -> Path:
    """A project with a sweep of one trial."""
    folder = Folder(tmp_path_factory.mktemp("swept"), besom_command)
    folder.besom("sweep", "quick", "--trials", "1", *SMALL)
    return folder.path


@pytest.fixture
def received(swept: Path, tmp_path: Path, besom_command: BesomCommand) -> Folder:
    """A copy of that store, at home where it is now, and beside it files that are none of its business."""
    shutil.copytree(swept / "mlruns", tmp_path / "mlruns")
    folder = Folder(tmp_path, besom_command)
    folder.besom("relocate")
    (tmp_path / "private" / "artifacts").mkdir(parents=True)
    (tmp_path / "private" / "artifacts" / "diary.txt").write_text("mine")
    return folder


def say(folder: Folder, statement: str, *values: str) -> None:
    with closing(sqlite3.connect(folder.path / "mlruns" / "mlflow.db")) as database, database:
        assert database.execute(statement, values).rowcount > 0


def artifacts_of(folder: Folder) -> Path:
    [[uri]] = folder.mlflow("select artifact_uri from runs where name = 'quick-0'")
    path = Path(uri.removeprefix("file://"))
    assert path.is_relative_to(folder.path)
    return path


def move_to_private(folder: Folder) -> None:
    say(folder, "update runs set artifact_uri = ? where name = 'quick-0'", str(folder.path / "private/artifacts"))


def link_the_folder(folder: Folder) -> None:
    own = artifacts_of(folder)
    shutil.copytree(own, folder.path / "private" / "artifacts", dirs_exist_ok=True)
    shutil.rmtree(own)
    own.symlink_to(folder.path / "private" / "artifacts")


def link_the_sweep(folder: Folder) -> None:
    own = folder.path / "mlruns" / "artifacts" / "quick"
    shutil.copytree(own, folder.path / "private" / "quick")
    shutil.rmtree(own)
    own.symlink_to(folder.path / "private" / "quick")


HOSTILE: list[Callable[[Folder], None]] = [move_to_private, link_the_folder, link_the_sweep]


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.service
@pytest.mark.parametrize("make_hostile", HOSTILE)
def test_nothing_outside_the_store_is_read_or_deleted(make_hostile: Callable[[Folder], None], received: Folder) -> None:
    make_hostile(received)
    before = everything_in(received.path / "private")
    for arguments in (
        ("delete", "quick", "--yes"),
        ("predict", "quick"),
        ("report", "quick"),
        ("export", "quick", "x"),
    ):
        refused = received.besom(*arguments, code=2)
        assert f"outside {received.path}/mlruns" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    assert everything_in(received.path / "private") == before
    assert received.json("status", "quick")["complete"] == 1, "what can be said without them is said"


@pytest.mark.service
@pytest.mark.parametrize("top", ["artifacts", "jobs", "reports", "spool"])
def test_nothing_is_deleted_through_a_link_at_the_top(top: str, received: Folder) -> None:
    own, private = received.path / "mlruns" / top, received.path / "private" / top
    own.mkdir(exist_ok=True)
    shutil.copytree(own, private, dirs_exist_ok=True)
    shutil.rmtree(own)
    own.symlink_to(private)
    before = everything_in(private)
    assert "which besom does not delete" in received.besom("delete", "quick", "--yes", code=2).stderr
    gone = before.keys() - everything_in(private).keys()
    assert not {file for file in gone if "/.locks/" not in file}, "the lock that it took is given back"
    received.besom("predict", "quick")  # a person's own link to a larger disk


@pytest.mark.service
def test_one_linked_artifact_is_not_read(received: Folder) -> None:
    (artifacts_of(received) / "predictions.csv").unlink()
    (artifacts_of(received) / "predictions.csv").symlink_to("/etc/passwd")
    for command in ("predict", "report"):
        refused = received.besom(command, "quick", code=2)
        assert "is /etc/passwd, outside" in refused.stderr
    assert "root:" not in refused.stdout + refused.stderr
    received.besom("delete", "quick", "--yes")
    assert Path("/etc/passwd").is_file()
    assert not artifacts_of_sweep(received).exists()


def artifacts_of_sweep(folder: Folder) -> Path:
    return folder.path / "mlruns" / "artifacts" / "quick"


@pytest.mark.service
def test_a_server_that_only_the_store_names_gets_no_request(received: Folder) -> None:
    import socket

    with socket.socket() as evil:
        evil.bind(("127.0.0.1", 0))
        evil.listen()
        evil.settimeout(0.2)
        address = f"http://127.0.0.1:{evil.getsockname()[1]}"
        (received.path / "mlruns/jobs/quick/tracking_uri").write_text(address)
        env = {"MLFLOW_TRACKING_TOKEN": "c4nary-token"}
        for arguments in (("reproduce", "quick"), ("predict", "quick"), ("delete", "quick", "--yes")):
            refused = received.besom(*arguments, env=env, code=2)
            assert f"MLFLOW_TRACKING_URI={address} besom …" in refused.stderr
        refused = received.besom("predict", "0" * 32, env=env, code=2)  # looks everywhere but there
        assert "no run or sweep" in refused.stderr
        with pytest.raises(TimeoutError):
            evil.accept()


@pytest.mark.service
def test_a_config_file_of_others_sends_nothing_to_its_server(project: Path, besom_command: BesomCommand) -> None:
    folder = Folder(project, besom_command)
    text = "data: {}\nmodel: {}\ntrain: {}\ntracking: {uri: 'http://evil.test'}\n"
    (project / "config.yaml").write_text(text)
    refused = folder.besom("train", "--config", "config.yaml", code=2)
    assert "says that its runs are at 'http://evil.test'" in refused.stderr
    assert not (project / "mlruns").exists()


def test_what_is_inside_is_read_through_links_inside(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    (store.artifacts / "q" / "1").mkdir(parents=True)
    (store.artifacts / "q" / "1" / "a.txt").touch()
    (store.artifacts / "q" / "1" / "b.txt").symlink_to("a.txt")
    refuse_outside(store, (store.artifacts / "q" / "1").as_uri())
    refuse_outside(store, str(store.artifacts / "q" / "1"), "a.txt")
    (tmp_path / "link").symlink_to(store.root)
    refuse_outside(Store(tmp_path / "link"), (store.artifacts / "q" / "1").as_uri())


@pytest.mark.parametrize(
    "location",
    [
        *("/etc", "file:///etc", "file:///etc/../etc/passwd", "../..", "s3://bucket/x", "hdfs://host/x"),
        *("file://host/x", "FILE:///etc", "//[x"),
        # what MLflow unquotes once to read and twice to delete
        *("STORE/%2e%2e/x", "STORE/%252e%252e/x", "file://STORE/%2e%2e/x", "file://STORE/%252e%252e/x"),
        *("STORE/%25252e%25252e/x", "STORE/a?b", "STORE/a#b", "STORE/a\tb", "file://STORE/a%00b", "STORE/%2509"),
    ],
)
def test_places_outside_are_refused(location: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(ConfigError, match=r"expected files in the store itself"):
        refuse_outside(store, location.replace("STORE", str(store.root)))


@pytest.mark.parametrize("name", ["données", "50%", "a b", "100%25", "what?", "c#", "%41"])
def test_a_name_that_an_address_quotes_is_inside(name: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    location = (store.artifacts / name).as_uri()
    refuse_outside(store, location)
    assert local_path(location) == store.artifacts / name
    assert local_path(f"{store.artifacts}/données") == store.artifacts / "données"


def test_a_location_with_percents_is_not_deleted(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.root.mkdir()
    for ending in ("%2e%2e/%2e%2e/mine", "%252e%252e/%252e%252e/mine"):
        store.mlflow_db.unlink(missing_ok=True)
        with closing(sqlite3.connect(store.mlflow_db)) as database, database:
            database.execute("create table runs (experiment_id integer, artifact_uri text)")
            database.execute("insert into runs values (1, ?)", (f"file://{store.artifacts}/{ending}",))
        with pytest.raises(ConfigError, match="which besom does not delete"):
            refuse_deleting_outside(store, "q", store.mlflow_db, "1")


@pytest.mark.parametrize("top", ["artifacts", "jobs", "reports", "spool"])
def test_nothing_is_deleted_through_any_link(top: str, tmp_path: Path) -> None:
    (tmp_path / "mine" / "Documents").mkdir(parents=True)
    (tmp_path / "mine" / "Documents" / "diary").touch()
    store = Store(tmp_path / "store")
    store.root.mkdir()
    (store.root / top).symlink_to(tmp_path / "mine")
    with pytest.raises(ConfigError, match=rf"{top}/Documents, outside .*, which besom does not delete"):
        delete_sweep(store, "Documents")
    assert (tmp_path / "mine" / "Documents" / "diary").exists()


@pytest.mark.parametrize("name", ["studies_db", "mlflow_db"])
def test_a_database_of_another_store_is_not_written_through_a_link(name: str, tmp_path: Path) -> None:
    mine, store = Store(tmp_path / "mine"), Store(tmp_path / "received")
    create_store(mine)
    optuna.create_study(study_name="quick", storage=open_storage(mine.studies_uri))
    shutil.copytree(mine.root, store.root)
    getattr(store, name).unlink()
    getattr(store, name).symlink_to(Path("../mine", getattr(mine, name).name))
    for write in (lambda: delete_sweep(store, "quick"), lambda: refuse_read_only(store)):
        with pytest.raises(
            ConfigError, match=rf"\.db is a link to {mine.root}/.*, outside the store; expected the data"
        ):
            write()
    assert study_names(mine.studies_uri) == ["quick"]
    getattr(store, name).unlink()
    getattr(store, name).symlink_to(store.root / "inside.db")
    refuse_read_only(store)


def test_what_the_database_says_is_looked_at_again_before_files_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    create_store(store)
    client, experiment_id = open_experiment(store.mlflow_uri, "quick", store)
    client.create_run(experiment_id)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary").touch()
    forget = champion.forget

    def change(*arguments: Any) -> None:  # as a trigger would that none of besom's looks has seen
        forget(*arguments)
        with closing(sqlite3.connect(store.mlflow_db)) as database, database:
            database.execute("update runs set artifact_uri = ?", (str(tmp_path / "mine"),))

    monkeypatch.setattr(champion, "forget", change)
    with pytest.raises(ConfigError, match="which besom does not delete"):
        delete_sweep(store, "quick")
    assert (tmp_path / "mine" / "diary").exists()


@pytest.mark.parametrize("table", ["experiments", "runs", "logged_models"])
def test_what_any_table_says_is_looked_at_before_deleting(table: str, tmp_path: Path) -> None:
    store, column = Store(tmp_path), "artifact_uri" if table == "runs" else "artifact_location"
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute(f"create table {table} (experiment_id integer, {column} text)")
        database.execute(f"insert into {table} values (1, ?)", ((store.artifacts / "q").as_uri(),))
        database.execute(f"insert into {table} values (2, ?)", (Path("/etc").as_uri(),))
    refuse_deleting_outside(store, "q", store.mlflow_db, "1")
    with pytest.raises(ConfigError, match=r"sweep 'q' has files at file:///etc, outside"):
        refuse_deleting_outside(store, "q", store.mlflow_db, "2")


def keras_file(folder: Path, arrays: dict[str, tuple[int, ...]], **others: bytes) -> Path:
    """Write a zip as Keras does, its arrays plain; of those without content HDF5 writes none."""
    weights, file = io.BytesIO(), folder / "model.keras"
    with h5py.File(weights, "w") as opened:
        for name, shape in arrays.items():
            opened.create_dataset(name, shape, np.float32)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {"config.json": b"{}", "model.weights.h5": weights.getvalue(), **others}.items():
            archive.writestr(name, content)
    return file


def test_a_model_file_of_its_networks_size_passes(tmp_path: Path) -> None:
    refuse_bomb(keras_file(tmp_path, {"dense/kernel": (100, 10), "optimizer/m": (100, 10)}), 1000)


@pytest.mark.parametrize(
    ("arrays", "others", "message"),
    [
        (
            {"x": (1_000_000, 1_000_000)},
            {},
            r"the arrays in model.weights.h5: 4,000,000,000,000 bytes; expected at most",
        ),
        (
            {"x": (10,)},
            {"config.json": b" " * 20_000_000},
            r"config.json in model.keras: 20,000,000 bytes; expected at most",
        ),
        ({"x": (10,)}, {"../../x.py": b""}, r"model.keras has '../../x.py' in it; expected config.json"),
        ({"x": (10,)}, {"assets/x.pkl": b""}, r"model.keras has 'assets/x.pkl' in it"),
    ],
)
def test_a_model_file_that_unpacks_to_more_is_refused(
    arrays: dict[str, tuple[int, ...]], others: dict[str, bytes], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BesomError, match=message):
        refuse_bomb(keras_file(tmp_path, arrays, **others), 1000)
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def in_chunks(opened: h5py.File) -> None:
    opened.create_dataset("x", (10,), np.float32, maxshape=(None,), chunks=(100_000_000,), compression="gzip")


def in_another_file(opened: h5py.File) -> None:
    opened.create_dataset("x", (10,), np.float32, external=[("/etc/passwd", 0, 40)])


def virtual(opened: h5py.File) -> None:
    layout = h5py.VirtualLayout((10,), np.float32)
    layout[:] = h5py.VirtualSource("other.h5", "x", (10,))
    opened.create_virtual_dataset("x", layout)


def soft_link(opened: h5py.File) -> None:
    opened.create_group("layers")["x"] = h5py.SoftLink("/layers")


def link_to_another_file(opened: h5py.File) -> None:
    opened["x"] = h5py.ExternalLink("other.h5", "/x")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (in_chunks, "'x' in model.weights.h5 is kept in chunks or elsewhere; expected a plain array"),
        (in_another_file, "'x' in model.weights.h5 is kept in chunks or elsewhere"),
        (virtual, "'x' in model.weights.h5 is kept in chunks or elsewhere"),
        (soft_link, "'x' in model.weights.h5 is a link; expected a plain array"),
        (link_to_another_file, "'x' in model.weights.h5 is a link"),
    ],
)
def test_arrays_that_are_not_plain_are_refused(make: Callable[[h5py.File], None], message: str, tmp_path: Path) -> None:
    weights = io.BytesIO()
    with h5py.File(weights, "w") as opened:
        make(opened)
    file = keras_file(tmp_path, {}, **{"model.weights.h5": weights.getvalue()})
    with pytest.raises(BesomError, match=message):
        refuse_bomb(file, 1000)


def test_what_is_huge_or_no_plain_file_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    os.truncate(tmp_path / "config.yaml", 2**40)
    with pytest.raises(ConfigError, match=r"config.yaml has 1,099,511,627,776 bytes; expected at most 1,000"):
        refuse_bulk(str(tmp_path), "config.yaml", 1000)
    with pytest.raises(ConfigError, match=r"has 1,099,511,627,776 bytes; expected at most 1,000"):
        refuse_bulk(tmp_path.as_uri(), "", 1000)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="pipe is no plain file"):
        refuse_bulk(str(tmp_path), "pipe", 1000)
    refuse_bulk(str(tmp_path), "gone", 1000)
    refuse_bulk("s3://bucket/x", "", 1000)
