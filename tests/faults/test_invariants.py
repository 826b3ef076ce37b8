"""The checker of `invariants` notices each broken promise, and finds nothing in a store that is whole."""

from __future__ import annotations

import fcntl
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from invariants import ARTIFACTS, MARK, Books, broken, finished, main

SWEEP = "quick"


def sql(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as db, db:
        for statement in statements:
            db.execute(statement)


def make_study(file: Path) -> None:
    """Optuna's tables, as far as the checker reads them: trial 0 complete, 1 pruned, 2 lost, 3 its second attempt."""
    sql(
        file,
        "create table studies (study_id, study_name)",
        "create table trials (trial_id, number, study_id, state)",
        "create table trial_params (trial_id, param_name, param_value, distribution_json)",
        "create table trial_values (trial_id, objective, value, value_type)",
        "create table trial_user_attributes (trial_id, key, value_json)",
        "create table study_user_attributes (study_id, key, value_json)",
        f"insert into studies values (1, '{SWEEP}')",
    )
    choices = json.dumps({"name": "CategoricalDistribution", "attributes": {"choices": [3, 8, 16]}})
    for number, state, outcome, point in (
        (0, "COMPLETE", "complete", 0),
        (1, "PRUNED", "pruned", 1),
        (2, "FAIL", "lane_died", 2),
        (3, "COMPLETE", "complete", 2),
    ):
        attributes = {"outcome": outcome, "point": point, "run_id": f"run{number}", "weights_sha256": f"sha{number}"}
        sql(
            file,
            f"insert into trials values ({number}, {number}, 1, '{state}')",
            f"insert into trial_params values ({number}, 'model.conv.0.filters', {point}, '{choices}')",
            *(f"insert into trial_user_attributes values ({number}, '{key}', '{json.dumps(value)}')"
              for key, value in attributes.items()),
        )  # fmt: skip
        if state == "COMPLETE":
            sql(file, f"insert into trial_values values ({number}, 0, 0.{number}5, 'FINITE')")


def make_mlflow(file: Path) -> None:
    """MLflow's tables, as far as the checker reads them."""
    sql(
        file,
        "create table experiments (experiment_id, name)",
        "create table runs (run_uuid, name, status, experiment_id, lifecycle_stage, artifact_uri)",
        "create table tags (run_uuid, key, value)",
        "create table params (run_uuid, key, value)",
        "create table metrics (run_uuid, key, step, value, is_nan, timestamp)",
        f"insert into experiments values (1, '{SWEEP}')",
        f"insert into runs values ('parent', '{SWEEP}', 'FINISHED', 1, 'active', null)",
        "insert into tags values ('parent', 'kind', 'sweep')",
    )
    filters = (3, 8, 16, 16)
    for number, status, state in (
        (0, "FINISHED", "COMPLETE"),
        (1, "KILLED", "PRUNED"),
        (2, "KILLED", "FAIL"),
        (3, "FINISHED", "COMPLETE"),
    ):
        tags = {"kind": "trial", "trial": number, "state": state, "weights_sha256": f"sha{number}"}
        params = {"train.epochs": 2, "model.conv.0.filters": filters[number]}
        once = {"objective": f"0.{number}5", "n_params": 9, "best_epoch": 1, "fit_seconds": 0.5}
        per_epoch = [(key, step, 0.5) for key in ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
                     for step in range(2)]  # fmt: skip
        metrics = [*per_epoch, *((key, 0, value) for key, value in once.items())]
        sql(
            file,
            f"insert into runs values ('run{number}', '{SWEEP}-{number}', '{status}', 1, 'active', "
            f"'{(file.parent / 'artifacts' / str(number)).as_uri()}')",
            *(f"insert into tags values ('run{number}', '{key}', '{value}')" for key, value in tags.items()),
            *(f"insert into params values ('run{number}', '{key}', '{value}')" for key, value in params.items()),
            *(f"insert into metrics values ('run{number}', '{key}', {step}, {value}, 0, {step})"
              for key, step, value in metrics),
        )  # fmt: skip
        for artifact in ARTIFACTS:
            (file.parent / "artifacts" / str(number)).mkdir(parents=True, exist_ok=True)
            (file.parent / "artifacts" / str(number) / artifact).touch()


def make_results(jobs: Path) -> None:
    for number, state, values in ((0, "COMPLETE", [0.05]), (1, "PRUNED", []), (3, "COMPLETE", [0.35])):
        content = {"number": number, "state": state, "values": values, "facts": {"weights_sha256": f"sha{number}"}}
        (jobs / str(number)).mkdir(parents=True)
        (jobs / str(number) / "result.json").write_text(json.dumps(content))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with one of each kind of trial, whole."""
    store = tmp_path / "mlruns"
    store.mkdir()
    make_study(store / "studies.db")
    make_mlflow(store / "mlflow.db")
    make_results(store / "jobs" / SWEEP)
    (store / "jobs" / ".locks").mkdir()
    (store / "jobs" / ".locks" / SWEEP).touch()
    return store


def found(store: Path, **arguments: Any) -> str:
    return "\n".join(broken(Books.of_store(store, SWEEP), **arguments))


def study(*statements: str) -> Callable[[Path], None]:
    return lambda store: sql(store / "studies.db", *statements)


def mlflow(*statements: str) -> Callable[[Path], None]:
    return lambda store: sql(store / "mlflow.db", *statements)


def file(name: str, text: str = "{}") -> Callable[[Path], None]:
    def write(store: Path) -> None:
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_text(text)

    return write


RESULT_OF_3 = {"number": 3, "state": "COMPLETE", "values": [0.35], "facts": {"weights_sha256": "sha3"}}
MUTATIONS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a trial that runs": (study("update trials set state='RUNNING' where number=1"), "trial 1 is RUNNING in the study"),
    "no outcome": (
        study("delete from trial_user_attributes where trial_id=0 and key='outcome'"),
        "trial 0 is COMPLETE without an outcome",
    ),
    "a state unlike its outcome": (study("update trials set state='FAIL' where number=0"), "outcome complete"),
    "no value": (study("delete from trial_values where trial_id=0"), "trial 0 is COMPLETE without a value"),
    "a gap": (study("update trials set number=7 where number=3"), "trial 7 stands at place 3"),
    "a point twice": (
        study("""update trial_user_attributes set value_json='0' where trial_id=3 and key='point'"""),
        "point 0 has 2 finished trials",
    ),
    "params twice": (study("update trial_params set param_value=0 where trial_id=3"), "was trained 2 times to its end"),
    "a run of two trials": (
        study("""update trial_user_attributes set value_json='"run0"' where trial_id=3 and key='run_id'"""),
        "run run0 belongs to 2 trials",
    ),
    "no result": (lambda store: (store / "jobs/quick/0/result.json").unlink(), "trial 0 is COMPLETE and has no result"),
    "half a result": (file("jobs/quick/0/result.json", '{"num'), "result.json is no JSON"),
    "another value in the result": (
        file("jobs/quick/3/result.json", json.dumps({**RESULT_OF_3, "values": [0.36]})),
        "trial 3 is COMPLETE (0.35,) in the study and otherwise in",
    ),
    "another hash in the result": (
        file("jobs/quick/3/result.json", json.dumps({**RESULT_OF_3, "facts": {"weights_sha256": "other"}})),
        "trial 3 has other weights_sha256 in the study than in",
    ),
    "a run that runs": (mlflow("update runs set status='RUNNING' where run_uuid='run1'"), "run quick-1 (run1) is RUN"),
    "a stranger's run that runs": (
        mlflow("insert into runs values ('lost', 'quick-9', 'RUNNING', 1, 'active', null)"),
        "run quick-9 (lost) is RUNNING",
    ),
    "a stranger's run that finished": (
        mlflow(
            "insert into runs values ('lost', 'quick-9', 'FINISHED', 1, 'active', null)",
            "insert into tags values ('lost', 'kind', 'trial')",
        ),
        "run quick-9 (lost) is no trial's and FINISHED",
    ),
    "a pruned trial whose run finished": (
        mlflow("update runs set status='FINISHED' where run_uuid='run1'"),
        "trial 1 is PRUNED (pruned) and its run FINISHED, not KILLED",
    ),
    "a lost trial whose run failed": (
        mlflow("update runs set status='FAILED' where run_uuid='run2'"),
        "trial 2 is FAIL (lane_died) and its run FAILED, not KILLED",
    ),
    "another state in a tag": (
        mlflow("update tags set value='RUNNING' where run_uuid='run0' and key='state'"),
        "trial 0 is COMPLETE and its run's tag state RUNNING",
    ),
    "another trial in a tag": (
        mlflow("update tags set value='5' where run_uuid='run0' and key='trial'"),
        "trial 0 has the run of trial 5",
    ),
    "another param": (
        mlflow("update params set value='4' where run_uuid='run0' and key='model.conv.0.filters'"),
        "trial 0 has model.conv.0.filters=3 in the study and '4' in its run",
    ),
    "a run that is gone": (mlflow("delete from runs where run_uuid='run0'"), "trial 0 has a run that is not there"),
    "a trial without a run": (
        study("delete from trial_user_attributes where trial_id=0 and key='run_id'"),
        "trial 0 is COMPLETE and has no run",
    ),
    "a trial given up that had ended": (
        file("jobs/quick/2/result.json", json.dumps({**RESULT_OF_3, "number": 2})),
        "trial 2 was given up (lane_died), and its result.json is whole",
    ),
    "no result of a pruned trial": (
        lambda store: (store / "jobs/quick/1/result.json").unlink(),
        "trial 1 is PRUNED and has no result.json",
    ),
    "no epoch of a pruned trial": (
        mlflow("delete from metrics where run_uuid='run1' and key='val_loss'"),
        "trial 1 is PRUNED and has val_loss of epochs []",
    ),
    "a metric twice": (
        mlflow("insert into metrics values ('run3', 'val_loss', 1, 0.6, 0, 9)"),
        "trial 3 has several values of val_loss in step 1",
    ),
    "no artifact": (
        lambda store: (store / "artifacts/0/config.yaml").unlink(),
        "trial 0 has no artifact config.yaml",
    ),
    "a reason of a complete trial": (
        mlflow("insert into tags values ('run0', 'reason', 'its parent died')"),
        "trial 0 is COMPLETE and its run tells a reason: its parent died",
    ),
    "an epoch short": (
        mlflow("delete from metrics where run_uuid='run0' and key='val_loss' and step=1"),
        "trial 0 has val_loss of epochs [0], not of all 2",
    ),
    "no objective": (
        mlflow("delete from metrics where run_uuid='run0' and key='objective'"),
        "trial 0 has no metric objective",
    ),
    "another objective": (
        mlflow("update metrics set value=0.9 where run_uuid='run0' and key='objective'"),
        "trial 0 is 0.05 in the study and 0.9 in its run",
    ),
    "another hash in a tag": (
        mlflow("update tags set value='x' where run_uuid='run0' and key='weights_sha256'"),
        "trial 0 has other weights_sha256 in its run",
    ),
    "a parent run that was killed": (
        mlflow("update runs set status='KILLED' where run_uuid='parent'"),
        "the sweep's own run is KILLED",
    ),
    "two parent runs": (
        mlflow(
            "insert into runs values ('two', 'quick', 'FINISHED', 1, 'active', null)",
            "insert into tags values ('two', 'kind', 'sweep')",
        ),
        "the sweep has 2 runs of its own",
    ),
    "a trial short": (
        study(
            "update trials set state='FAIL' where number=1",
            """update trial_user_attributes set value_json='"interrupted"' where trial_id=1 and key='outcome'""",
        ),
        "2 trials have ended by themselves, not 3",
    ),
    "a draft": (file("jobs/quick/0/.result.json.0123456789ab"), ".result.json.0123456789ab was left behind"),
    "half a store": (file(".creating/mlflow.db"), ".creating was left behind"),
    "shared images": (file("jobs/quick/images/x.npy"), "images was left behind"),
    "half of shared images": (file("jobs/quick/tmp1a2b3c4d/x.npy"), "tmp1a2b3c4d was left behind"),
    "half a snapshot": (file("jobs/quick/.snapshot.0123456789ab/conf/config.yaml"), "was left behind"),
    "an operation that was not delivered": (file("spool/quick/run0/1.json"), "1.json was left behind"),
}


def test_a_run_that_was_made_later_is_known_by_what_it_became(store: Path) -> None:
    later = """update trial_user_attributes set value_json='"spooled-1"' where trial_id=0 and key='run_id'"""
    sql(store / "studies.db", later)
    assert "trial 0 has a run that is not there, spooled-1" in found(store, n_trials=3)
    sql(store / "studies.db", """insert into study_user_attributes values (1, 'run_ids', '{"spooled-1": "run0"}')""")
    assert found(store, n_trials=3) == ""


def test_what_mlflow_was_not_told_yet_may_come_later_and_nothing_else(store: Path) -> None:
    waiting = store / "spool" / SWEEP / "run3" / "operations.jsonl"
    file(str(waiting.relative_to(store)))(store)
    told_later = mlflow("insert into metrics values ('run3', 'latency_ms', 0, 0.6, 0, 9)")
    before = finished(Books.of_store(store, SWEEP))
    told_later(store)
    assert "changed" not in found(store, before=before)
    shutil.rmtree(waiting.parent)
    before = finished(Books.of_store(store, SWEEP))
    mlflow("insert into metrics values ('run3', 'latency_ms', 1, 0.6, 0, 9)")(store)
    assert "trial 3 had ended and its metrics changed" in found(store, before=before)


def test_a_whole_store_is_found_whole(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = finished(Books.of_store(store, SWEEP))
    assert sorted(before) == [0, 1, 3]
    tmp = store.parent / "tmp"
    for name in ("pymp-1", "tmp1"):
        (tmp / name).mkdir(parents=True)
    assert found(store, before=before, n_trials=3, mark="nobody's", tmp=tmp) == ""
    assert main([str(store), SWEEP]) == 0
    assert capsys.readouterr().out == ""


def test_what_besom_left_in_tmpdir_is_noticed(store: Path) -> None:
    (store.parent / "tmp" / "besom-1a2b3c4d.tmp").mkdir(parents=True)
    assert "besom-1a2b3c4d.tmp was left behind" in found(store, n_trials=3, tmp=store.parent / "tmp")


@pytest.mark.parametrize("name", MUTATIONS)
def test_each_broken_promise_is_noticed(store: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    mutate, said = MUTATIONS[name]
    mutate(store)
    assert said in found(store, n_trials=3)
    if name not in ("a parent run that was killed", "a trial short"):  # of a sweep that has to be done
        assert main([str(store), SWEEP]) == 1
        assert said in capsys.readouterr().out


CHANGES: dict[str, Callable[[Path], None]] = {
    "result": file("jobs/quick/3/result.json", json.dumps(RESULT_OF_3, indent=1)),
    "values": study("update trial_values set value=0.36 where trial_id=3"),
    "params": study("update trial_params set param_value=1 where trial_id=3"),
    "hashes": study("""update trial_user_attributes set value_json='"x"' where trial_id=3 and key='weights_sha256'"""),
    "state": study("update trials set state='PRUNED' where number=3"),
    "metrics": mlflow("update metrics set value=0.51 where run_uuid='run3' and step=1"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_of_what_had_ended_is_noticed(store: Path, what: str) -> None:
    before = finished(Books.of_store(store, SWEEP))
    CHANGES[what](store)
    assert f"trial 3 had ended and its {what} changed" in found(store, before=before)


def test_what_had_ended_and_is_gone_is_noticed(store: Path) -> None:
    before = finished(Books.of_store(store, SWEEP))
    study("delete from trials where number=3")(store)
    assert "trial 3 had ended and is no longer there" in found(store, before=before)


def test_a_result_that_the_study_had_not_heard_of_has_to_be_told_and_not_trained_again(store: Path) -> None:
    study("update trials set state='RUNNING' where number=3")(store)
    before = finished(Books.of_store(store, SWEEP))
    study("update trials set state='FAIL' where number=3")(store)
    assert "trial 3 had ended and its state changed from 'COMPLETE' to 'FAIL'" in found(store, before=before)
    study(
        "update trials set state='FAIL' where number=3",
        """update trial_user_attributes set value_json='"parent_died"' where trial_id=3 and key='outcome'""",
    )(store)
    assert "trial 3 had ended and is no longer there" in found(store, before=before)


def test_a_lock_that_is_held_and_a_process_that_lives_on_are_noticed(store: Path) -> None:
    lock = store / "jobs" / ".locks" / SWEEP
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert f"{lock} is locked" in found(store)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={MARK: "one"}) as process:
        assert f"process {process.pid} lives on" in found(store, mark="one")
        assert found(store, mark="another") == ""
        process.kill()


def test_a_setup_of_lanes_that_was_left_is_noticed(store: Path, tmp_path: Path) -> None:
    (tmp_path / "besom-lanes-x").touch()
    assert "besom-lanes-x was left behind" in found(store, tmp=tmp_path)


def test_a_sweep_that_is_not_there_has_nothing_broken(store: Path) -> None:
    shutil.rmtree(store)
    store.mkdir()
    assert found(store) == ""
