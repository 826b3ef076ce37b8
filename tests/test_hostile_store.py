"""A store that comes from others reads, deletes and sends nothing outside, whatever its databases and links say."""

from __future__ import annotations

import io
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import BesomCommand, Folder

from besom.contained import refuse_deleting_outside, refuse_outside
from besom.errors import BesomError, ConfigError
from besom.paths import Store
from besom.retrain.weights_file import refuse_bomb

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
@pytest.mark.parametrize("top", ["artifacts", "jobs", "reports"])
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
    ["/etc", "file:///etc", "file:///etc/../etc/passwd", "../..", "s3://bucket/x", "hdfs://host/x", "file://host/x"],
)
def test_places_outside_are_refused(location: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected files in the store itself"):
        refuse_outside(Store(tmp_path), location)


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
    """Write a zip as Keras does, its arrays compressed zeros that take no room."""
    weights, file = io.BytesIO(), folder / "model.keras"
    with h5py.File(weights, "w") as opened:
        for name, shape in arrays.items():
            opened.create_dataset(name, shape, np.float32, chunks=True, compression="gzip")
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
