"""`besom diff`, and runs by SWEEP/NUMBER: on runs as MLflow has them, which nobody trained."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import BesomCommand
from stored import study_in, trial

import besom.app.cli
from besom.app.store import create_store
from besom.compare.catalog import find_run
from besom.errors import NotFound
from besom.paths import Store
from besom.tracking import MlflowTracker, log_tags, log_values

CPU = json.dumps({"model": "one", "flags": ["avx"]})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with the sweep `toy`: trials 0 and 1 differ, 2 repeats 0, 3 failed early, 4 has no run."""
    store = Store(tmp_path_factory.mktemp("diff") / "mlruns")
    create_store(store)
    tracker, study = MlflowTracker(), study_in(store)
    tracker.open_sweep("toy", {"paths": {"store": str(store.root)}, "tracking": {"uri": None}})
    for number, activation, accuracy, tensorflow, digest in (
        (0, "swish", 0.91231, "2.20", "a" * 64),
        (1, "relu", 0.91232, "2.21", "b" * 64),
        (2, "swish", 0.91231, "2.20", "a" * 64),
    ):
        packages = json.dumps({"python": "3.11", "tensorflow": tensorflow})
        tags = {"weights_sha256": digest, "fingerprint.packages": packages, "fingerprint.cpu": CPU}
        run_id = start(tracker, number, activation)
        log_values(tracker._client, run_id, {"val_accuracy": 0.5}, 0)
        log_values(tracker._client, run_id, {"val_accuracy": accuracy, "val_loss": float("nan")}, 1)
        log_values(tracker._client, run_id, {"n_params": 203_068, "objective": accuracy, "fit_seconds": number + 1.5})
        log_tags(tracker._client, run_id, tags)
        tracker.end_trial(run_id, "COMPLETE", None, died=False)
        study.add_trial(trial("complete", [accuracy], run_id=run_id, weights_sha256=digest))
    run_id = start(tracker, 3, "swish")
    tracker.end_trial(run_id, "FAIL", "boom", died=False)
    study.add_trial(trial("failed", run_id=run_id, reason="boom"))
    study.add_trial(trial("failed", reason="no point"))
    study_in(store, "empty")
    return store


def start(tracker: MlflowTracker, number: int, activation: str) -> str:
    model = {"activation": activation, "dropout": 0.0, "conv": [{"filters": 3}]}
    return tracker.start_trial(number, {"model": model, "train": {"seed": 1}}, {})


def diff(store: Store, capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert besom.app.cli.run(["diff", *args, "--store", str(store.root)]) == 0
    return capsys.readouterr().out


def found(store: Store, capsys: pytest.CaptureFixture[str], *args: str) -> Any:
    return json.loads(diff(store, capsys, *args, "--format", "json"))


def test_what_differs_is_named_part_by_part(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    one = found(store, capsys, "toy/0", "toy/1")
    assert one["differs"] == {
        "params": {"model.activation": ["swish", "relu"]},
        "metrics": {"val_accuracy": [0.91231, 0.91232]},
        "facts": {"objective": [0.91231, 0.91232]},
        "fingerprint": {"packages.tensorflow": ["2.20", "2.21"]},
        "hashes": {"weights_sha256": ["a" * 64, "b" * 64]},
    }
    assert set(one) == {"first", "second", "differs", "same"}
    assert (one["first"]["name"], one["first"]["sweep"], one["first"]["trial"]) == ("toy/0", "toy", 0)
    assert (one["second"]["state"], one["second"]["fit_seconds"]) == ("COMPLETE", 2.5)


def test_with_all_what_is_the_same_is_there_too(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    one = found(store, capsys, "toy/0", "toy/1", "--all")
    assert one["equal"]["params"] == {
        **{"model.dropout": [0.0, 0.0], "model.conv.0.filters": [3, 3], "train.seed": [1, 1]},
    }
    assert one["equal"]["facts"] == {"state": ["COMPLETE"] * 2, "n_params": [203_068, 203_068]}
    assert one["equal"]["metrics"] == {"val_loss": ["nan", "nan"]}
    assert one["equal"]["fingerprint"]["cpu.flags"] == [["avx"], ["avx"]]
    assert one["same"] == sum(map(len, one["equal"].values()))


def test_equal_runs_are_said_to_be_equal_however_long_they_took(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    one = found(store, capsys, "toy/0", "toy/2")
    assert (one["differs"], one["first"]["fit_seconds"], one["second"]["fit_seconds"]) == ({}, 1.5, 3.5)
    assert f"nothing differs: all {one['same']} values are the same" in diff(store, capsys, "toy/0", "toy/2")


def test_what_one_run_lacks_differs(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    differs = found(store, capsys, "toy/0", "toy/3")["differs"]
    assert differs["facts"]["state"] == ["COMPLETE", "FAIL"]
    assert differs["facts"]["reason"] == [None, "boom"]
    assert differs["metrics"]["val_accuracy"] == [0.91231, None]
    assert "params" not in differs


def test_the_table_shows_values_so_that_they_can_be_told_apart(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line.split() for line in diff(store, capsys, "toy/0", "toy/1").splitlines()]
    assert ["part", "key", "first", "second"] in lines
    assert ["metrics", "val_accuracy", "0.91231", "0.91232"] in lines
    assert ["hashes", "weights_sha256", f"{'a' * 12}…", f"{'b' * 12}…"] in lines
    assert lines[-1][:2] == ["5", "differ,"]


def test_csv_has_one_row_a_value(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(diff(store, capsys, "toy/0", "toy/1", "--format", "csv"))))
    assert rows[0] == {"part": "params", "key": "model.activation", "first": "swish", "second": "relu"}
    assert rows[-1]["second"] == "b" * 64


def test_a_run_is_found_by_its_id_its_trial_and_its_sweep(store: Store) -> None:
    second = find_run(store, "toy/1")
    assert second.tags["trial"] == "1"
    assert find_run(store, second.run_id).run_id == second.run_id
    assert find_run(store, "toy").run_id == second.run_id  # the best one


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("toy/7", "sweep 'toy' has no trial '7'; expected a number from 0 to 4"),
        ("toy/x", "sweep 'toy' has no trial 'x'"),
        ("toy/", "sweep 'toy' has no trial ''"),
        ("toy/-1", "sweep 'toy' has no trial '-1'"),
        ("toy/4", "trial 4 of sweep 'toy' has no run"),
        ("empty/0", "sweep 'empty' has no trial '0'; it has none yet"),
        ("tay/0", r"no run or sweep 'tay/0' in .*; did you mean 'toy'\?"),
    ],
)
def test_a_run_that_is_not_there_is_not_found(name: str, message: str, store: Store) -> None:
    with pytest.raises(NotFound, match=message):
        find_run(store, name)


def test_diff_on_the_command_line(store: Store, besom_command: BesomCommand, tmp_path: Path) -> None:
    done = besom_command("diff", "toy/0", "toy", "--store", str(store.root), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "params       model.activation" in done.stdout
    refused = besom_command("diff", "toy/0", "toy/9", "--store", str(store.root), cwd=tmp_path)
    assert refused.returncode == 2
    assert "has no trial '9'" in refused.stderr
    assert not list(tmp_path.iterdir())
