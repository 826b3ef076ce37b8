"""besom in a notebook: what it gives out of a store, and the notebook in docs/, run on a small real sweep."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import ROOT, BesomCommand

import besom
from besom.errors import BesomError, ConfigError, DataError, NotFound
from besom.fingerprint import weights_sha256

SMALL = ("--trials", "2", "train.epochs=1", "data.n_train=200", "data.n_val=100")
LESSON = ROOT / "docs" / "lesson.ipynb"

LOADER = """
import h5py
import numpy as np


def load(path=None):
    labels = np.arange(40) % 2
    return np.full((40, 6, 6), INK, np.uint8) * labels[:, None, None].astype(np.uint8), labels
"""
"""A user's own: black images and white ones."""
BUILDER = """
import keras


def build(input_shape, n_classes):
    inputs = keras.Input(input_shape)
    return keras.Model(inputs, keras.layers.Dense(n_classes, activation="softmax")(keras.layers.Flatten()(inputs)))
"""

Besom = Callable[..., Any]


def rows(store: Path, query: str, *values: str) -> list[Any]:
    with sqlite3.connect(store / "mlflow.db") as database:
        return database.execute(query, values).fetchall()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, besom_command: BesomCommand) -> Path:
    """A project with a finished sweep, and beside it one run on the images of a user's own loader."""
    path = tmp_path_factory.mktemp("project")
    (path / "conf").mkdir()
    shutil.copy(ROOT / "conf" / "config.yaml", path / "conf")
    (path / "loader_of_mine.py").write_text(LOADER.replace("INK", "255"))
    own = ("data._target_=loader_of_mine.load", "data.n_train=20", "data.n_val=10", "data.n_test=10")
    kernels = ("model.conv.0.kernel_size=3", "model.conv.1.kernel_size=3")
    for arguments in (["sweep", "quick", *SMALL], ["train", "train.epochs=1", *own, *kernels]):
        done = besom_command(*arguments, cwd=path)
        assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def store(folder: Path) -> Path:
    return folder / "mlruns"


@pytest.fixture(scope="module")
def said(folder: Path, besom_command: BesomCommand) -> Besom:
    """Return ``said(*arguments)``: the JSON that a command prints."""

    @cache
    def run(*arguments: str) -> Any:
        done = besom_command(*arguments, "--format", "json", cwd=folder)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="module")
def model(store: Path) -> Any:
    return besom.load("quick", store)


def test_runs_is_the_table_that_the_command_prints(store: Path, said: Besom) -> None:
    table, printed = besom.runs("quick", store), said("runs", "quick")["trials"]
    assert table["number"].tolist() == [0, 1]
    for name in printed[0]:
        assert table[name].tolist() == [row[name] for row in printed], name


def test_study_is_the_sweeps_own_with_its_best_trial(store: Path, said: Besom) -> None:
    study, best = besom.study("quick", store), said("best", "quick")
    assert (study.study_name, study.best_value) == ("quick", best["objective"])
    assert study.best_params == {name: best[name] for name in study.best_params}
    assert study.best_trial.user_attrs["run_id"] == best["run_id"]


def test_load_gives_the_champion_to_the_last_bit(model: Any, said: Besom) -> None:
    best = said("best", "quick")
    assert weights_sha256(model.get_weights()) == best["weights_sha256"]
    assert model.count_params() == best["n_params"]


def test_images_are_those_that_judged_it(model: Any, store: Path, said: Besom) -> None:
    x, y = besom.images("quick", store)
    assert (x.shape, x.dtype, y.shape) == ((100, 28, 28, 1), np.float32, (100,))
    probabilities = model.predict(x, verbose=0)
    assert np.mean(probabilities.argmax(axis=1) == y) == pytest.approx(said("best", "quick")["objective"])
    for row, shown, label in zip(said("predict", "quick")["predictions"], probabilities, y, strict=False):
        np.testing.assert_allclose([row[f"p{n}"] for n in range(10)], shown, atol=0.0051)
        assert row["truth"] == label


def test_a_run_id_serves_as_well_as_a_sweeps_name(store: Path) -> None:
    for row in besom.runs("quick", store).to_dict("records"):
        assert weights_sha256(besom.load(row["run_id"], store).get_weights()) == row["weights_sha256"]
        assert besom.images(row["run_id"], store)[0].shape == (100, 28, 28, 1)


def test_loading_leaves_the_notebooks_own_mlflow_as_it_is(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    besom.load("quick", str(store))
    assert (mlflow.get_tracking_uri(), mlflow.active_run()) == (before, None)
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert not list(tmp_path.iterdir())


def test_the_environment_names_the_store_as_it_does_for_the_commands(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BESOM_STORE", str(store))
    assert len(besom.runs("quick")) == 2


ASKED: list[Callable[[str, Path], Any]] = [besom.runs, besom.study, besom.load, besom.images]


@pytest.mark.parametrize("ask", ASKED, ids=lambda ask: ask.__name__)
def test_a_mistyped_name_is_mended_and_no_store_is_made(
    ask: Callable[[str, Path], Any], store: Path, tmp_path: Path
) -> None:
    with pytest.raises(NotFound, match=r"'quik'.* did you mean 'quick'\?$"):
        ask("quik", store)
    with pytest.raises(NotFound, match=r"^no store at .*; make one with 'besom sweep quick'"):
        ask("quick", tmp_path / "mlruns")
    assert not list(tmp_path.iterdir())


def test_what_has_no_model_says_so(store: Path) -> None:
    ((parent,),) = rows(store, "select run_uuid from tags where key = 'kind' and value = 'sweep'")
    with pytest.raises(NotFound, match=rf"^run {parent} ended before it had a model; expected one that is COMPLETE$"):
        besom.load(parent, store)


@pytest.fixture
def file(store: Path, said: Besom) -> Iterator[Path]:
    """The champion's file, to be changed with what describes it: both are put back afterwards."""
    query = "select artifact_location from logged_models where source_run_id = ?"
    ((location,),) = rows(store, query, said("best", "quick")["run_id"])
    (path,) = Path(location.removeprefix("file://")).rglob("*.keras")
    kept = {one: one.read_bytes() for one in (path, path.parents[1] / "MLmodel")}
    yield path
    for one, content in kept.items():
        one.write_bytes(content)


def another_network(path: Path) -> None:
    import keras

    other = keras.saving.load_model(path)
    weights = other.get_weights()
    weights[-1] = np.nextafter(weights[-1], np.float32(1))  # the smallest change that there is
    other.set_weights(weights)
    other.save(path)


def half_a_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def code_in_the_file(path: Path) -> None:
    import keras

    inputs = keras.Input((28, 28, 1))
    keras.Model(inputs, keras.layers.Lambda(lambda image: image)(inputs)).save(path)


def no_file(path: Path) -> None:
    path.unlink()


def program_in_its_place(path: Path) -> None:
    """A SavedModel, which TensorFlow runs as it is read, with the word that MLflow takes for leave to read it."""
    import keras

    keras.saving.load_model(path).export(path.with_suffix(""), verbose=False)
    path.unlink()
    described = path.parents[1] / "MLmodel"
    text = described.read_text(encoding="utf-8")
    assert "save_exported_model: false" in text
    described.write_text(text.replace("save_exported_model: false", "save_exported_model: true"), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (another_network, r"^the weights of run \w+ have the hash \w{12}…, but the store holds \w{12}…: one or"),
        (half_a_file, r"^the model of run \w+ cannot be read: "),
        (code_in_the_file, r"^the model of run \w+ cannot be read: .*no matching group found in the saved file"),
        (no_file, r"^the model of run \w+ cannot be read: "),
        (program_in_its_place, r"^the model of run \w+ cannot be read: .*model\.keras"),
    ],
)
def test_a_model_that_is_not_what_was_trained_is_not_given_out(
    change: Callable[[Path], None], message: str, file: Path, store: Path
) -> None:
    change(file)
    with pytest.raises(BesomError, match=message):
        besom.load("quick", store)


def in_one_chunk(path: Path) -> None:
    """Small, and of the right shape, but one number of it takes a gigabyte."""
    content = io.BytesIO()
    with h5py.File(content, "w") as opened:
        opened.create_dataset("x", (10,), np.float32, maxshape=(None,), chunks=(250_000_000,), compression="gzip")
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in ("config.json", "metadata.json")}
    with zipfile.ZipFile(path, "w") as archive:
        for name, one in {**kept, "model.weights.h5": content.getvalue()}.items():
            archive.writestr(name, one)


@pytest.fixture(scope="module")
def built_by_mine(tmp_path_factory: pytest.TempPathFactory, besom_command: BesomCommand) -> tuple[Path, str]:
    """A store with a run whose network a user's own builder made, and its id."""
    path = tmp_path_factory.mktemp("built")
    (path / "conf" / "model").mkdir(parents=True)
    shutil.copy(ROOT / "conf" / "config.yaml", path / "conf")
    (path / "conf" / "model" / "mine.yaml").write_text("_target_: builder_of_mine.build\n")
    (path / "builder_of_mine.py").write_text(BUILDER)
    done = besom_command("train", "model=mine", "train.epochs=1", "data.n_train=100", "data.n_val=50", cwd=path)
    assert done.returncode == 0, done.stderr
    ((run,),) = rows(path / "mlruns", "select run_uuid from tags where key = 'kind' and value = 'train'")
    return path / "mlruns", run


def test_a_network_of_a_users_own_is_read_in_keras_safe_mode_and_no_bomb_is(built_by_mine: tuple[Path, str]) -> None:
    store, run = built_by_mine
    assert besom.load(run, store).count_params() == 28 * 28 * 10 + 10
    ((location,),) = rows(store, "select artifact_location from logged_models where source_run_id = ?", run)
    (path,) = Path(location.removeprefix("file://")).rglob("*.keras")
    for change, message in (
        (code_in_the_file, ".*lambda"),
        (in_one_chunk, "'x' in model.weights.h5 is kept in chunks"),
    ):
        change(path)
        with pytest.raises(BesomError, match=rf"^the model of run {run} cannot be read: {message}"):
            besom.load(run, store)


def test_loading_leaves_the_notebooks_own_seeds_as_they_are(store: Path) -> None:
    before = np.random.get_state()[1]
    besom.load("quick", store)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_a_config_that_is_none_or_names_others_files_gives_no_images(store: Path, said: Besom) -> None:
    run = said("best", "quick")["run_id"]
    ((location,),) = rows(store, "select artifact_uri from runs where run_uuid = ?", run)
    file = Path(location.removeprefix("file://")) / "config.yaml"
    kept = file.read_text(encoding="utf-8")
    try:
        for text in ("model: {}\ntrain: {}\n", "data: {splitseed: 1}\nmodel: {}\ntrain: {}\n"):
            file.write_text(text, encoding="utf-8")
            with pytest.raises(ConfigError, match="expected"):
                besom.images("quick", store)
    finally:
        file.write_text(kept, encoding="utf-8")


def test_a_hash_that_was_changed_is_found_by_its_copy_in_the_study(store: Path, said: Besom) -> None:
    best = said("best", "quick")
    change = "update tags set value = ? where key = 'weights_sha256' and run_uuid = ?"
    rows(store, change, "0" * 64, best["run_id"])
    try:
        with pytest.raises(BesomError, match=r"but the store holds 000000000000… and \w{12}…: "):
            besom.load("quick", store)
    finally:
        rows(store, change, best["weights_sha256"], best["run_id"])


def test_a_users_loader_is_called_when_allowed_and_its_images_must_be_the_same(
    folder: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((run,),) = rows(store, "select run_uuid from tags where key = 'kind' and value = 'train'")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match=r"data is built by 'loader_of_mine.load'.*give --allow loader_of_mine$"):
        besom.images(run, store)
    assert "loader_of_mine" not in sys.modules
    x, y = besom.images(run, store, allow=["loader_of_mine"])
    np.testing.assert_array_equal(x[:, 0, 0, 0], 255 * y)
    assert besom.load(run, store).predict(x, verbose=0).shape == (10, 2)
    (tmp_path / "loader_of_mine.py").write_text(LOADER.replace("INK", "254"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "loader_of_mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"^the images of run {run} are no longer .* \(fingerprint.data differs\)"):
        besom.images(run, store, allow=["loader_of_mine"])


# ---- the notebook in docs/


def cells_of(notebook: Path) -> dict[str, Any]:
    return {cell["id"]: cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]}


def shown(cell: Any, kind: str = "text/plain") -> str:
    """Return what a cell shows last."""
    return "".join(cell["outputs"][-1]["data"][kind])


def pictures(cells: dict[str, Any]) -> list[str]:
    data = [output.get("data", {}) for cell in cells.values() for output in cell.get("outputs", [])]
    return [one["image/png"] for one in data if "image/png" in one]


@pytest.fixture(scope="module")
def executed(folder: Path, clean_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The notebook, run in a folder of the project as ``make notebook`` runs it on the whole sweep."""
    (folder / "notes").mkdir()
    output = tmp_path_factory.mktemp("executed") / "lesson.ipynb"
    command = [sys.executable, ROOT / ".ci" / "notebook.py", LESSON, output]
    done = subprocess.run(
        command, cwd=folder / "notes", env=clean_environment, capture_output=True, text=True, check=False, timeout=240
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")  # TensorFlow's C++ would talk to stderr
    return output


def test_the_notebook_runs_and_filters_by_hand_as_keras_does(executed: Path, said: Besom) -> None:
    cells = cells_of(executed)
    assert float(shown(cells["by-hand"])) < 1e-4
    offs = re.findall(r"by hand, off by +(\S+) +(\S+)", shown(cells["second-layer"]))
    assert len(offs) == 1
    assert all(float(off) < 1e-4 for off in offs[0])
    counted = re.findall(r"(?:filters|Keras counts) +(\d+) +(\d+)$", shown(cells["second-layer"]), flags=re.MULTILINE)
    assert len(counted) == 2
    assert counted[0] == counted[1]
    best = said("best", "quick")
    assert [int(n) for n in counted[0]] == [
        (best["model.conv.0.kernel_size"] ** 2 + 1) * best["model.conv.0.filters"],
        (best["model.conv.1.kernel_size"] ** 2 * best["model.conv.0.filters"] + 1) * best["model.conv.1.filters"],
    ]


def test_the_notebook_ends_with_the_seeds_table_and_what_the_sweep_found(executed: Path, said: Besom) -> None:
    cells = cells_of(executed)
    html = shown(cells["predictions"], "text/html")
    table = [re.findall(r"<td>([^<]+)</td>", row) for row in html.split("<tr>") if "<td>" in row]
    expected = said("predict", "quick")["predictions"]
    assert len(table) == len(expected) == 5
    for row, stored in zip(table, expected, strict=True):
        assert [float(value) for value in row[:10]] == pytest.approx([stored[f"p{n}"] for n in range(10)], abs=0.011)
        assert [int(value) for value in row[10:]] == [stored[f"t{n}"] for n in range(10)]
    value, here = re.findall(r"(?:best value|accuracy here) +(\S+)$", shown(cells["study"]), flags=re.MULTILINE)
    assert float(value) == pytest.approx(float(here), abs=1e-6) == said("best", "quick")["objective"]


@pytest.mark.parametrize("which", ["committed", "executed"])
def test_the_notebook_is_whole_quiet_small_and_of_no_machine(which: str, request: pytest.FixtureRequest) -> None:
    path = LESSON if which == "committed" else request.getfixturevalue("executed")
    text = path.read_text(encoding="utf-8")
    notebook, cells = json.loads(text), cells_of(path)
    code = [cell for cell in cells.values() if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), "run make notebook"
    outputs = [output for cell in code for output in cell["outputs"]]
    assert all(cell["outputs"] for cell in code)
    assert {output["output_type"] for output in outputs} == {"display_data", "execute_result"}  # no error, no stderr
    assert len(pictures(cells)) == 2
    assert all(len(picture) * 3 / 4 <= 40_000 for picture in pictures(cells))
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", name) for name in cells)
    assert len(cells) == len(notebook["cells"])
    assert notebook["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert all(part["metadata"] == {} for part in [*cells.values(), *outputs])
    assert text == json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    assert not [place for place in (Path.home(), ROOT, Path(sys.executable).parent) if str(place) in text]
