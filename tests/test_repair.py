"""`besom repair` on real sweeps, broken by hand and by `kill -9`: what died is closed, what lives is not touched."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest
from broken import (
    WAYS,
    Break,
    Kept,
    copied_run,
    dead_parent,
    draft,
    images,
    mlflow,
    of_run,
    running_trial,
    running_trial_without_result,
    spooled_elsewhere,
    studies,
)
from conftest import BesomCommand, Folder, all_gone, lanes_of, until
from stored import study_in, trial

from besom.app.store import create_store
from besom.lock import parent_lock
from besom.paths import Store
from besom.results import TrialResult
from besom.storage import load_study
from besom.upkeep import books
from besom.upkeep.doctor import examine
from besom.upkeep.findings import Finding
from besom.upkeep.repair import repair

pytestmark = pytest.mark.service

MENDED = {name: way for name, way in WAYS.items() if way.mends}
NOT_MENDED = {name: way for name, way in WAYS.items() if not way.mends}
SLOW_SWEEP = ("sweep", "quick", "--trials", "4", "train.epochs=2", "data.n_train=300", "data.n_val=100")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, besom_command: BesomCommand) -> Kept:
    """A folder with a finished sweep."""
    return Kept(Folder(tmp_path_factory.mktemp("swept"), besom_command))


@pytest.fixture
def store(kept: Kept, tmp_path: Path) -> Store:
    """A copy of its store, to be broken."""
    return kept.copied(tmp_path)


def found_in(store: Store) -> list[Finding]:
    """Return what is found beside what is told of every disk."""
    return [one for one in examine(store, environ={}) if one.where not in ("disk", "environment")]


def rows_of(store: Store) -> dict[str, list[Any]]:
    """Return all that both databases hold."""
    found = {}
    for file in (store.mlflow_db, store.studies_db):
        with closing(sqlite3.connect(file)) as database:
            found[file.name] = list(database.iterdump())
    return found


@pytest.mark.parametrize("way", MENDED.values(), ids=MENDED.keys())
def test_what_can_be_mended_is_as_a_dry_run_says_and_then_there_is_nothing_to_do(way: Break, store: Store) -> None:
    way.how(store)
    would = list(repair(store, dry_run=True))
    assert {one.deed for one in would} <= {"would"}
    assert found_in(store) != []
    done = list(repair(store))
    assert {one.deed for one in done} <= {"done"}
    assert [(one.where, one.what) for one in done] == [(one.where, one.what) for one in would]
    assert found_in(store) == []
    before = rows_of(store)
    assert list(repair(store)) == []
    assert rows_of(store) == before


LEFT_OVER = {"a run that MLflow lost", "no file of MLflow", "an empty file", "no database", "noise in a database"} | {
    *("half a database", "somebody else's database", "MLflow's of yesterday", "Optuna's of tomorrow"),
}


@pytest.mark.parametrize("way", NOT_MENDED.values(), ids=NOT_MENDED.keys())
def test_what_cannot_be_mended_is_left_as_it_is_and_said_where_nothing_else_says_it(
    way: Break, store: Store, request: pytest.FixtureRequest
) -> None:
    way.how(store)
    bytes_before = {file: file.read_bytes() for file in store.root.glob("*.db")}
    deeds = list(repair(store))
    is_left = request.node.callspec.id in LEFT_OVER
    assert {one.deed for one in deeds} <= ({"left"} if is_left else {"alone"})
    assert bool(deeds) or not is_left
    if is_left and "database" in request.node.callspec.id:
        assert {file: file.read_bytes() for file in store.root.glob("*.db")} == bytes_before


def test_a_trial_is_told_as_a_resume_tells_it(store: Store, tmp_path: Path) -> None:
    before = load_study(store.studies_uri, "quick").trials[1]
    running_trial(store)
    list(repair(store))
    after = load_study(store.studies_uri, "quick").trials[1]
    assert (after.state, after.values, after.params) == (before.state, before.values, before.params)
    assert after.user_attrs == before.user_attrs
    assert after.intermediate_values == before.intermediate_values


def break_in_many_ways(store: Store) -> None:
    running_trial_without_result(store)
    mlflow(store, f"update tags set value = 'RUNNING' where key = 'state' and {of_run(store)}")
    studies(store, "update trials set state = 'RUNNING', datetime_complete = null where number = 0")
    mlflow(store, f"update runs set status = 'RUNNING', end_time = null where {of_run(store, 0)}")
    copied_run(store, "reproduction", "RUNNING")
    dead_parent(store)
    images(store)
    draft(store.reports / ".quick.html.0123456789ab")


def test_killed_after_any_of_its_deeds_the_same_call_finishes(kept: Kept, tmp_path: Path) -> None:
    store = kept.copied(tmp_path / "0")
    break_in_many_ways(store)
    n_deeds = len(list(repair(store, dry_run=True)))
    assert n_deeds >= 7
    for n in (1, 2, n_deeds // 2, n_deeds - 1):
        store = kept.copied(tmp_path / str(n))
        break_in_many_ways(store)
        in_a_child(lambda store=store, n=n: list(islice(repair(store), n)))
        assert {one.deed for one in repair(store)} == {"done"}
        assert found_in(store) == []
        assert list(repair(store)) == []


def test_killed_between_a_trials_attributes_and_its_state_the_same_call_finishes(store: Store) -> None:
    running_trial(store)

    def dies() -> None:
        def die(*arguments: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        storage = books.open_storage(store.studies_uri)
        storage.set_trial_state_values = die  # type: ignore[method-assign]
        books.open_storage = lambda url: storage
        list(repair(store))

    in_a_child(dies)
    assert [(one.where, one.level) for one in found_in(store) if one.level != "note"] == [("quick/1", "warning")]
    assert [one.deed for one in repair(store)] == ["done"]
    assert found_in(store) == []


def in_a_child(call: Callable[[], object]) -> None:
    """Call in a copy of this process, which is killed at the end of it."""
    child = os.fork()
    if child == 0:  # pragma: no cover
        try:
            call()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.mark.parametrize(
    ("facts", "state", "violation"), [({"ms": 9.0}, "COMPLETE", 4.0), ({"ms": 5}, "COMPLETE", 0.0), ({}, "FAIL", None)]
)
def test_a_result_is_held_against_the_constraints_that_the_sweep_was_started_with(
    facts: dict[str, float], state: str, violation: float | None, tmp_path: Path
) -> None:
    store = Store.at(tmp_path / "mlruns")
    create_store(store)
    study = study_in(store)
    study.set_user_attr("settings", {"hydra.sweeper.constraints.0": "ms <= 5", "hydra.sweeper.retries": 2})
    study.add_trial(trial("running", params={"model.activation": "relu"}))
    study.add_trial(trial("running"))
    store.job("toy", 0).mkdir(parents=True)
    TrialResult(0, "COMPLETE", [0.5], facts=facts).write(store.job("toy", 0), "id of toy")
    assert [one.deed for one in repair(store, "toy")] == ["done", "done"]
    told, lost = load_study(store.studies_uri, "toy").trials
    assert (told.state.name, told.constraints.get("ms <= 5")) == (state, violation)
    assert (lost.state.name, lost.user_attrs["outcome"]) == ("FAIL", "parent_died")


def test_of_a_lane_on_another_machine_that_told_no_end_all_is_delivered_and_the_run_ended(store: Store) -> None:
    spooled_elsewhere(store)
    mlflow(store, f"update runs set status = 'RUNNING', end_time = null where {of_run(store)}")
    deeds = [(deed.where, deed.what) for deed in repair(store)]
    assert [where for where, _ in deeds] == ["sweep quick", "quick/1"]
    assert "end its run as COMPLETE" in deeds[1][1]
    with closing(sqlite3.connect(store.mlflow_db)) as database:
        waited = database.execute("select value from latest_metrics where key = 'waited'").fetchall()
    assert waited == [(1.0,)]
    assert found_in(store) == []


def test_a_living_parents_sweep_is_left_alone(store: Store) -> None:
    running_trial_without_result(store)
    images(store)
    before = rows_of(store)
    with parent_lock(store.lock("quick"), "quick"):
        [deed] = repair(store)
    assert (deed.deed, deed.where) == ("alone", "sweep quick")
    assert store.images("quick").is_dir()
    assert rows_of(store) == before


def test_the_command_says_each_deed_and_its_exit_code_whether_something_is_left(
    store: Store, besom_command: BesomCommand
) -> None:
    folder = Folder(store.root.parent, besom_command)
    assert folder.besom("repair").stdout == f"{store.root}: there is nothing to mend\n"
    running_trial_without_result(store)
    assert "would: quick/1: close the trial as FAIL: its parent died" in folder.besom("repair", "--dry-run").stdout
    said = folder.besom("repair", "quick").stdout.splitlines()
    assert said[0] == "done: quick/1: close the trial as FAIL: its parent died"
    assert said[1].startswith("done: quick/1: end its run as FAIL: it has status RUNNING")
    assert folder.json("repair") == {"store": str(store.root), "deeds": []}
    [row] = [row for row in folder.json("runs", "quick", "--all")["trials"] if row["number"] == 1]
    assert row["state"] == "FAIL"
    assert "no sweep 'quirk'" in folder.besom("repair", "quirk", code=2).stderr
    store.studies_db.write_text("words, and more words")
    assert "left: studies.db: " in folder.besom("repair", code=1).stdout
    assert store.studies_db.read_text() == "words, and more words"


def test_a_server_that_is_away_leaves_something_and_the_study_is_mended_all_the_same(
    store: Store, besom_command: BesomCommand
) -> None:
    running_trial(store)
    store.tracking_uri("quick").write_text("http://127.0.0.1:9")
    shown = Folder(store.root.parent, besom_command).besom("repair", code=1).stdout
    assert "done: quick/1: tell the study its result: COMPLETE" in shown
    assert "left: sweep quick: MLflow cannot be reached: http://127.0.0.1:9" in shown


def test_a_killed_sweep_is_found_and_closed_and_goes_on_afterwards(
    tmp_path: Path, besom_command: BesomCommand, clean_environment: dict[str, str]
) -> None:
    folder, store = Folder(tmp_path, besom_command), Store.at(tmp_path / "mlruns")
    command = [sys.executable, "-m", "besom", *SLOW_SWEEP]
    with subprocess.Popen(command, cwd=tmp_path, env=clean_environment, stdout=subprocess.PIPE, text=True) as parent:
        until(lambda: n_results(store) >= 1 and n_trials(store) >= 3, seconds=240)
        children = psutil.Process(parent.pid).children(recursive=True)
        assert lanes_of(parent.pid)
        parent.send_signal(signal.SIGSTOP)  # so that it lives, and has not ended before both were asked
        living = folder.json("doctor")["findings"]
        assert [one["where"] for one in living if one["where"] not in ("disk", "environment")] == ["sweep quick"]
        assert "is left alone" in folder.besom("repair").stdout
        parent.kill()
    until(lambda: all_gone(children), seconds=120)
    found = folder.json("doctor", code=1)["findings"]
    assert {one["mend"].partition(",")[0] for one in found if one["level"] != "note"} <= {
        "besom repair quick",
        "besom repair",
    }
    folder.besom("repair")
    assert [one for one in found_in(store) if one.level != "note"] == []
    assert folder.mlflow("select count(*) from runs where status = 'RUNNING'") == [(0,)]
    assert folder.json("status", "quick")["running"] == 0
    assert "nothing to mend" in folder.besom("repair").stdout
    folder.besom(*SLOW_SWEEP)
    assert [row["state"] for row in folder.json("runs", "quick")["trials"]] == ["COMPLETE"] * 4
    assert "nothing is wrong" in folder.besom("doctor").stdout


def n_results(store: Store) -> int:
    return len(list(store.root.glob("jobs/quick/*/result.json")))


def n_trials(store: Store) -> int:
    with closing(sqlite3.connect(store.studies_db)) as database:
        return int(database.execute("select count(*) from trials").fetchone()[0])
