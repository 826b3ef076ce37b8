"""`besom confirm` on real, small sweeps: each training once, also after a kill, and the test set opened once."""

from __future__ import annotations

import io
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, BesomCommand, Folder, all_gone, lanes_of, until

import besom.app.cli
from besom.compare.catalog import open_study
from besom.confirm.confirmation import new_seeds
from besom.confirm.contenders import Finder, Trust
from besom.errors import NotFound
from besom.paths import Store

TOY = """# @package _global_
# How wide a dense layer?
defaults:
  - override /hydra/sweeper/sampler: grid

data: {n_train: 300}
train: {epochs: 1}
model: {dense: 1, depth: 1}

hydra:
  mode: MULTIRUN
  sweeper:
    direction: maximize
    n_trials: null
    params:
      model.dense: choice(8,16,32)
"""
SMALL = ("--top", "2", "--seeds", "2", "--jobs", "1")
CONFIRMATIONS = "select r.run_uuid, r.status from runs r join tags t using (run_uuid) where t.key = 'kind' and t.value"


class Confirmed(Folder):
    """A folder with a sweep, and its store as it was at some moments, to go back to: addresses in it are absolute."""

    def keep(self, moment: str) -> None:
        shutil.copytree(self.path / "mlruns", self.path / moment)

    def go_back(self, moment: str) -> None:
        shutil.rmtree(self.path / "mlruns")
        shutil.copytree(self.path / moment, self.path / "mlruns")

    def trainings(self) -> Counter[tuple[str, str, str]]:
        """Count the confirmation runs by status, config and seed."""
        return Counter(
            (status, *(value for (value,) in self.mlflow(
                f"select value from tags where run_uuid = '{run_id}' and key in ('config_sha256', 'seed') order by key"
            ))) for run_id, status in self.mlflow(f"{CONFIRMATIONS} = 'confirmation'")
        )  # fmt: skip

    def openings(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = open_study(Store.at(self.path / "mlruns"), "toy").user_attrs["test_openings"]
        return found

    def version_tags(self) -> dict[str, str]:
        """Return the tags of the champion's version, its run among them."""
        alias = "registered_model_aliases a join model_versions v on v.name = a.name and v.version = a.version"
        [(version, run_id)] = self.mlflow(f"select v.version, v.run_id from {alias} where a.alias = 'champion'")
        tags = dict(self.mlflow(f"select key, value from model_version_tags where version = {version}"))
        return {**tags, "run_id": run_id}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory, besom_command: BesomCommand) -> Confirmed:
    """A finished sweep of three trials; the base config is none of them."""
    folder = Confirmed(tmp_path_factory.mktemp("toy"), besom_command)
    (folder.path / "toy.yaml").write_text(TOY)
    folder.besom("sweep", "toy.yaml")
    folder.keep("swept")
    return folder


@pytest.fixture(scope="module")
def first(toy: Confirmed) -> dict[str, Any]:
    """The first confirmation: of the two leaders and the baseline."""
    toy.go_back("swept")
    found: dict[str, Any] = toy.json("confirm", "toy", *SMALL, "--jobs", "2")
    toy.keep("confirmed")
    return found


@pytest.fixture
def confirmed(toy: Confirmed, first: dict[str, Any]) -> Confirmed:
    """The folder as the first confirmation left it."""
    toy.go_back("confirmed")
    return toy


def winner_of(found: dict[str, Any]) -> dict[str, Any]:
    """Return the contender that won."""
    [winner] = [one for one in found["contenders"] if one["label"] == found["winner"]]
    return dict(winner)


def test_the_leaders_and_the_baseline_are_trained_with_the_same_new_seeds(
    confirmed: Confirmed, first: dict[str, Any]
) -> None:
    rows = confirmed.json("runs", "toy", "--sort", "objective")["trials"]
    leaders, baseline = first["contenders"][:2], first["contenders"][2]
    assert [(one["number"], one["run_id"], one["sweep_value"]) for one in leaders] == [
        (row["number"], row["run_id"], row["objective"]) for row in rows[:2]
    ]
    assert (baseline["number"], baseline["run_id"], baseline["label"]) == (None, None, "the baseline")
    for one in first["contenders"]:
        assert one["seeds"] == [1, 2]
        assert one["low"] < one["mean"] < one["high"]
        assert one["mean"] == pytest.approx(sum(one["values"]) / 2)
    assert len(first["comparisons"]) == 3
    assert set(first["comparisons"][0]) == {"first", "second", "difference", "low", "high", "p", "p_holm", "verdict"}
    done = confirmed.trainings()
    assert len(done) == sum(done.values()) == 6
    assert {status for status, *_ in done} == {"FINISHED"}
    tags = "select value from tags where key = '{}' and run_uuid in ({} = 'confirmation')"
    ids = CONFIRMATIONS.replace(", r.status", "")
    assert Counter(value for (value,) in confirmed.mlflow(tags.format("confirms", ids))) == {
        **{row["run_id"]: 2 for row in rows[:2]}, "baseline": 2,
    }  # fmt: skip
    assert len(set(confirmed.mlflow(tags.format("mlflow.parentRunId", ids)))) == 1
    dense = confirmed.mlflow(
        f"select distinct value from params where key = 'model.dense' and run_uuid in ({ids} = 'confirmation')"
    )
    assert sorted(dense) == sorted([("1",), *((str(row["model.dense"]),) for row in rows[:2])])


def test_confirmations_are_no_trials(confirmed: Confirmed) -> None:
    assert len(confirmed.json("runs", "toy", "--all")["trials"]) == 3
    status = confirmed.json("status", "toy")
    assert (status["complete"], status["running"], status["activity"]) == (3, 0, "complete")


def test_the_test_set_was_opened_for_the_winner_and_that_is_written_everywhere(
    confirmed: Confirmed, first: dict[str, Any]
) -> None:
    winner, test = winner_of(first), first["test"]
    assert (test["run_id"], test["n"], test["forced"]) == (winner["run_id"], 500, False)
    assert test["accuracy"] == test["correct"] / 500
    assert test["low"] < test["accuracy"] < test["high"]
    [entry] = confirmed.openings()
    assert (entry["run_id"], entry["correct"], entry["n_seeds"]) == (winner["run_id"], test["correct"], 2)
    parent = "run_uuid = (select run_uuid from tags where key = 'kind' and value = 'sweep')"
    tags = dict(confirmed.mlflow(f"select key, value from tags where {parent}"))
    assert (tags["test_opened"], tags["confirmed_sentence"]) == (test["opened_at"], first["sentence"])
    metrics = dict(confirmed.mlflow(f"select key, value from latest_metrics where {parent}"))
    assert (metrics["test_accuracy"], metrics["test_n"]) == (test["accuracy"], 500)
    version = confirmed.version_tags()
    assert (version["run_id"], version["confirmed"]) == (winner["run_id"], "true")
    assert (float(version["confirmed_mean"]), version["confirmed_seeds"]) == (winner["mean"], "1,2")
    assert (float(version["test_accuracy"]), int(version["test_n"])) == (test["accuracy"], 500)
    against = [pair["p_holm"] for pair in first["comparisons"]
               if {pair["first"], pair["second"]} == {winner["label"], "the baseline"}]  # fmt: skip
    assert float(version["confirmed_p_against_baseline"]) == against[0]
    assert version["confirmed_against_baseline"] in ("beats", "within noise")


def test_a_second_confirmation_trains_nothing_opens_nothing_and_says_the_same(
    confirmed: Confirmed, first: dict[str, Any]
) -> None:
    before = confirmed.mlflow("select count(*) from runs")
    again = confirmed.besom("confirm", "toy", *SMALL, "--format", "json")
    assert json.loads(again.stdout) == first
    assert confirmed.mlflow("select count(*) from runs") == before
    assert again.stderr.count("as trained before") == 6


@pytest.mark.service  # for the time that it takes
def test_of_a_winner_that_is_another_one_the_test_set_stays_closed_unless_it_is_forced(
    confirmed: Confirmed, first: dict[str, Any]
) -> None:
    with sqlite3.connect(confirmed.path / "mlruns" / "studies.db") as database:  # as if another had won before
        change = "update study_user_attributes set value_json = replace(value_json, ?, 'another') where key = ?"
        database.execute(change, (first["test"]["run_id"], "test_openings"))
    refused = confirmed.besom("confirm", "toy", *SMALL, "--format", "json", code=2)
    assert {**json.loads(refused.stdout), "test": first["test"]} == first
    assert json.loads(refused.stdout)["test"] is None
    assert "--open-test-again does it all the same" in refused.stderr.splitlines()[-1]
    assert len(confirmed.openings()) == 1
    forced = confirmed.besom("confirm", "toy", *SMALL, "--open-test-again").stdout
    assert first["sentence"] in forced
    assert f"after they had been opened for another trial, for trial {winner_of(first)['number']}" in forced
    assert f"accuracy {first['test']['accuracy']:.4f}, {first['test']['correct']} of 500" in forced
    assert [(one["forced"], one["correct"]) for one in confirmed.openings()] == [
        (False, first["test"]["correct"]), (True, first["test"]["correct"]),
    ]  # fmt: skip


@pytest.mark.service  # for the time that it takes
def test_a_stored_model_that_was_changed_is_found_before_anything_is_opened(
    confirmed: Confirmed, first: dict[str, Any]
) -> None:
    with sqlite3.connect(confirmed.path / "mlruns" / "studies.db") as database:
        database.execute("delete from study_user_attributes where key = 'test_openings'")
    [file] = model_files(confirmed, first["test"]["run_id"])
    change_a_weight(file)
    refused = confirmed.besom("confirm", "toy", *SMALL, "--format", "json", code=1)
    assert json.loads(refused.stdout)["test"] is None
    assert "one or the other was changed since" in refused.stderr.splitlines()[-1]
    assert "test_openings" not in open_study(Store.at(confirmed.path / "mlruns"), "toy").user_attrs


@pytest.mark.service  # for the time that it takes
def test_a_base_config_that_wins_and_was_no_trial_opens_nothing_and_is_no_champion(
    confirmed: Confirmed, first: dict[str, Any]
) -> None:
    with sqlite3.connect(confirmed.path / "mlruns" / "studies.db") as database:
        [(text,)] = database.execute("select value_json from study_user_attributes where key = 'settings'")
        better = {**json.loads(text), "model.dense": 32, "train.batch_size": 4}
        change = "update study_user_attributes set value_json = ? where key = 'settings'"
        database.execute(change, (json.dumps(better),))
    before = confirmed.version_tags()
    done = confirmed.besom("confirm", "toy", *SMALL, "--format", "json")
    found = json.loads(done.stdout)
    assert (found["winner"], found["test"]) == ("the baseline", None)
    assert done.stderr.count("as trained before") == 4
    assert "the store has no model of it" in done.stderr
    assert "registered model 'toy' is left as it is" in done.stderr
    assert confirmed.version_tags() == before
    assert [one["run_id"] for one in confirmed.openings()] == [first["test"]["run_id"]]


def model_files(folder: Folder, run_id: str) -> list[Path]:
    [(location,)] = folder.mlflow(f"select artifact_location from logged_models where source_run_id = '{run_id}'")
    return list(Path(location.removeprefix("file://")).rglob("model.keras"))


def change_a_weight(file: Path) -> None:
    """Add 1 to the first number in a .keras file, which stays whole otherwise."""
    import h5py

    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    buffer = io.BytesIO(members["model.weights.h5"])
    with h5py.File(buffer, "r+") as weights:
        found: list[Any] = []
        weights.visititems(lambda name, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
        found[0][...] = found[0][...] + 1
    members["model.weights.h5"] = buffer.getvalue()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.service  # for the time that it takes
def test_killed_in_the_middle_it_is_completed_and_trains_every_config_and_seed_once(
    toy: Confirmed, clean_environment: dict[str, str]
) -> None:
    toy.go_back("swept")
    arguments = ("confirm", "toy", *SMALL, "--top", "1", "--no-test")
    command = [sys.executable, "-m", "besom", *arguments]
    with subprocess.Popen(command, cwd=toy.path, env=clean_environment, stderr=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL) as process:  # fmt: skip
        until(lambda: {"FINISHED", "RUNNING"} <= {status for status, *_ in toy.trainings()}, seconds=120)
        lanes = lanes_of(process.pid)
        locked = run_here(toy, "confirm", "toy")
        process.send_signal(signal.SIGKILL)
    until(lambda: all_gone(lanes))
    assert locked == 2
    left = toy.trainings()
    done = {key[1:] for key in left if key[0] == "FINISHED"}
    assert any(status == "RUNNING" for status, *_ in left)
    found = toy.besom(*arguments, "--format", "json")
    ended = toy.trainings()
    assert Counter(status for status, *_ in ended)["FINISHED"] == len({key[1:] for key in ended}) == 4
    assert all(count == 1 for (status, *_), count in ended.items() if status == "FINISHED")
    assert {status for status, *_ in ended} == {"FINISHED", "KILLED"}
    assert found.stderr.count("as trained before") == len(done)
    assert json.loads(found.stdout)["test"] is None


def run_here(folder: Folder, *arguments: str) -> int:
    """Run a command in this process, in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.path)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("BESOM_STORE", raising=False)
        return besom.app.cli.run(list(arguments))


WRONG = {
    "no leader": (["toy", "--top", "0"], "--top 0 is too small; expected at least 1"),
    "one seed": (["toy", "--seeds", "1"], "--seeds 1 is too small; expected at least 2"),
    "no lanes": (["toy", "--jobs", "0"], "--jobs 0 is too small; expected at least 1"),
    "an unknown sweep": (["tyo"], "no sweep 'tyo' in "),
    "data that is not there": (["toy", "--data-path", "no.npz"], "data.path='no.npz' is not read by data=mnist_5k"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_input_is_one_line_and_no_run(what: str, confirmed: Confirmed, capfd: pytest.CaptureFixture[str]) -> None:
    arguments, message = WRONG[what]
    runs = confirmed.mlflow("select count(*) from runs")
    code = run_here(confirmed, "confirm", *arguments)
    out, err = capfd.readouterr()
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert confirmed.mlflow("select count(*) from runs") == runs


def test_delete_leaves_no_confirmation(confirmed: Confirmed) -> None:
    confirmed.besom("delete", "toy")
    assert confirmed.mlflow("select count(*) from tags where key = 'kind'") == [(0,)]
    assert confirmed.mlflow("select count(*) from registered_models") == [(0,)]
    assert not list((confirmed.path / "mlruns" / "artifacts").glob("toy*"))


NET = """
from pathlib import Path

import keras

def build(width, input_shape, n_classes):
    if width < 16 and Path("breaks").exists():
        raise ValueError("it breaks")
    inputs = keras.Input(input_shape)
    hidden = keras.layers.Dense(width, activation="relu")(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, keras.layers.Dense(n_classes, activation="softmax")(hidden))
"""


@pytest.fixture(scope="module")
def widths(tmp_path_factory: pytest.TempPathFactory, besom_command: BesomCommand) -> Folder:
    """A sweep over a builder in the project; the base config is its narrowest trial."""
    folder = Folder(tmp_path_factory.mktemp("widths"), besom_command)
    (folder.path / "wide_net.py").write_text(NET)
    (folder.path / "conf" / "model").mkdir(parents=True)
    (folder.path / "conf" / "model" / "wide.yaml").write_text("_target_: wide_net.build\nwidth: 1\n")
    shutil.copy(ROOT / "conf" / "config.yaml", folder.path / "conf" / "config.yaml")
    text = TOY.replace("defaults:", "defaults:\n  - override /model: wide").replace("model: {dense: 1, depth: 1}\n", "")
    text = text.replace("model.dense: choice(8,16,32)", "model.width: choice(1,2,16)")
    (folder.path / "widths.yaml").write_text(text)
    folder.besom("sweep", "widths.yaml")
    return folder


@pytest.fixture
def finder(widths: Folder, monkeypatch: pytest.MonkeyPatch) -> Finder:
    monkeypatch.chdir(widths.path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = Store.at(widths.path / "mlruns")
    return Finder(store, open_study(store, "widths"), Trust(["wide_net"]))


@pytest.mark.parametrize("top", [1, 2, 3, 9])
def test_a_baseline_that_is_a_trial_is_that_trial_and_a_leader_only_once(finder: Finder, top: int) -> None:
    found = finder.find(top)
    ranked = sorted(finder.study.trials, key=lambda trial: (-trial.value, trial.number))
    [baseline] = [trial for trial in ranked if trial.params["model.width"] == 1]
    numbers = [trial.number for trial in ranked[:top]]
    expected = numbers if baseline.number in numbers else [*numbers, baseline.number]
    assert [one.number for one in found] == expected
    assert [one.label for one in found if one.is_baseline] == [f"the baseline (trial {baseline.number})"]
    assert len({one.identity for one in found}) == len(found)
    assert new_seeds(found, 3) == [1, 2, 3]
    assert found[0].with_seed(2) == {**found[0].content, "train": {**found[0].content["train"], "seed": 2}}


def test_a_base_config_that_the_study_does_not_keep_is_told_and_left_out(finder: Finder) -> None:
    import optuna

    copied = optuna.create_study(study_name="widths", direction="maximize")
    copied.add_trials(finder.study.trials)
    lost = Finder(finder.store, copied, finder.trust)
    assert [one.is_baseline for one in lost.find(2)] == [False, False]
    assert lost.notes == ["the sweep's base config cannot be a contender: the study does not keep it"]


def test_what_never_was_complete_and_feasible_leads_nowhere(finder: Finder) -> None:
    import optuna
    from stored import trial

    study = optuna.create_study(study_name="widths", direction="maximize")
    study.add_trials([trial("pruned", reports=[0.99]), trial("failed"), trial("infeasible")])
    study.add_trial(optuna.trial.create_trial(value=0.99, user_attrs={"outcome": "complete"}, constraints={"c": 1.0}))
    with pytest.raises(NotFound, match="sweep 'widths' has no complete trial yet"):
        Finder(finder.store, study, finder.trust).find(1)


@pytest.mark.service  # for the time that it takes
def test_trainings_that_fail_until_nothing_can_be_compared_are_told_and_exit_1(widths: Folder) -> None:
    assert "give --allow wide_net" in widths.besom("confirm", "widths", code=2).stderr
    (widths.path / "breaks").touch()
    done = widths.besom("confirm", "widths", *SMALL, "--top", "3", "--allow", "wide_net", "--format", "json", code=1)
    found = json.loads(done.stdout)
    assert (found["winner"], found["comparisons"], found["test"]) == (None, [], None)
    values = [one["values"] for one in found["contenders"] if one["mean"] is None]
    assert values == [[None, None]] * 2
    assert done.stderr.count("it breaks") == 4
    assert "failed with 2 of 2 seeds" in done.stderr
