"""One thing changes between a training and its reproduction: the verdict names it, and nothing else. Real trainings."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import ROOT, BesomCommand, Folder

import besom.app.cli
from besom.datasets.pinned import mnist_5k

TRAIN = ("data=npz", "data.path=mine.npz", "data.n_train=300", "train.epochs=2")
BUILDER = """
import keras
from {shapes} import WIDTH

def build(input_shape, n_classes):
    inputs = keras.Input(input_shape)
    hidden = keras.layers.Dense(WIDTH, activation="relu")(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, keras.layers.Dense(n_classes, activation="softmax")(hidden))
"""


@dataclass(frozen=True)
class Trained:
    """A project with three trainings: of besom's own network, of a builder in the project, of an installed one."""

    folder: Folder
    runs: dict[str, str]

    @property
    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self.folder.path / "site-packages")}


def install(path: Path, version: str, width: int) -> None:
    """Install the distribution ``mynet`` as pip lays it out."""
    place = path / "site-packages"
    shutil.rmtree(place, ignore_errors=True)
    (place / "mynet").mkdir(parents=True)
    (place / "mynet" / "__init__.py").write_text(BUILDER.format(shapes="mynet.shapes"))
    (place / "mynet" / "shapes.py").write_text(f"WIDTH = {width}\n")
    about = place / f"mynet-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: mynet\nVersion: {version}\n")
    (about / "top_level.txt").write_text("mynet\n")


def lay_out(path: Path) -> None:
    """Write the project as it was when it was trained."""
    arrays = mnist_5k()
    np.savez(path / "mine.npz", x=arrays.x[::10], y=arrays.y[::10])
    (path / "mine.py").write_text(BUILDER.format(shapes="shapes_of_mine"))
    (path / "shapes_of_mine.py").write_text("WIDTH = 16\n")
    install(path, "1.0", 16)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, besom_command: BesomCommand) -> Trained:
    path = tmp_path_factory.mktemp("trained")
    (path / "conf" / "model").mkdir(parents=True)
    shutil.copy(ROOT / "conf" / "config.yaml", path / "conf" / "config.yaml")
    for name in ("mine", "mynet"):
        (path / "conf" / "model" / f"{name}.yaml").write_text(f"_target_: {name}.build\n")
    lay_out(path)
    trained = Trained(Folder(path, besom_command), {})
    for model in ("cnn", "mine", "mynet"):
        arguments = (*TRAIN, f"model={model}", f"tracking.experiment={model}")
        trained.folder.besom("train", *arguments, env=trained.environment)
        query = "select run_uuid from runs join experiments using (experiment_id) where experiments.name = '{}'"
        [(trained.runs[model],)] = trained.folder.mlflow(query.format(model))
    return trained


@dataclass(frozen=True)
class Change:
    """What is changed, and what the verdict has to name.

    Args:
        make: changes the project, or the run's artifacts.
    """

    part: str
    keys: Sequence[str]
    model: str = "cnn"
    make: Callable[[Path, Path], None] = lambda project, artifacts: None
    arguments: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)


def pixel(project: Path, artifacts: Path) -> None:
    with np.load(project / "mine.npz") as before:
        x, y = before["x"].copy(), before["y"]
    x[:, 14, 14, 0] ^= 1
    np.savez(project / "mine.npz", x=x, y=y)


def label(project: Path, artifacts: Path) -> None:
    with np.load(project / "mine.npz") as before:
        x, y = before["x"], before["y"].copy()
    y[7] = (y[7] + 1) % 10
    np.savez(project / "mine.npz", x=x, y=y)


def frozen(key: str, value: Any) -> Callable[[Path, Path], None]:
    """Return what changes a leaf of ``train`` in the stored config."""

    def change(project: Path, artifacts: Path) -> None:
        config = yaml.safe_load((artifacts / "config.yaml").read_text())
        config["train"][key] = value
        (artifacts / "config.yaml").write_text(yaml.safe_dump(config))

    return change


CHANGES = {
    "a pixel": Change("data", [""], make=pixel),
    "a label": Change("data", [""], make=label),
    "a line of model code": Change(
        *("code", ["shapes_of_mine.py"], "mine"),
        make=lambda project, artifacts: (project / "shapes_of_mine.py").write_text("WIDTH = 17\n") and None,
    ),
    "the learning rate": Change("config", ["train.learning_rate"], make=frozen("learning_rate", 0.01)),
    "the seed": Change("seed", ["train"], make=frozen("seed", 1)),
    "the threads": Change("threads", [""], arguments=("--threads", "2")),
    "a package's version": Change(
        *("packages", ["mynet"], "mynet"), make=lambda project, artifacts: install(project, "2.0", 17)
    ),
    "oneDNN off": Change("onednn", ["TF_ENABLE_ONEDNN_OPTS"], arguments=("--onednn", "off")),
    "another instruction set": Change(
        "cpu", ["limits.ONEDNN_MAX_CPU_ISA"], environment={"ONEDNN_MAX_CPU_ISA": "SSE41"}
    ),
}


def reproduced(trained: Trained, change: Change, code: int) -> tuple[dict[str, Any], str]:
    """Return what a reproduction after the change found, and what it said; the project is as before afterwards."""
    run_id = trained.runs[change.model]
    artifacts = trained.folder.path / "mlruns" / "artifacts" / change.model / run_id / "artifacts"
    config = (artifacts / "config.yaml").read_text()
    allow = () if change.model == "cnn" else ("--allow", change.model)
    try:
        change.make(trained.folder.path, artifacts)
        arguments = ("reproduce", run_id, *allow, *change.arguments, "--format", "json")
        done = trained.folder.besom(*arguments, code=code, env={**trained.environment, **change.environment})
    finally:
        (artifacts / "config.yaml").write_text(config)
        lay_out(trained.folder.path)
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    return found, done.stderr


@pytest.mark.parametrize("model", ["cnn", pytest.param("mynet", marks=pytest.mark.service)])
def test_where_nothing_changes_the_bits_are_the_same_and_nothing_is_named(trained: Trained, model: str) -> None:
    found, said = reproduced(trained, Change("", [], model), 0)
    assert (found["verdict"], found["cause"], found["differs"]) == ("bit-identical", None, [])
    assert found["differences"] == []
    assert "not as it was" not in said


EVERY_DAY = ("a line of model code", "the learning rate")
"""The others are for `make test-services`, for the time that they take."""


@pytest.mark.parametrize(
    "what", [what if what in EVERY_DAY else pytest.param(what, marks=pytest.mark.service) for what in CHANGES]
)
def test_the_verdict_names_what_changed_and_only_that(trained: Trained, what: str) -> None:
    change = CHANGES[what]
    found, said = reproduced(trained, change, 1)
    assert found["verdict"] in ("same-predictions", "within-noise", "different")
    assert "weights" in found["differs"]
    assert found["first_epoch"] in (0, 1)
    assert found["cause"] == change.part
    assert [(one["part"], one["key"]) for one in found["differences"]] == [(change.part, key) for key in change.keys]
    before = said.partition("not as it was when this was trained")[2]
    assert before.splitlines()[1].strip().startswith(f"{change.part} {change.keys[0]}".rstrip())


@pytest.mark.service  # for the time that it takes
def test_a_change_that_changes_no_bit_is_named_beforehand_and_does_no_harm(trained: Trained) -> None:
    comment = Change("code", ["mine.py"], "mine", lambda project, artifacts: add_a_comment(project / "mine.py"))
    found, said = reproduced(trained, comment, 0)
    assert (found["verdict"], found["cause"]) == ("bit-identical", None)
    assert [one["key"] for one in found["differences"]] == ["mine.py"]
    assert "code mine.py: " in said


def add_a_comment(file: Path) -> None:
    file.write_text(file.read_text() + "# nothing\n")


def test_a_stored_model_is_evaluated(trained: Trained) -> None:
    found = trained.folder.json("reproduce", trained.runs["cnn"], "--from-model")
    assert (found["verdict"], found["compared"]) == ("bit-identical", ["weights", "predictions"])


SPOILT: dict[str, Callable[[bytes, Trained], bytes]] = {
    "a program for pickle": lambda before, trained: b"cos\nsystem\n(S'touch pwned'\ntR.",
    "half of it": lambda before, trained: before[: len(before) // 2],
    "another network": lambda before, trained: model_of(trained, "mine").read_bytes(),
}


@pytest.mark.parametrize(
    "what", [what if "pickle" in what else pytest.param(what, marks=pytest.mark.service) for what in SPOILT]
)
def test_a_model_file_that_was_changed_is_refused_and_nothing_of_it_runs(trained: Trained, what: str) -> None:
    file, run_id = model_of(trained, "cnn"), trained.runs["cnn"]
    before = file.read_bytes()
    file.write_bytes(SPOILT[what](before, trained))
    try:
        refused = trained.folder.besom("reproduce", run_id, "--from-model", code=1)
    finally:
        file.write_bytes(before)
    assert f"the model of run {run_id} cannot be read" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not (trained.folder.path / "pwned").exists()


@pytest.fixture(scope="module")
def exported(trained: Trained, tmp_path_factory: pytest.TempPathFactory, besom_command: BesomCommand) -> Folder:
    """A folder of somebody else with what was exported in ``out``, and with the images; without a store."""
    elsewhere = Folder(tmp_path_factory.mktemp("elsewhere"), besom_command)
    trained.folder.besom("export", trained.runs["cnn"], str(elsewhere.path / "out"))
    shutil.copy(trained.folder.path / "mine.npz", elsewhere.path / "images.npz")
    return elsewhere


@pytest.mark.service  # for the time that it takes
def test_what_was_exported_is_reproduced_elsewhere_to_the_bit(trained: Trained, exported: Folder) -> None:
    found = exported.json("reproduce", "out", "--data-path", "images.npz")
    assert (found["verdict"], found["differences"]) == ("bit-identical", [])
    assert found["original_run_id"] == trained.runs["cnn"]
    [tag] = exported.mlflow(f"select value from tags where key = 'reproduces' and run_uuid = '{found['run_id']}'")
    assert tag == (trained.runs["cnn"],)


EXPORTED: dict[str, tuple[str, Callable[[str], str | None], Sequence[str], str]] = {
    "no images": ("config.yaml", lambda text: text, [], "there is no file 'mine.npz'"),
    "a path outside": ("config.yaml", lambda text: text.replace("mine.npz", "/etc/passwd"), [], "lies outside"),
    "a program": ("config.yaml", lambda text: text.replace("besom.model.cnn", "os.system"), [], "give --allow os"),
    "no config": ("config.yaml", lambda text: None, [], "config.yaml cannot be read"),
    "no hashes": ("expected.json", lambda text: "{}", [], "lacks run_id, hashes or history"),
    "no JSON": ("expected.json", lambda text: text[:-9], [], "expected.json is no JSON"),
    "a list": ("fingerprint.json", lambda text: "[]", [], "fingerprint.json is a list"),
    "no store": ("config.yaml", lambda text: text, ["--from-model"], "--from-model needs a store"),
}


@pytest.mark.parametrize("what", EXPORTED)
def test_a_folder_that_is_not_as_exported_is_refused_in_one_line(
    exported: Folder, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, make, arguments, message = EXPORTED[what]
    shutil.copytree(exported.path / "out", tmp_path / "out")
    text = make((tmp_path / "out" / name).read_text())
    (tmp_path / "out" / name).unlink()
    if text is not None:
        (tmp_path / "out" / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    assert besom.app.cli.run(["reproduce", "out", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "mlruns").exists()


def model_of(trained: Trained, model: str) -> Path:
    """Return the file of the model that a training stored; its reproductions store theirs beside it."""
    folder = trained.folder.path / "mlruns" / "artifacts" / model / "models"
    [found] = [file for file in folder.glob("*/artifacts/MLmodel") if trained.runs[model] in file.read_text()]
    return found.parent / "data" / "model.keras"


Refuse = Callable[[str, Callable[[str], str | None], str], None]


@pytest.fixture
def refuse(trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Put another text in the place of an artifact, or none; its run must be refused, and no run made."""
    run_id, path = trained.runs["cnn"], trained.folder.path

    def refuse(name: str, make: Callable[[str], str | None], message: str) -> None:
        file = path / "mlruns" / "artifacts" / "cnn" / run_id / "artifacts" / name
        before, runs = file.read_text(), trained.folder.mlflow("select count(*) from runs")
        text = make(before)
        file.unlink() if text is None else file.write_text(text)
        monkeypatch.chdir(path)
        (path / "evil.py").write_text(EVIL)
        try:
            assert besom.app.cli.run(["reproduce", run_id, "--store", str(path / "mlruns")]) == 2
        finally:
            file.write_text(before)
        said = capsys.readouterr().err
        assert message in said
        assert len(said.splitlines()) == 1
        assert trained.folder.mlflow("select count(*) from runs") == runs
        assert not (path / "pwned").exists()

    return refuse


EVIL = "from pathlib import Path\nPath('pwned').touch()\ndef run(**arguments):\n    Path('pwned').touch()\n"
HOSTILE = {
    "a program as a builder": (lambda config: config["model"].update(_target_="evil.run"), "give --allow evil"),
    "a program as a loader": (lambda config: config["data"].update(_target_="evil.run"), "give --allow evil"),
    "a program of the system": (lambda config: config["model"].update(_target_="os.system"), "give --allow os"),
    "a program beside the settings": (lambda config: config["train"].update(_target_="evil.run"), "Key '_target_'"),
    "a program in a layer": (lambda config: config["model"]["conv"][0].update(_target_="evil.run"), "Key '_target_'"),
    "a list for a group": (lambda config: config.update(model=["evil.run"]), "the run's model is built by"),
    "no groups": (lambda config: config.clear(), "the config has no"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_config_is_refused_in_one_line_and_nothing_of_it_runs(
    trained: Trained, what: str, refuse: Refuse
) -> None:
    change, message = HOSTILE[what]

    def make(text: str) -> str:
        config = yaml.safe_load(text)
        change(config)
        return yaml.safe_dump(config)

    refuse("config.yaml", make, message)


TEXTS = {
    "an object of Python": ('!!python/object/apply:os.system ["touch pwned"]', "could not determine a constructor"),
    "no YAML": ("a: [", "cannot be read: while parsing"),
    "a list": ("- 1", "is no mapping"),
    "an avalanche": (
        "a: &a [x, x]\n" + "".join(f"{new}: &{new} [*{old}, *{old}]\n" for old, new in ["ab", "bc", "cd"]),
        "it has an alias",
    ),
}


@pytest.mark.parametrize("what", TEXTS)
def test_a_config_that_is_none_is_refused_in_one_line(what: str, refuse: Refuse) -> None:
    text, message = TEXTS[what]
    refuse("config.yaml", lambda before: text, message)


@pytest.mark.parametrize("name", ["config.yaml", "fingerprint.json"])
def test_a_missing_artifact_is_named_and_no_run_is_made(name: str, refuse: Refuse) -> None:
    refuse(name, lambda before: None, f"has no artifact {name}")


def test_a_pickle_in_the_place_of_the_images_is_not_opened(trained: Trained) -> None:
    path = trained.folder.path
    np.savez(path / "mine.npz", x=np.array([Trap()], dtype=object), y=np.array([0]))
    try:
        refused = trained.folder.besom("reproduce", trained.runs["cnn"], code=2)
    finally:
        lay_out(path)
    assert "mine.npz" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not (path / "pwned").exists()


class Trap:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("pwned", "w")
