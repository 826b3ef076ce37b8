"""The promises of the command line on one real, small sweep: real digits, real MLflow, real processes."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT, BesomCommand, Folder

import besom.app.cli
from besom import data
from besom.paths import Store
from besom.upkeep.relocate import relocate

SMALL = ("train.epochs=2", "data.n_train=300")
COLUMNS = {"number", "state", "objective", "n_params", "n_macs", "fit_seconds", "run_id", "weights_sha256"}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, besom_command: BesomCommand) -> Folder:
    """A folder with a finished sweep of three trials; tests only read it, or add to MLflow."""
    folder = Folder(tmp_path_factory.mktemp("swept"), besom_command)
    folder.besom("sweep", "quick", "--trials", "3", *SMALL)
    return folder


@pytest.fixture
def copy(swept: Folder, tmp_path: Path, besom_command: BesomCommand) -> Folder:
    """A copy of the sweep's databases and jobs, to be changed at will."""
    # by another process: where MLflow has the databases open in this one, to close a file takes SQLite's locks away
    subprocess.run(["cp", "-r", swept.path / "mlruns", tmp_path / "mlruns"], check=True)
    relocate(Store.at(tmp_path / "mlruns"))
    return Folder(tmp_path, besom_command)


def test_runs_are_flat_rows_with_the_columns_that_scripts_rely_on(swept: Folder) -> None:
    rows = swept.json("runs", "quick")["trials"]
    assert [row["number"] for row in rows] == [0, 1, 2]
    assert all(set(row) >= COLUMNS and row["state"] == "COMPLETE" for row in rows)
    assert rows[0]["model.conv.0.filters"] == 3
    assert rows[0]["n_params"] == 203_068
    assert rows[0]["n_macs"] == 425_640
    assert len({row["weights_sha256"] for row in rows}) == 3


def test_best_and_status_agree_with_runs(swept: Folder) -> None:
    rows = swept.json("runs", "quick")["trials"]
    best = max(rows, key=lambda row: (row["objective"], -row["number"]))
    assert swept.json("best", "quick") == best
    status = swept.json("status", "quick")
    assert status.pop("elapsed_seconds") > 0
    assert status == {
        **{"name": "quick", "n_trials": 3, "complete": 3, "pruned": 0, "failed": 0, "running": 0, "best": best},
        **{"activity": "complete", "remaining_seconds": 0, "running_trials": [], "undelivered": 0},
    }


def test_runs_as_csv_parse_and_as_a_table_show_only_what_differs(swept: Folder) -> None:
    rows = list(csv.DictReader(io.StringIO(swept.besom("runs", "quick", "--format", "csv").stdout)))
    assert [row["number"] for row in rows] == ["0", "1", "2"]
    header = swept.besom("runs", "quick").stdout.splitlines()[0].split()
    assert "objective" in header
    assert "run_id" not in header
    assert "run_id" in swept.besom("runs", "quick", "--all").stdout.splitlines()[0]


def test_mlflow_holds_parent_and_children_with_params_metrics_and_states(swept: Folder) -> None:
    states = swept.mlflow("select r.status, t.value from runs r join tags t using (run_uuid) where t.key = 'kind'")
    assert [state for state in states if state[1] == "sweep"] == [("FINISHED", "sweep")]
    assert [state for state in states if state[1] == "trial"] == [("FINISHED", "trial")] * 3
    for row in swept.json("runs", "quick")["trials"]:
        run = f"run_uuid = '{row['run_id']}'"
        metrics = dict(swept.mlflow(f"select key, value from latest_metrics where {run}"))
        assert {"train_loss", "train_accuracy", "val_loss", "val_accuracy", "best_epoch", "fit_seconds"} <= set(metrics)
        assert (metrics["objective"], metrics["n_params"], metrics["n_macs"]) == (
            row["objective"],
            row["n_params"],
            row["n_macs"],
        )
        steps = swept.mlflow(f"select step from metrics where key = 'val_accuracy' and {run} order by step")
        assert steps == [(0,), (1,)]
        params = dict(swept.mlflow(f"select key, value from params where {run}"))
        assert params["model.conv.0.filters"] == str(row["model.conv.0.filters"])
        assert not [key for key in params if key.startswith(("paths.", "tracking."))]
        parent = swept.mlflow(f"select value from tags where key = 'mlflow.parentRunId' and {run}")
        assert len(parent) == 1


def test_every_trial_has_its_artifacts_and_a_model_that_loads(swept: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow.keras

    row = swept.json("best", "quick")
    folder = swept.path / "mlruns" / "artifacts" / "quick" / row["run_id"] / "artifacts"
    assert {path.name for path in folder.iterdir()} >= {
        *("config.yaml", "layers.csv", "learning_curve.png", "confusion_matrix.png", "confusion_matrix.csv"),
        *("predictions.csv", "fingerprint.json", "trial.log", "filters", "feature_maps"),
    }
    for pictures in ("filters", "feature_maps"):
        assert {"conv_0.png", "conv_1.png"} <= {path.name for path in (folder / pictures).iterdir()}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{swept.path}/mlruns/mlflow.db")
    model = mlflow.keras.load_model(f"runs:/{row['run_id']}/model")
    assert model.count_params() == row["n_params"]


def test_a_stored_model_predicts_what_its_trial_stored(swept: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow.keras
    import mlflow.pyfunc

    row = swept.json("best", "quick")
    folder = swept.path / "mlruns" / "artifacts" / "quick" / row["run_id"] / "artifacts"
    images = data.load(yaml.safe_load((folder / "config.yaml").read_text())["data"]).x_val[:5]
    table = list(csv.DictReader(io.StringIO((folder / "predictions.csv").read_text())))
    stored = [[float(line[f"p{digit}"]) for digit in range(10)] for line in table]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{swept.path}/mlruns/mlflow.db")
    uri = f"runs:/{row['run_id']}/model"
    for predicted in (
        mlflow.keras.load_model(uri).predict(images, verbose=0),
        mlflow.pyfunc.load_model(uri).predict(images),
    ):
        np.testing.assert_allclose(predicted, stored, atol=0.005001)  # two digits


@pytest.mark.service  # for the time that it takes
def test_system_metrics_may_be_asked_for_when_a_sweep_goes_on(copy: Folder) -> None:
    copy.besom("sweep", "quick", "--trials", "4", *SMALL, "tracking.system_metrics=true")
    watched = copy.mlflow(
        "select distinct t.value from latest_metrics m join tags t using (run_uuid) "
        "where m.key = 'system/cpu_utilization_percentage' and t.key = 'trial'"
    )
    assert watched == [("3",)]
    params = {key for (key,) in copy.mlflow("select distinct key from params")}
    assert not [key for key in params if "system" in key]


def test_predict_shows_the_seeds_table(swept: Folder) -> None:
    rows = swept.json("predict", "quick")["predictions"]
    assert len(rows) == 5
    for row in rows:
        assert sum(row[f"t{digit}"] for digit in range(10)) == 1
        assert row[f"t{row['truth']}"] == 1
        assert sum(row[f"p{digit}"] for digit in range(10)) == pytest.approx(1, abs=0.05)


@pytest.mark.service  # for the time that it takes
def test_two_trials_differ_in_their_config_and_hashes_and_one_in_nothing_from_itself(swept: Folder) -> None:
    best, *_ = swept.json("runs", "quick", "--sort", "objective")["trials"]
    first, second, _ = swept.json("runs", "quick")["trials"]
    differs = swept.json("diff", "quick/0", "quick/1")["differs"]
    points = {key: [first[key], second[key]] for key in first if "." in key and first[key] != second[key]}
    assert points == {key: pair for key, pair in differs["params"].items() if key in points}
    assert set(differs["hashes"]) == {"weights_sha256", "history_sha256", "predictions_sha256"}
    assert set(differs["fingerprint"]) == {"config"}
    same = swept.json("diff", "quick", f"quick/{best['number']}")
    assert (same["differs"], same["first"]["run_id"]) == ({}, best["run_id"])
    assert swept.besom("predict", f"quick/{best['number']}").stdout == swept.besom("predict", "quick").stdout


def test_a_second_start_trains_nothing_and_says_so(swept: Folder) -> None:
    before = swept.json("runs", "quick", "--all")
    again = swept.besom("sweep", "quick", "--trials", "3", *SMALL)
    assert "nothing to train" in again.stdout
    assert swept.json("runs", "quick", "--all") == before


@pytest.mark.service  # for the time that it takes
def test_a_raised_total_in_the_sweep_file_runs_only_the_new_ones(copy: Folder) -> None:
    own = copy.path / "sweeps"
    own.mkdir()
    text = (ROOT / "sweeps" / "quick.yaml").read_text()
    (own / "quick.yaml").write_text(text.replace("n_trials: 12", "n_trials: 4"))
    before = copy.json("runs", "quick")["trials"]
    copy.besom("sweep", "quick", *SMALL)
    after = copy.json("runs", "quick")["trials"]
    assert after[:3] == before
    assert [row["number"] for row in after] == [0, 1, 2, 3]


def test_changed_epochs_are_refused_with_the_key_and_the_way_out(copy: Folder) -> None:
    before = (copy.path / "mlruns" / "studies.db").read_bytes()
    refused = copy.besom("sweep", "quick", "--trials", "3", "train.epochs=3", "data.n_train=300", code=2)
    assert "train.epochs: was 2, is 3" in refused.stderr
    assert "--fresh" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert (copy.path / "mlruns" / "studies.db").read_bytes() == before


def test_the_best_trial_is_reproduced_to_the_bit_in_a_run_of_its_own(swept: Folder) -> None:
    best = swept.json("best", "quick")
    done = swept.besom("reproduce", "quick", "--format", "json")
    verdict = json.loads(done.stdout)
    assert verdict["verdict"] == "bit-identical"
    assert verdict["original_run_id"] == best["run_id"] != verdict["run_id"]
    assert (verdict["cause"], verdict["differs"], verdict["first_epoch"]) == (None, [], None)
    assert best["run_id"] in swept.besom("runs", "quick", "--all").stdout
    assert verdict["run_id"] not in swept.besom("runs", "quick", "--all").stdout
    metrics = "select count(*) from metrics where key = 'val_accuracy' and run_uuid = '{}'"
    assert swept.mlflow(metrics.format(verdict["run_id"])) == [(2,)], done.stderr
    pids = swept.mlflow(
        f"select value from tags where key = 'pid' and run_uuid in ('{best['run_id']}', '{verdict['run_id']}')"
    )
    assert len(set(pids)) == 2


@pytest.mark.service  # for the time that it takes
def test_a_changed_stored_hash_is_found(copy: Folder) -> None:
    best = copy.json("best", "quick")
    with sqlite3.connect(copy.path / "mlruns" / "mlflow.db") as database:
        database.execute(
            "update tags set value = 'ffff' where key = 'weights_sha256' and run_uuid = ?", (best["run_id"],)
        )
        # the artifacts' addresses are absolute: let the copy read its own
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            old, new = best_location(database, table, column), f"file://{copy.path}/mlruns"
            database.execute(f"update {table} set {column} = replace({column}, ?, ?)", (old, new))
    found = copy.json("reproduce", best["run_id"], code=1)
    assert (found["verdict"], found["differs"]) == ("same-predictions", ["weights"])


def best_location(database: sqlite3.Connection, table: str, column: str) -> str:
    """Return what stands before ``/artifacts/quick`` in the addresses of a table."""
    query = f"select {column} from {table} where {column} like '%/artifacts/quick%'"
    location: str = database.execute(query).fetchone()[0]
    return location.split("/artifacts/quick", maxsplit=1)[0]


def test_a_deleted_sweep_is_gone_and_its_name_free(copy: Folder) -> None:
    copy.besom("delete", "quick")
    assert copy.mlflow("select count(*) from experiments where name = 'quick'") == [(0,)]
    assert not (copy.path / "mlruns" / "jobs" / "quick").exists()
    assert "no sweep 'quick'" in copy.besom("runs", "quick", code=2).stderr
    copy.besom("sweep", "quick", "--trials", "1", "train.epochs=1", "data.n_train=100")
    assert len(copy.json("runs", "quick")["trials"]) == 1


def test_dry_run_shows_the_space_and_the_first_points_and_makes_nothing(
    project: Path, besom_command: BesomCommand
) -> None:
    shown = Folder(project, besom_command).besom("sweep", "quick", "--dry-run").stdout
    assert "72 points, 12 trials" in shown
    assert "0: conv.0.filters=3 conv.1.filters=6" in shown
    assert "about" in shown
    assert not list(project.iterdir())


def test_fields_of_the_lanes_and_a_glob_need_no_more_words(project: Path, besom_command: BesomCommand) -> None:
    options = ("data=glob(mnist*)", "hydra.launcher.n_lanes=1", "hydra.sweeper.enqueue=[]")
    shown = Folder(project, besom_command).besom("sweep", "quick", "--dry-run", *options).stdout
    assert "144 points" in shown
    assert "on 1 lanes" in shown


@pytest.mark.service  # for the time that it takes
def test_a_constraint_prunes_a_point_without_training_it(project: Path, besom_command: BesomCommand) -> None:
    folder = Folder(project, besom_command)
    folder.besom("sweep", "quick", "--trials", "2", *SMALL, "hydra.sweeper.constraints=['n_params > 203068']")
    first = folder.json("runs", "quick")["trials"][0]
    assert (first["state"], first["objective"]) == ("PRUNED", None)
    state = dict(folder.mlflow(f"select key, value from tags where run_uuid = '{first['run_id']}'"))
    assert state["state"] == "PRUNED"
    assert "n_params > 203068 broken: n_params is 203068" in state["reason"]


@pytest.mark.service  # for the time that it takes
def test_a_sweep_file_of_ones_own_and_a_builder_of_ones_own(project: Path, besom_command: BesomCommand) -> None:
    folder = Folder(project, besom_command)
    (project / "mine.py").write_text(
        "import keras\n"
        "def build(width, input_shape, n_classes):\n"
        "    layers = keras.layers\n"
        "    dense = [layers.Dense(width, activation='relu'), layers.Dense(n_classes, activation='softmax')]\n"
        "    return keras.Sequential([keras.Input(input_shape), layers.Flatten(), *dense])\n"
    )
    (project / "conf" / "model").mkdir(parents=True)
    (project / "conf" / "model" / "mine.yaml").write_text("_target_: mine.build\nwidth: 8\n")
    config = (ROOT / "conf" / "config.yaml").read_text()
    (project / "conf" / "config.yaml").write_text(config)
    (project / "sweeps").mkdir()
    (project / "sweeps" / "widths.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /model: mine\n"
        "hydra:\n  sweeper:\n    direction: maximize\n    n_trials: null\n"
        "    sampler: {seed: 1}\n    params:\n      model.width: choice(4,8)\n"
    )
    folder.besom("sweep", "widths", "train.epochs=1", "data.n_train=200")
    rows = folder.json("runs", "widths")["trials"]
    assert sorted(row["model.width"] for row in rows) == [4, 8]
    assert sorted(row["n_params"] for row in rows) == [784 * 4 + 4 + 50, 784 * 8 + 8 + 90]
    assert "give --allow mine" in folder.besom("reproduce", "widths", code=2).stderr
    assert folder.json("reproduce", "widths", "--allow", "mine")["verdict"] == "bit-identical"


WRONG = {
    "an unknown key": (["sweep", "quick", "train.epoch=3"], "did you mean 'train.epochs'?"),
    "a wrong type": (["sweep", "quick", "train.epochs=many"], "'train.epochs=many' cannot be used: .*Integer"),
    "a wrong word": (["train", "model.activation=swosh"], "did you mean 'swish'?"),
    "an unknown option": (["train", "data=mnst"], "'data=mnst' is not known; expected one of digits, fashion_mnist, "),
    "an unknown sweep": (["sweep", "qick"], "sweep 'qick' is not known; .* did you mean 'quick'?"),
    "a kernel too large": (["train", "model.conv.1.kernel_size=25"], "model.conv.1.kernel_size=25 .*at most 24"),
    "a layer that is not there": (["train", "model.conv.5.filters=3"], "model.conv has 2, numbered from 0"),
    "a missing file": (["train", "data=npz", "data.path=none.npz"], "there is no file 'none.npz'"),
    "a corrupt npz": (["train", "data=npz", "data.path=bad.npz"], "bad.npz is not an npz file"),
    "an unknown run": (["reproduce", "0123456789"], "no store at "),
    "an empty search space": (["sweep", "empty.yaml"], "the search space is empty"),
    "an unknown command": (["swep"], "did you mean 'sweep'?"),
    "an unknown flag": (["sweep", "quick", "--trails", "3"], "unrecognized arguments: --trails"),
    "a missing sweep file": (["sweep", "not/here.yaml"], "sweep file 'not/here.yaml' does not exist"),
    "a password": (["train", "tracking.uri=http://u:secret@h/"], "holds a password"),
    "a sweep over threads": (["sweep", "quick", "train.threads=1,2"], "train.threads cannot be swept"),
    "an unknown measure": (["sweep", "quick", "hydra.sweeper.constraints=['n_parms < 5']"], "did you mean 'n_params'?"),
    "a negative seed": (["sweep", "quick", "--seed", "-1"], "seed=-1 is negative; expected a number from 0"),
    "an unknown sampler": (
        ["sweep", "quick", "--sampler", "foo"],
        "expected one of bruteforce, cmaes, gp, grid, motpe, nsgaii, nsgaiii, qmc, random, tpe",
    ),
    "two objectives": (
        ["sweep", "quick", "hydra.sweeper.direction=[maximize,minimize]"],
        "hydra.sweeper.direction has 2 entries, but a training has one train.objective",
    ),
    "no lanes": (
        ["sweep", "quick", "hydra.launcher.n_lanes=0"],
        "n_lanes=0 is not usable; expected 'auto' or a number",
    ),
    "lanes that start in no known way": (
        ["sweep", "quick", "hydra.launcher.start_method=frok"],
        "hydra.launcher.start_method",
    ),
    "a wrong pruner": (
        ["sweep", "quick", "hydra.sweeper.pruner={_target_: foo.Bar}"],
        "hydra.sweeper.pruner.* cannot be",
    ),
    "a sweep file that is no YAML": (["sweep", "broken.yaml"], "a config file is no YAML: .*broken.yaml"),
    "a storage elsewhere": (["sweep", "quick", "hydra.sweeper.storage=sqlite:///x.db"], "x.db' leaves the store"),
    "a password in the storage": (
        ["sweep", "quick", "hydra.sweeper.storage='postgresql://u:secret@h/db'"],
        "holds a password; .* BESOM_STORAGE",
    ),
    "a name that leaves the store": (["sweep", "quick", "--name", "../x"], "sweep name '../x' cannot be used"),
}


@pytest.mark.parametrize(("args", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_one_clear_line_exit_2_and_nothing_created(
    args: list[str], message: str, project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import re

    (project / "bad.npz").write_text("not a zip")
    (project / "broken.yaml").write_text("a: [1\n")
    (project / "empty.yaml").write_text("# @package _global_\ntrain:\n  epochs: 1\n")
    before = sorted(project.rglob("*"))
    monkeypatch.chdir(project)
    for name in ("BESOM_STORE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    code = besom.app.cli.run(args)
    out, err = capfd.readouterr()
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert re.search(message.replace("?", r"\?"), err), err
    assert "secret" not in err
    assert sorted(project.rglob("*")) == before


@pytest.mark.parametrize("command", besom.app.cli.SUMMARIES)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        besom.app.cli.run([command, "--help"])
    assert done.value.code == 0
    assert f"usage: besom {command}" in capsys.readouterr().out


def test_a_command_that_is_ended_while_it_composes_says_so(project: Path, clean_environment: dict[str, str]) -> None:
    """At any moment of composing, which leaves OmegaConf in the middle of a copy."""
    code = (
        "import random, signal, sys\n"
        "from besom.app.cli import run\n"
        "from besom.signals import ended_by_signals\n"
        "signal.signal(signal.SIGALRM, lambda number, frame: signal.raise_signal(signal.SIGTERM))\n"
        "draw, codes = random.Random(1), set()\n"
        "with ended_by_signals():\n"
        "    run(['summary'])\n"
        "    for _ in range(60):\n"
        "        try:\n"
        "            signal.setitimer(signal.ITIMER_REAL, draw.uniform(0.001, 0.4))\n"
        "            codes.add(run(['summary']))\n"
        "        finally:\n"
        "            signal.setitimer(signal.ITIMER_REAL, 0)\n"
        "print(sorted(codes), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project,
        env=clean_environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = done.stderr.splitlines()
    assert lines[-1] == "[0, 143]", done.stderr
    assert set(lines[:-1]) == {"besom: interrupted"}
