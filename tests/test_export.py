"""A run becomes a folder, and `besom train --config` gives the same bits out of it, elsewhere. Real trainings."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import ROOT, BesomCommand, Folder

import besom.app.cli
from besom.app.config_file import read_config_file
from besom.compare.catalog import find_run
from besom.datasets.pinned import mnist_5k
from besom.errors import ConfigError, NotFound
from besom.export.environment import Environment
from besom.export.folder import written_whole
from besom.paths import Store
from besom.reproduce.exported import request_of
from besom.reproduce.original import checked_fingerprint
from besom.reproduce.request import Options

HASHES = ("weights_sha256", "history_sha256", "predictions_sha256")
SMALL = ("data.n_train=200", "data.n_val=100", "train.epochs=1")
BUILDER = """
import keras
from shapes_of_mine import WIDTH

def build(input_shape, n_classes, boom=False):
    if boom:
        raise ValueError("boom")
    inputs = keras.Input(input_shape)
    hidden = keras.layers.Dense(WIDTH, activation="relu")(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, keras.layers.Dense(n_classes, activation="softmax")(hidden))
"""

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]


@dataclass(frozen=True)
class Trained:
    """A project in a Git repository with trainings of besom's own network, of the project's, and one that failed."""

    folder: Folder
    commit: str
    runs: dict[str, str]

    @property
    def store(self) -> Store:
        return Store.at(self.folder.path / "mlruns")

    def tags(self, model: str) -> dict[str, str]:
        return tags_of(self.folder, self.runs[model])

    def artifact(self, model: str, name: str) -> Path:
        return self.folder.path / "mlruns" / "artifacts" / model / self.runs[model] / "artifacts" / name


def tags_of(folder: Folder, run_id: str) -> dict[str, str]:
    return dict(folder.mlflow(f"select key, value from tags where run_uuid = '{run_id}'"))


def run_ids(folder: Folder) -> list[str]:
    return [run_id for (run_id,) in folder.mlflow("select run_uuid from runs order by start_time")]


def git(path: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=path, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, besom_command: BesomCommand) -> Trained:
    path = tmp_path_factory.mktemp("trained")
    (path / "conf" / "model").mkdir(parents=True)
    shutil.copy(ROOT / "conf" / "config.yaml", path / "conf" / "config.yaml")
    (path / "conf" / "model" / "mine.yaml").write_text("_target_: mine.build\nboom: false\n")
    (path / "mine.py").write_text(BUILDER)
    (path / ".gitignore").write_text("mlruns/\n*.npz\n")
    git(path, "init", "-q")
    git(path, "add", "-A")
    git(path, "commit", "-q", "-m", "a")
    (path / "shapes_of_mine.py").write_text("WIDTH = 16\n")  # no commit has it
    (path / "conf" / "model" / "mine.yaml").write_text("_target_: mine.build\nboom: false  # no\n")
    arrays = mnist_5k()
    np.savez(path / "mine.npz", x=arrays.x[::10], y=arrays.y[::10])
    folder = Folder(path, besom_command)
    arguments = {
        "cnn": (0, "data=npz", "data.path=mine.npz"),
        "mine": (0, "model=mine"),
        "failed": (2, "model=mine", "model.boom=true"),
    }
    for name, (code, *rest) in arguments.items():
        folder.besom("train", *rest, *SMALL, f"tracking.experiment={name}", code=code)
    runs = dict(zip(arguments, run_ids(folder), strict=True))
    return Trained(folder, git(path, "rev-parse", "HEAD"), runs)


def work_in(trained: Trained, patched: pytest.MonkeyPatch) -> None:
    patched.chdir(trained.folder.path)
    for name in ("BESOM_STORE", "MLFLOW_TRACKING_URI"):
        patched.delenv(name, raising=False)


@pytest.fixture(scope="module")
def exported(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders that `besom export` wrote, by model, far from the store."""
    folders = {name: tmp_path_factory.mktemp("exported") / "deep" / name for name in ("cnn", "mine")}
    with pytest.MonkeyPatch.context() as patched:
        work_in(trained, patched)
        assert besom.app.cli.run(["export", trained.runs["cnn"], str(folders["cnn"])]) == 0
    told = trained.folder.json("export", trained.runs["mine"], str(folders["mine"]), "--allow", "mine")
    assert told["command"] == "besom train --config config.yaml --allow mine"
    assert told["files"] == sorted(
        file.relative_to(folders["mine"]).as_posix() for file in folders["mine"].rglob("*") if file.is_file()
    )
    return folders


@pytest.fixture
def here(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """The trained project as this process's working folder, for commands that run in it."""
    work_in(trained, monkeypatch)
    return trained


# --- what a trial leaves


@pytest.mark.parametrize("model", ["cnn", "mine", "failed"])
def test_every_training_leaves_its_packages_and_the_code_that_no_commit_has(trained: Trained, model: str) -> None:
    diff = trained.artifact(model, "uncommitted.diff").read_text()
    assert diff.startswith(f"# what differs from commit {trained.commit}, for 'git apply'\n")
    assert "+boom: false  # no" in diff.splitlines()
    assert ("+++ b/shapes_of_mine.py" in diff.splitlines()) is (model != "cnn")
    pins = trained.artifact(model, "requirements.txt").read_text().splitlines()
    assert {"keras==", "tensorflow==", "optuna=="} <= {re.sub(r"(?<===).*", "", pin) for pin in pins}


# --- what the folder has


def test_the_folder_has_all_that_it_takes(exported: dict[str, Path], trained: Trained) -> None:
    def names(model: str) -> set[str]:
        return {file.relative_to(exported[model]).as_posix() for file in exported[model].rglob("*") if file.is_file()}

    common = {
        *("config.yaml", "expected.json", "fingerprint.json", "model.keras", "requirements.lock", "README.md"),
        "uncommitted.diff",
    }
    assert names("cnn") == common
    assert names("mine") == common | {"code/mine.py", "code/shapes_of_mine.py"}
    assert (exported["mine"] / "code" / "mine.py").read_text() == BUILDER
    stored = trained.artifact("cnn", "uncommitted.diff").read_bytes()
    assert (exported["cnn"] / "uncommitted.diff").read_bytes() == stored
    fingerprint = json.loads(trained.artifact("cnn", "fingerprint.json").read_text())
    assert json.loads((exported["cnn"] / "fingerprint.json").read_text()) == fingerprint


def test_the_config_is_whole_and_names_nothing_of_this_machine(exported: dict[str, Path], trained: Trained) -> None:
    text = (exported["cnn"] / "config.yaml").read_text()
    found, frozen = yaml.safe_load(text), yaml.safe_load(trained.artifact("cnn", "config.yaml").read_text())
    assert list(found) == ["data", "model", "train"]
    assert found == {name: frozen[name] for name in found}
    assert "# data.path has to be given: mine.npz" in text
    every = "".join(file.read_text() for file in exported["cnn"].iterdir() if file.suffix != ".keras")
    assert str(trained.folder.path) not in every
    assert "://" not in (exported["cnn"] / "requirements.lock").read_text()


def test_the_expected_numbers_are_exact(exported: dict[str, Path], trained: Trained) -> None:
    expected, tags = json.loads((exported["mine"] / "expected.json").read_text()), trained.tags("mine")
    assert {name: expected[name] for name in HASHES} == {name: tags[name] for name in HASHES}
    where = f"run_uuid = '{trained.runs['mine']}'"
    values = dict(trained.folder.mlflow(f"select key, value from metrics where {where}"))
    assert expected["history"] == {name: [values[name]] for name in expected["history"]}
    assert set(expected["history"]) == {"train_loss", "train_accuracy", "val_loss", "val_accuracy"}
    assert (expected["objective"], expected["best_epoch"]) == (values["objective"], 0)
    assert (expected["commit"], expected["data"]) == (trained.commit, tags["fingerprint.data"])
    assert expected["n_params"] == (28 * 28 + 1) * 16 + 17 * 10
    assert expected["run_id"] == trained.runs["mine"]
    assert expected["sweep"] is None


def test_the_model_is_the_run_s(exported: dict[str, Path]) -> None:
    import keras

    from besom.fingerprint import weights_sha256

    model = keras.saving.load_model(exported["cnn"] / "model.keras")
    expected = json.loads((exported["cnn"] / "expected.json").read_text())
    assert weights_sha256(model.get_weights()) == expected["weights_sha256"]


def test_the_readme_names_commit_diff_packages_command_numbers_and_proof(
    exported: dict[str, Path], trained: Trained
) -> None:
    text = (exported["mine"] / "README.md").read_text()
    assert trained.commit in text
    assert "git apply FOLDER/uncommitted.diff" in text
    assert ".venv/bin/besom train --config config.yaml --allow mine\n" in text
    assert ".venv/bin/besom reproduce . --allow mine\n" in text
    assert all(trained.tags("mine")[name] in text for name in HASHES)
    assert "mlxtend" in text
    assert "give yours as `data.path=`" in (exported["cnn"] / "README.md").read_text()
    assert "data.path=FOLDER/mine.npz" in (exported["cnn"] / "README.md").read_text()


# --- the same bits


def test_the_file_trains_the_same_bits_in_another_folder_and_store(
    exported: dict[str, Path], trained: Trained, tmp_path: Path, besom_command: BesomCommand
) -> None:
    shutil.copy(trained.folder.path / "mine.npz", tmp_path / "mine.npz")
    elsewhere = Folder(tmp_path, besom_command)
    shown = elsewhere.besom("train", "--config", str(exported["cnn"] / "config.yaml"))
    [run_id] = run_ids(elsewhere)
    again, tags = tags_of(elsewhere, run_id), trained.tags("cnn")
    assert {name: again[name] for name in HASHES} == {name: tags[name] for name in HASHES}
    assert {name: again[name] for name in again if name.startswith("fingerprint.")} == {
        **{name: tags[name] for name in tags if name.startswith("fingerprint.")},
        "fingerprint.commit": again["fingerprint.commit"],
    }
    assert re.search(rf"weights {tags['weights_sha256'][:12]}…, history .*…, predictions .*…", shown.stdout)


def test_a_builder_of_ones_own_is_found_beside_the_file_and_overrides_make_several_runs(
    exported: dict[str, Path], trained: Trained, tmp_path: Path, besom_command: BesomCommand
) -> None:
    elsewhere = Folder(tmp_path, besom_command)
    config = exported["mine"] / "config.yaml"
    elsewhere.besom("train", "-m", "--config", str(config), "--allow", "mine", "train.seed=0,1", "train.epochs=1")
    first, second = (tags_of(elsewhere, run_id) for run_id in run_ids(elsewhere))
    assert {name: first[name] for name in HASHES} == {name: trained.tags("mine")[name] for name in HASHES}
    assert first["weights_sha256"] != second["weights_sha256"]


# --- a config file is data

FILE: dict[str, Any] = {
    "data": {"_target_": "besom.data.mnist_5k"},
    "model": {"_target_": "besom.model.cnn", "conv": [{"filters": 3, "kernel_size": 5}]},
    "train": {"epochs": 1},
}


def changed(group: str, **values: Any) -> str:
    return yaml.safe_dump({**FILE, group: {**FILE.get(group, {}), **values}})


HOSTILE: dict[str, tuple[str | bytes, str]] = {
    "a Python object": ("data: !!python/object/apply:os.system ['touch pwned']", "could not determine a constructor"),
    "a target that runs": (changed("model", _target_="os.system", command="x"), "built by 'os.system'; .*--allow os"),
    "a loader that runs": (changed("data", _target_="os.system"), "built by 'os.system'; expected besom.data.mnist_5k"),
    "besom's own insides": (changed("model", _target_="besom.app.delete.delete_sweep"), "expected besom.model.cnn$"),
    "an environment variable": (changed("data", path="${oc.env:HOME}"), r"has an interpolation, '\$\{oc.env:HOME\}'"),
    "an alias": ("data: &a {}\nmodel: *a\ntrain: *a", "it has an alias"),
    "a list": ("- data", "is no mapping"),
    "no YAML": ("data: [", "cannot be read: while parsing"),
    "no text": (b"\xff\xfe\x00", "cannot be read: it is no UTF-8 text"),
    "nothing": ("", "is no mapping"),
    "a missing group": (yaml.safe_dump({"data": {}, "model": {}}), "has no 'train' group"),
    "a group that is none": (yaml.safe_dump({**FILE, "train": 3}), "train=3 is no group"),
    "an unknown group": (yaml.safe_dump({**FILE, "trian": {}}), "key 'trian' is not known; .*did you mean 'train'"),
    "Hydra's own settings": (yaml.safe_dump({**FILE, "hydra": {"run": {"dir": "/"}}}), "key 'hydra' is not known"),
    "a defaults list": (changed("model", defaults=["/data: npz"]), "model.defaults is Hydra's own word"),
    "an unknown key": (changed("train", epoch=3), "train.epoch: "),
    "a value of another type": (changed("train", epochs="many"), "train.epochs: "),
    "a value out of range": (changed("train", epochs=0), "epochs=0 is too small"),
    "a tag on another value": ("a: !!bool foo", "cannot be read"),
    "a depth that is none": (changed("model", depth="abc"), "model.depth='abc' is no number of layers"),
    "a long integer": ("data: {}\nmodel: {}\ntrain: {seed: 0x" + "f" * 5000 + "}", "an integer of more than 64 bits"),
    "two hundred brackets": ("data: {}\ntrain: {}\nmodel: {dense: " + "[" * 200 + "]" * 200 + "}", "nested more"),
    "no URI": (changed("tracking", uri="http://[foo"), r"'http://\[foo' is no URI"),
    "a store elsewhere": (changed("paths", store="/away/.config"), "paths.store='/away/.config' lies outside"),
    "a store above": (changed("paths", store="x/../../other"), "paths.store='x/../../other' lies outside"),
    "a database elsewhere": (changed("tracking", uri="sqlite:////away/m.db"), "tracking.uri='sqlite:.* lies out"),
    "a database above": (changed("tracking", uri="sqlite:///../m.db?x=1"), "tracking.uri='sqlite:.* lies outside"),
    "a password": (changed("tracking", uri="http://me:tr0ub4dor@h/"), "holds a password"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_one_line_exit_2_and_no_store(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    content, message = HOSTILE[what]
    (tmp_path / "f.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.chdir(tmp_path)
    for name in ("BESOM_STORE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    code = besom.app.cli.run(["train", "--config", "f.yaml"])
    out, err = capfd.readouterr()
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert re.search(message, err.strip()), err
    assert "f.yaml" in err or what == "a password"
    assert "tr0ub4dor" not in err
    assert [file.name for file in tmp_path.iterdir()] == ["f.yaml"]


def test_a_file_may_name_places_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    content = {**FILE, "paths": {"store": "mine"}, "tracking": {"uri": "sqlite:///mine/runs.db"}}
    (tmp_path / "f.yaml").write_text(yaml.safe_dump(content))
    assert read_config_file(tmp_path / "f.yaml", []) == content


@pytest.mark.parametrize("packages", [[1], "ab", 7])
@pytest.mark.parametrize("part", ["packages", "sources"])
def test_a_fingerprint_of_another_shape_is_refused(part: str, packages: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{part} in f.json is .*; expected a mapping"):
        checked_fingerprint({part: packages}, "f.json")


@pytest.mark.parametrize("make", [os.mkfifo, lambda file: os.truncate(os.open(file, os.O_CREAT | os.O_RDWR), 2**40)])
def test_a_pipe_or_a_huge_file_in_an_exported_folder_holds_nobody_up(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "config.yaml")
    with pytest.raises(NotFound, match=r"config.yaml cannot be read: it (is no plain file|has more than)"):
        request_of(tmp_path, Store.at(tmp_path / "mlruns"), Options(), pytest.fail)


WRONG_USES = {
    "a file that is not there": (["--config", "none.yaml"], "config file none.yaml cannot be read: it does not exist"),
    "a folder": (["--config", "."], "cannot be read: it is a folder"),
    "an override that does not fit": (["--config", "f.yaml", "train.epochz=3"], "did you mean 'train.epochs'"),
    "--allow without a file": (["--allow", "mine"], "expected --config FILE with it"),
}


@pytest.mark.parametrize("what", WRONG_USES)
def test_a_wrong_use_is_told_likewise(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments, message = WRONG_USES[what]
    (tmp_path / "f.yaml").write_text(yaml.safe_dump(FILE))
    monkeypatch.chdir(tmp_path)
    assert besom.app.cli.run(["train", *arguments]) == 2
    assert re.search(message, capfd.readouterr().err)
    assert [file.name for file in tmp_path.iterdir()] == ["f.yaml"]


def test_a_builder_is_imported_only_when_its_package_is_allowed(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(changed("model", _target_="theirs.build"))
    with pytest.raises(ConfigError, match="give --allow theirs"):
        read_config_file(file, ["other"])
    assert read_config_file(file, ["theirs"])["model"]["_target_"] == "theirs.build"
    assert "theirs" not in sys.modules


# --- what is refused


def refused(capfd: pytest.CaptureFixture[str], run: str, folder: Path, *arguments: str) -> tuple[int, str]:
    """Return code and message of an export that has to leave nothing behind."""
    before = sorted(folder.parent.rglob("*"))
    code = besom.app.cli.run(["export", run, str(folder), *arguments])
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert sorted(folder.parent.rglob("*")) == before
    return code, err


def test_only_a_complete_run_is_exported(here: Trained, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, err = refused(capfd, here.runs["failed"], tmp_path / "out")
    assert code == 2
    assert "is FAIL; expected one that is COMPLETE" in err
    assert refused(capfd, "nothing/3", tmp_path / "out")[0] == 2


def test_a_folder_with_something_in_it_is_left_alone(
    here: Trained, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("full", "file", "link"):
        code, err = refused(capfd, here.runs["cnn"], tmp_path / name)
        assert code == 2
        assert "is there already; expected a new or an empty folder" in err


def test_a_builder_needs_allow(here: Trained, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, err = refused(capfd, here.runs["mine"], tmp_path / "out")
    assert code == 2
    assert "give --allow mine" in err


@contextmanager
def tampered(file: Path, make: Callable[[bytes], bytes]) -> Iterator[None]:
    before = file.read_bytes()
    file.write_bytes(make(before))
    try:
        yield
    finally:
        file.write_bytes(before)


def other_weights(before: bytes) -> bytes:
    """Return a saved model of the same network that was trained otherwise."""
    import tempfile

    import keras

    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "model.keras"
        file.write_bytes(before)
        model = keras.saving.load_model(file)
        model.set_weights([weight + 1 for weight in model.get_weights()])
        model.save(file)
        return file.read_bytes()


BROKEN_MODELS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "another model": (other_weights, "the weights of run .* have the hash .* but the store holds"),
    "no model": (lambda before: b"not a zip", "the model of run .* cannot be read"),
}


@pytest.mark.parametrize("what", BROKEN_MODELS)
def test_a_tampered_model_is_refused_and_nothing_written(
    what: str, here: Trained, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make, message = BROKEN_MODELS[what]
    [file] = (here.folder.path / "mlruns" / "artifacts" / "cnn" / "models").rglob("model.keras")
    with tampered(file, make):
        code, err = refused(capfd, here.runs["cnn"], tmp_path / "new" / "out")
    assert code == 1
    assert re.search(message, err)


def test_tampered_numbers_are_refused(here: Trained, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    database = here.folder.path / "mlruns" / "mlflow.db"
    change = "update metrics set value = value {} 0.25 where key = 'val_loss' and run_uuid = ?"
    for sign in "+-":
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute(change.format(sign), [here.runs["cnn"]])
        if sign == "+":
            code, err = refused(capfd, here.runs["cnn"], tmp_path / "out")
            assert code == 1
            assert "the metrics of run" in err


def test_a_tampered_config_is_refused(here: Trained, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    evil = yaml.safe_dump({**FILE, "model": {"_target_": "os.system"}}).encode()
    with tampered(here.artifact("cnn", "config.yaml"), lambda before: evil):
        code, err = refused(capfd, here.runs["cnn"], tmp_path / "out")
    assert code == 2
    assert "built by 'os.system'" in err


def test_own_code_that_changed_since_is_not_passed_off_as_the_run_s(
    here: Trained, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with tampered(here.folder.path / "shapes_of_mine.py", lambda before: before + b"# changed\n"):
        assert besom.app.cli.run(["export", here.runs["mine"], str(tmp_path / "out"), "--allow", "mine"]) == 0
    assert "code/shapes_of_mine.py is not in it" in capfd.readouterr().out
    assert [file.name for file in (tmp_path / "out" / "code").iterdir()] == ["mine.py"]
    assert "gone or changed when this was exported: shapes_of_mine.py" in (tmp_path / "out" / "README.md").read_text()


# --- pieces

HASH = "--hash=sha256:" + "0" * 64


def lock_of(pins: dict[str, str]) -> str:
    return "".join(f"{name}=={version} \\\n    {HASH}\n    # via x\n" for name, version in pins.items())


LOCKS: dict[str, tuple[Callable[[dict[str, str]], str], bool]] = {
    "just these": (lock_of, True),
    "one for another Python": (
        lambda pins: lock_of(pins) + f"keras==1.0 ; python_full_version < '3.5' \\\n    {HASH}\n",
        True,
    ),
    "another version": (lambda pins: lock_of({**pins, "keras": "1.0"}), False),
    "one more": (lambda pins: lock_of({**pins, "zzz": "1.0"}), False),
    "one less": (lambda pins: lock_of({name: pins[name] for name in pins if name != "keras"}), False),
    "no hashes": (lambda pins: lock_of(pins).replace(HASH, "").replace("\\\n", "\n"), False),
    "an address": (lambda pins: f"--index-url https://example.com/simple\n{lock_of(pins)}", False),
}


@pytest.mark.parametrize("what", LOCKS)
def test_the_lock_counts_where_it_pins_just_what_was_installed(
    what: str, here: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, is_hashed = LOCKS[what]
    run = find_run(here.store, here.runs["cnn"])
    fingerprint = json.loads(here.artifact("cnn", "fingerprint.json").read_text())
    lines = here.artifact("cnn", "requirements.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    text = make(pins)
    (tmp_path / "requirements.lock").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("besom.export.environment.PACKAGE", tmp_path / "a" / "b" / "c")
    found = Environment.of(run, fingerprint)
    assert found.is_hashed is is_hashed
    assert found.text == (text if is_hashed else "".join(f"{name}=={version}\n" for name, version in pins.items()))


def test_what_a_store_says_of_packages_is_data(here: Trained) -> None:
    run = find_run(here.store, here.runs["cnn"])
    evil = ("--index-url http://evil/simple", "mine @ http://evil/a.whl", "-r /etc/passwd", "keras==3.0 --hash=x")
    text = "\n".join([*evil, "numpy==2.0"]).encode()
    with tampered(here.artifact("cnn", "requirements.txt"), lambda before: text):
        assert Environment.of(run, {}).text == "numpy==2.0\n"


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "new" / "deep" / "out"
    with pytest.raises(ZeroDivisionError), written_whole(target) as draft:
        (draft / "a").write_bytes(b"a" * (1 // 0))
    assert not list(tmp_path.iterdir())
    (tmp_path / "empty").mkdir()
    for folder in (target, tmp_path / "empty"):
        with written_whole(folder) as draft:
            assert not target.exists() or folder != target
            (draft / "a").touch()
        assert [file.name for file in folder.iterdir()] == ["a"]
        assert [file.name for file in folder.parent.iterdir() if file.name.startswith(".")] == []


def test_a_folder_that_cannot_be_made_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = pytest.raises(ConfigError, match="file/out cannot be written: Not a directory")
    with refused, written_whole(tmp_path / "file" / "out"):
        pass
