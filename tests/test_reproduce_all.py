"""Every trial of a real sweep once more: complete, pruned and failed ones end as they did, to the same bits."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import psutil
import pytest
from conftest import BesomCommand, Folder, all_gone, lanes_of, until

pytestmark = pytest.mark.service  # for the time that it takes; the best trial of a sweep is reproduced in test_cli.py

ENDINGS = """# @package _global_
# Which trials end badly?
defaults:
  - override /hydra/sweeper/sampler: grid
  - override /hydra/sweeper/pruner: threshold

data: {n_train: 1000}
train: {epochs: 3}

hydra:
  mode: MULTIRUN
  sweeper:
    direction: maximize
    n_trials: null
    pruner: {lower: 0.3, n_warmup_steps: 1}
    constraints: ["n_params <= 300000"]
    params:
      train.learning_rate: choice(0.001,0.00000001,1.0e+30)
      model.dense: choice(84,200)
"""


@pytest.fixture(scope="module")
def endings(tmp_path_factory: pytest.TempPathFactory, besom_command: BesomCommand) -> Folder:
    """A finished sweep with a complete, a pruned and a failed trial, and three that were never trained."""
    folder = Folder(tmp_path_factory.mktemp("endings"), besom_command)
    (folder.path / "endings.yaml").write_text(ENDINGS)
    folder.besom("sweep", "endings.yaml")
    return folder


def test_every_trial_ends_as_it_did_to_the_same_bits(endings: Folder) -> None:
    rows = {row["number"]: row for row in endings.json("runs", "endings")["trials"]}
    trained = {number: row["state"] for number, row in rows.items() if row["model.dense"] == 84}
    assert sorted(trained.values()) == ["COMPLETE", "FAIL", "PRUNED"]
    done = endings.besom("reproduce", "endings", "--all", "--jobs", "2", "--format", "json")
    found = json.loads(done.stdout)
    assert (found["name"], found["verdict"]) == ("endings", "bit-identical")
    assert {one["trial"]: one["state"] for one in found["reproductions"]} == trained
    assert {one["trial"]: one["original_run_id"] for one in found["reproductions"]} == {
        number: rows[number]["run_id"] for number in trained
    }
    assert [one["trial"] for one in found["skipped"]] == sorted(set(rows) - set(trained))
    assert all("n_params <= 300000 broken" in one["reason"] for one in found["skipped"])
    assert [line.split()[1] for line in done.stderr.splitlines()] == ["1/3", "2/3", "3/3"]
    by_state = {one["state"]: one for one in found["reproductions"]}
    assert by_state["FAIL"]["reason"].startswith("NonFinite: ")
    assert by_state["FAIL"]["compared"] == ["state", "reason", "history"]
    assert by_state["PRUNED"]["compared"] == ["state", "history"]
    status = "select status from runs where run_uuid = '{}'"
    assert {state: endings.mlflow(status.format(one["run_id"]))[0][0] for state, one in by_state.items()} == {
        **{"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
    }
    linked = "select key, value from tags where run_uuid = '{}'"
    for one in found["reproductions"]:
        tags = dict(endings.mlflow(linked.format(one["run_id"])))
        assert tags["reproduces"] == one["original_run_id"]
        assert (tags["kind"], tags["verdict"]) == ("reproduction", "bit-identical")
    assert len(endings.json("runs", "endings")["trials"]) == 6, "reproductions are no trials"


def test_a_trial_that_was_never_trained_says_why(endings: Folder) -> None:
    never = [row["number"] for row in endings.json("runs", "endings")["trials"] if row["model.dense"] == 200]
    refused = endings.besom("reproduce", f"endings/{never[0]}", code=2)
    assert "was never trained: n_params <= 300000 broken" in refused.stderr


WRONG = {
    "an unknown sweep": (["ending", "--all"], "no sweep 'ending'"),
    "no lanes": (["endings", "--all", "--jobs", "0"], "--jobs 0 is too small; expected at least 1"),
    "no threads": (["endings", "--threads", "0"], "--threads 0 is too small"),
    "data that is not there": (["endings", "--data-path", "no.npz"], "data.path='no.npz' is not read by data=mnist_5k"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_input_is_one_line_and_no_run(endings: Folder, what: str) -> None:
    arguments, message = WRONG[what]
    runs = endings.mlflow("select count(*) from runs")
    refused = endings.besom("reproduce", *arguments, code=2)
    assert message in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert endings.mlflow("select count(*) from runs") == runs


RUNNING = "select count(*) from runs where status = 'RUNNING'"


def stopped(folder: Folder, env: dict[str, str], number: int) -> int:
    """Reproduce, send a signal in the middle, wait for the lanes to be gone and return how it ended."""
    command = [sys.executable, "-m", "besom", "reproduce", "endings", "--all", "--jobs", "1"]
    with subprocess.Popen(command, cwd=folder.path, env=env, stderr=subprocess.DEVNULL) as process:
        until(lambda: folder.mlflow(RUNNING) == [(1,)])
        until(lambda: bool(lanes_of(process.pid)))
        time.sleep(0.5)
        lanes: list[psutil.Process] = lanes_of(process.pid)
        process.send_signal(number)
        code = process.wait(30)
    until(lambda: all_gone(lanes))
    return code


def test_a_ctrl_c_leaves_no_run_running_and_no_lane(endings: Folder, clean_environment: dict[str, str]) -> None:
    assert stopped(endings, clean_environment, signal.SIGINT) == 130
    assert endings.mlflow(RUNNING) == [(0,)]


def test_what_a_kill_left_running_is_closed_by_the_next_one(endings: Folder, clean_environment: dict[str, str]) -> None:
    assert stopped(endings, clean_environment, signal.SIGKILL) == -signal.SIGKILL
    assert endings.mlflow(RUNNING) == [(1,)]
    found = endings.json("reproduce", "endings", "--all", "--from-model")
    assert [one["verdict"] for one in found["reproductions"]] == ["bit-identical"]
    assert [one["reason"] for one in found["skipped"] if "no model" in one["reason"]] == [
        *("it is PRUNED and has no model", "it is FAIL and has no model"),
    ]
    assert endings.mlflow(RUNNING) == [(0,)]


def test_a_trial_whose_run_is_gone_is_left_out_and_the_others_are_not(endings: Folder) -> None:
    rows = {row["state"]: row for row in endings.json("runs", "endings")["trials"] if row["model.dense"] == 84}
    gone = endings.path / "mlruns" / "artifacts" / "endings" / rows["PRUNED"]["run_id"] / "artifacts" / "config.yaml"
    text = gone.read_text()
    gone.unlink()
    try:
        found = endings.json("reproduce", "endings", "--all")
    finally:
        gone.write_text(text)
    assert {one["state"] for one in found["reproductions"]} == {"COMPLETE", "FAIL"}
    assert any("has no artifact config.yaml" in one["reason"] for one in found["skipped"])
