"""What waits for MLflow on disk: nothing of it is lost or told twice, whatever is killed; and what an error means."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from besom.errors import ConfigError, StoreBusy
from besom.experiments import open_experiment
from besom.lock import process_identity
from besom.paths import OUTSIDE_SWEEPS, Store, checked_sweep_name
from besom.spool.attempt import RETRIES, bounded, once
from besom.spool.classes import Failure, failure_of, is_outage
from besom.spool.client import RunWriter, creation, made
from besom.spool.deliver import Delivered, deliver, pending
from besom.spool.journal import Journal, n_pending, remove_begun
from besom.spool.operations import (
    KINDS,
    Artifacts,
    Batch,
    Create,
    End,
    Input,
    Model,
    Note,
    Target,
    from_json,
    source_tags,
    to_json,
)
from besom.spool.probe import why_away
from besom.sweep.run_ids import known_ids, note, run_id_of
from besom.tracker import is_provisional
from besom.tracking import MlflowTracker

texts = st.text(max_size=20)
mappings = st.dictionaries(texts, texts, max_size=3)
numbers = st.floats(allow_nan=False)
points = st.lists(st.tuples(texts, numbers, st.integers(0, 2**60), st.integers(-5, 2**40)), max_size=4).map(tuple)
operations = st.one_of(
    st.builds(Create, texts, texts, st.integers(0, 2**60), mappings, texts, st.booleans()),
    st.builds(Batch, mappings, points, mappings),
    st.builds(Input, mappings, mappings),
    st.builds(Artifacts),
    st.builds(Model, texts, texts, texts, points, mappings),
    st.builds(Note, texts),
    st.builds(End, texts, st.integers(0, 2**60), mappings),
)


@pytest.fixture
def store(made_store: Store, tmp_path: Path) -> Store:
    """A store of its own."""
    return Store(Path(shutil.copytree(made_store.root, tmp_path / "mlruns")))


def head_alone(journal: Journal, head: dict[str, Any]) -> None:
    """Leave what a kill between the head and the first operation left before they were written together."""
    journal.folder.mkdir(parents=True)
    (journal.folder / "operations.jsonl").write_text(json.dumps({"format": 1, **head}) + "\n")


class TestJournal:
    @given(st.lists(operations, max_size=6))
    @settings(max_examples=30, deadline=None)
    def test_what_is_appended_is_read_back(self, tmp_path_factory: pytest.TempPathFactory, several: list[Any]) -> None:
        journal = Journal(tmp_path_factory.mktemp("spool") / "run")
        for operation in several:
            journal.append(to_json(operation), head={"run_id": "run"})
        assert [from_json(content) for content in journal.operations()] == several
        assert (journal.exists, journal.head().get("run_id")) == ((True, "run") if several else (False, None))

    def test_every_kind_of_operation_is_among_those_that_are_tried(self) -> None:
        assert set(KINDS.values()) == {Create, Batch, Input, Artifacts, Model, Note, End}

    @given(st.integers(0, 400))
    @settings(max_examples=40, deadline=None)
    def test_a_kill_while_a_line_is_written_loses_that_line_only(
        self, tmp_path_factory: pytest.TempPathFactory, kept: int
    ) -> None:
        journal = Journal(tmp_path_factory.mktemp("spool") / "run")
        for number in range(3):
            journal.append(to_json(Batch(params={"n": str(number)})), head={})
        file = journal.folder / "operations.jsonl"
        content = file.read_bytes()
        head = content.index(b"\n") + 1
        cut = content[: min(head + kept, len(content))]
        file.write_bytes(cut)
        whole = cut.count(b"\n") - 1
        assert len(journal.operations()) == whole
        journal.append(to_json(Note("next")), head={})
        found = [from_json(one) for one in journal.operations()]
        assert found == [*(Batch(params={"n": str(number)}) for number in range(whole)), Note("next")]

    def test_files_are_copied_and_a_half_copied_folder_counts_nowhere(self, tmp_path: Path) -> None:
        journal, files = Journal(tmp_path / "spool" / "run"), tmp_path / "files"
        (files / "deep").mkdir(parents=True)
        (files / "deep" / "a").write_text("1")
        (journal.folder / "files" / ".0").mkdir(parents=True)  # left by a kill
        assert not journal.exists
        for _ in range(2):
            journal.append(to_json(Artifacts()), files, head={})
        shutil.rmtree(files)
        names = [one["files"] for one in journal.operations()]
        assert names == ["0", "1"]
        assert [(journal.files(name) / "deep" / "a").read_text() for name in names] == ["1", "1"]

    def test_a_kill_or_a_full_disk_before_the_first_operation_leaves_no_journal(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal = Journal(tmp_path / "toy" / "run")

        def full(*args: Any) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space left"):
                journal.append(to_json(Note("a")), head={})
        assert (journal.exists, list(journal.folder.iterdir())) == (False, [])
        journal.append(to_json(Note("a")), head={})
        assert [from_json(one) for one in journal.operations()] == [Note("a")]

    def test_what_was_begun_and_came_to_no_journal_goes_with_the_next_start_and_nothing_else(
        self, tmp_path: Path
    ) -> None:
        folder = tmp_path / "toy"
        Journal(folder / "kept").append(to_json(Note("a")), head={})
        for name in ("a/files/.0/model.keras", "b/.operations.jsonl.0123456789ab", ".removed-c/files/0/x"):
            (folder / name).parent.mkdir(parents=True)
            (folder / name).touch()
        (folder / "link").symlink_to(tmp_path)
        remove_begun(folder)
        remove_begun(tmp_path / "none")
        assert sorted(one.name for one in folder.iterdir()) == ["kept", "link"]
        assert Journal(folder / "kept").exists

    def test_half_a_copy_of_files_gives_its_room_back(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*args: Any) -> None:
            raise OSError(28, "No space left on device")

        (tmp_path / "files").mkdir()
        (tmp_path / "files" / "x").touch()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space left"):
                Journal(tmp_path / "run").append(to_json(Note("a")), tmp_path / "files", head={})
        assert list((tmp_path / "run" / "files").iterdir()) == []

    def test_a_head_alone_is_no_journal_and_what_comes_next_has_one_of_its_own(self, store: Store) -> None:
        journal = Journal(store.spool("toy") / "run")
        head_alone(journal, {"run_id": "run", "trial": None})
        assert (journal.exists, n_pending(store, "toy"), pending(store, "toy")) == (False, 0, [])
        writer = RunWriter(store.mlflow_uri, store, store.spool("toy"), "run", 3, is_away=True)
        writer.write(Note("first"))
        assert (journal.exists, journal.head()["trial"], n_pending(store, "toy")) == (True, 3, 1)
        assert [from_json(one) for one in journal.operations()] == [Note("first")]

    @pytest.mark.parametrize(("damaged", "line"), [(0, 1), (1, 2), (2, 3), (3, None)])
    def test_a_damaged_line_is_named_unless_nothing_follows(
        self, tmp_path: Path, damaged: int, line: int | None
    ) -> None:
        journal = Journal(tmp_path / "run")
        for text in "abc":
            journal.append(to_json(Note(text)), head={})
        file = journal.folder / "operations.jsonl"
        lines = file.read_bytes().splitlines(keepends=True)
        lines[damaged] = b"\0" * 7 + b"\n"
        file.write_bytes(b"".join(lines))
        if line is not None:
            with pytest.raises(ValueError, match=rf"^line {line} of .*operations\.jsonl is damaged; put it back"):
                journal.whole_operations()
            return
        assert [from_json(one) for one in journal.whole_operations()] == [Note("a"), Note("b")]
        journal.append(to_json(Note("again")), head={})  # in the place of the damaged one
        assert [from_json(one) for one in journal.whole_operations()] == [Note("a"), Note("b"), Note("again")]

    def test_an_operation_of_a_later_besom_is_told_and_not_passed_over(self) -> None:
        with pytest.raises(ValueError, match="is no operation that this version of besom knows"):
            from_json({"op": "teleport"})
        with pytest.raises(ValueError, match="is no operation that this version of besom knows"):
            from_json({"op": "note", "text": "a", "colour": "b"})

    def test_a_name_in_a_journal_cannot_leave_its_folder(self, tmp_path: Path) -> None:
        assert Journal(tmp_path).files("../../../etc") == tmp_path / "files" / "etc"

    def test_no_sweep_can_be_called_as_the_runs_outside_sweeps(self) -> None:
        with pytest.raises(ConfigError, match="cannot be used"):
            checked_sweep_name(OUTSIDE_SWEEPS)


def mlflow_error(code: str, cause: Exception | None = None) -> Exception:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import ErrorCode

    error = MlflowException("said", error_code=ErrorCode.Value(code))
    error.__cause__ = cause
    return error


def http_error(status: int) -> Exception:
    import requests

    response = requests.Response()
    response.status_code = status
    return requests.HTTPError("said", response=response)


def of_sqlalchemy(name: str) -> Exception:
    import sqlalchemy.exc

    error: Exception = getattr(sqlalchemy.exc, name)("select", {}, Exception("said"))
    return error


class TestWhatAnErrorMeans:
    @pytest.mark.parametrize(
        ("code", "meaning"),
        [
            *((code, Failure.AWAY) for code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED")),
            *((code, Failure.AWAY) for code in ("REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", "ENDPOINT_NOT_FOUND")),
            *((code, Failure.AWAY) for code in ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED")),
            *((code, Failure.REFUSED) for code in ("BAD_REQUEST", "INVALID_PARAMETER_VALUE", "RESOURCE_CONFLICT")),
            ("RESOURCE_DOES_NOT_EXIST", Failure.GONE),
        ],
    )
    def test_of_mlflow(self, code: str, meaning: Failure) -> None:
        assert failure_of(mlflow_error(code)) is meaning

    @pytest.mark.parametrize(
        ("status", "meaning"),
        [
            *((status, "AWAY") for status in (500, 502, 503, 429, 408, 401, 403)),
            *((status, "REFUSED") for status in (400, 404, 413)),
        ],
    )
    def test_of_an_upload(self, status: int, meaning: str) -> None:
        assert failure_of(http_error(status)) is Failure[meaning]

    @pytest.mark.parametrize("name", ["OperationalError", "InterfaceError"])
    def test_a_database_that_has_gone_is_no_bad_request(self, name: str) -> None:
        assert failure_of(mlflow_error("BAD_REQUEST", of_sqlalchemy(name))) is Failure.AWAY
        assert failure_of(of_sqlalchemy(name)) is Failure.AWAY

    @pytest.mark.parametrize("error", [ConnectionRefusedError(), TimeoutError(), OSError(28, "No space left")])
    def test_of_the_system(self, error: Exception) -> None:
        assert failure_of(error) is Failure.AWAY

    @pytest.mark.parametrize("error", [TypeError("x"), KeyError("x"), AssertionError(), ValueError("x")])
    def test_a_mistake_of_besoms_is_no_outage(self, error: Exception) -> None:
        assert failure_of(error) is None

    @pytest.mark.parametrize(
        ("error", "is_of_all"),
        [
            (ConfigError("the experiment is in the trash"), False),
            (FileNotFoundError(2, "No such file", "files/0"), False),
            (PermissionError(13, "Permission denied", "files/0"), False),
            (shutil.Error([("a", "b", "gone")]), False),
            (OSError(28, "No space left on device"), False),
            (StoreBusy("locked"), True),
            (ConnectionResetError(), True),
            (TimeoutError("no answer"), True),
            (http_error(503), True),
            (of_sqlalchemy("OperationalError"), True),
        ],
    )
    def test_trouble_of_one_run_is_no_outage(self, error: Exception, is_of_all: bool) -> None:
        assert failure_of(error) is Failure.AWAY
        assert is_outage(error) is is_of_all

    def test_an_outage_behind_an_error_of_besoms_is_one(self) -> None:
        error = ConfigError("cannot be used")
        error.__cause__ = mlflow_error("INTERNAL_ERROR")
        assert is_outage(error)


class TestBounds:
    def test_a_call_that_hangs_is_left_after_its_time(self) -> None:
        began, end = time.monotonic(), threading.Event()
        with pytest.raises(TimeoutError, match=r"^no answer in 0\.2 seconds$"):
            bounded(end.wait, 0.2)
        assert time.monotonic() - began < 5
        end.set()

    def test_what_a_call_returns_and_raises_is_handed_on(self) -> None:
        assert bounded(lambda: 3, 5) == 3
        with pytest.raises(KeyError, match="gone"):
            bounded(lambda: {}["gone"], 5)

    def test_retries_are_off_for_what_must_not_be_done_twice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(RETRIES, "2")
        with once():
            assert os.environ[RETRIES] == "0"
        assert os.environ[RETRIES] == "2"

    def test_a_call_that_was_left_puts_no_old_value_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(RETRIES, "2")
        first, second = once(), once()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert os.environ[RETRIES] == "0"
        second.__exit__(None, None, None)
        assert os.environ[RETRIES] == "2"

    def test_a_server_that_accepts_and_says_nothing_is_away_within_seconds(self) -> None:
        with socket.socket() as mute:
            mute.bind(("127.0.0.1", 0))
            mute.listen()
            port = mute.getsockname()[1]
            began = time.monotonic()
            assert "timed out" in str(why_away(f"http://127.0.0.1:{port}", 0.5))
            assert why_away(f"postgresql://me@127.0.0.1:{port}/runs", 0.5) is None  # only a call can tell
            assert time.monotonic() - began < 10
        assert "refused" in str(why_away(f"http://127.0.0.1:{port}", 0.5))
        assert "refused" in str(why_away(f"postgresql://me@127.0.0.1:{port}/runs", 0.5))

    def test_a_file_is_away_while_another_program_locks_it(self, store: Store) -> None:
        assert why_away(store.mlflow_uri) is None
        with sqlite3.connect(store.mlflow_db, isolation_level=None) as other:
            other.execute("BEGIN EXCLUSIVE")
            assert "locked" in str(why_away(store.mlflow_uri, 0.2))
            other.execute("ROLLBACK")
        other.close()
        assert "there is no file" in str(why_away("sqlite:////nowhere/m.db"))


def files_in(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text("a: 1\n")
    return folder


def saved_model(folder: Path) -> Path:
    from mlflow.models import Model as Description

    folder.mkdir()
    (folder / "weights").write_bytes(b"w")
    Description(artifact_path="model", run_id="unknown", model_id="m-0", model_uuid="m-0").save(str(folder / "MLmodel"))
    return folder


DATASET = {"name": "toy", "digest": "a" * 36, "source_type": "code", "source": "{}", "schema": "{}"}


def whole_run(writer: RunWriter, folder: Path) -> None:
    """Write all that a trial writes."""
    writer.write(Batch(params={"train.epochs": "2"}))
    writer.write(Input(DATASET, {"n_train": "8"}))
    for step in range(2):
        writer.write(Batch(metrics=[("val_loss", 0.5 - step / 8, 1_000 + step, step)]))
    numbers = [("objective", 0.9, 2_000, 0)]
    writer.write(Model("model", "toy", "a" * 36, numbers, {"weights_sha256": "ab"}), saved_model(folder / "model"))
    writer.write(Artifacts(), files_in(folder / "files"))
    writer.write(End("FINISHED", 5_000, {"state": "COMPLETE"}))


def check_run(store: Store) -> None:
    """MLflow has that run once, wholly, with the times of the trial."""
    from mlflow import MlflowClient

    client = MlflowClient(store.mlflow_uri)
    experiment = client.get_experiment_by_name("toy").experiment_id
    [run] = [one for one in client.search_runs([experiment]) if one.data.tags["kind"] == "trial"]
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("FINISHED", 500, 5_000)
    assert (run.data.params, run.data.tags["state"]) == ({"train.epochs": "2"}, "COMPLETE")
    history = client.get_metric_history(run.info.run_id, "val_loss")
    assert [(one.step, one.value, one.timestamp) for one in history] == [(0, 0.5, 1_000), (1, 0.375, 1_001)]
    assert [one.dataset.name for one in run.inputs.dataset_inputs] == ["toy"]
    [logged] = client.search_logged_models([experiment])
    assert [one.model_id for one in run.outputs.model_outputs] == [logged.model_id]
    assert (str(logged.status), logged.source_run_id) == ("READY", run.info.run_id)
    assert [(one.key, one.value) for one in logged.metrics] == [("objective", 0.9)]
    assert {one.path for one in client.list_artifacts(run.info.run_id)} == {"config.yaml"}
    described = Path(urlsplit(logged.artifact_location).path, "MLmodel").read_text()
    assert f"model_id: {logged.model_id}" in described
    assert f"run_id: {run.info.run_id}" in described


def spool_one(store: Store, folder: Path) -> str:
    """Leave a whole run of the sweep 'toy' in the spool and return its provisional id."""
    create = creation("toy", "toy-0", 500, {**source_tags(), "kind": "trial", "trial": "0"}, is_child=True)
    writer = made(store.mlflow_uri, store, store.spool("toy"), create, 0, is_away=True)
    whole_run(writer, folder)
    return writer.run_id


def of_the_dead(run_id: str) -> dict[str, Any]:
    """Return the head of a journal whose process has died."""
    with subprocess.Popen(["true"]) as gone:
        pass
    return {"run_id": run_id, "trial": None, **process_identity(), "pid": gone.pid}


def known_run(store: Store, key: str) -> str:
    """Return MLflow's id of the run that a provisional one became."""
    from mlflow import MlflowClient

    client = MlflowClient(store.mlflow_uri)
    every = [one.experiment_id for one in client.search_experiments()]
    [run] = client.search_runs(every, f"tags.created_as = '{key}'")
    return str(run.info.run_id)


class TestDelivery:
    def test_a_run_that_waited_is_as_one_that_did_not(self, store: Store, tmp_path: Path) -> None:
        key, noted = spool_one(store, tmp_path), {}
        [waiting] = pending(store, "toy")
        assert (waiting.run_id, waiting.trial, waiting.has_ended, waiting.n_operations) == (key, 0, True, 8)
        assert waiting.bytes > 100
        done = deliver(store, "toy", store.mlflow_uri, noted.update)
        assert (done.delivered, done.left, done.reason, done.run_ids) == (1, 0, None, noted)
        assert set(noted) == {key}
        check_run(store)
        assert not store.spools.exists()
        assert deliver(store, "toy", store.mlflow_uri, noted.update) == Delivered()

    def test_a_delivery_that_is_killed_after_each_operation_tells_each_once(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spool_one(store, tmp_path)
        journal, real = Journal(store.spooled("toy")[0].parent), Journal.note_progress
        for place in range(1, 9):

            def stop(self: Journal, done: int, run_id: str, last: int = place) -> None:
                if done == last:  # it is done, and nobody wrote that down
                    raise KeyboardInterrupt
                real(self, done, run_id)

            with monkeypatch.context() as patch:
                patch.setattr(Journal, "note_progress", stop)
                with pytest.raises(KeyboardInterrupt):
                    deliver(store, "toy", store.mlflow_uri, lambda run_ids: None)
            assert journal.progress()[0] == place - 1
        noted: dict[str, str] = {}
        assert deliver(store, "toy", store.mlflow_uri, noted.update).delivered == 1
        check_run(store)

    def test_a_delivery_survives_kill_9(self, store: Store, tmp_path: Path) -> None:
        spool_one(store, tmp_path)
        code = (  # dies between the operations before the model and the model; who only looks on may look too late
            "import os, sys; from pathlib import Path\n"
            "from besom.paths import Store; from besom.spool.deliver import deliver\n"
            "from besom.spool.journal import Journal\n"
            "note = Journal.note_progress\n"
            "def noted(journal, done, run_id):\n"
            "    note(journal, done, run_id)\n"
            "    if done == 4: os.kill(os.getpid(), 9)\n"
            "Journal.note_progress = noted\n"
            "store = Store(Path(sys.argv[1])); deliver(store, 'toy', store.mlflow_uri, lambda run_ids: None)"
        )
        process = subprocess.run([sys.executable, "-c", code, str(store.root)], check=False, timeout=120)
        assert process.returncode == -9
        assert n_pending(store, "toy") == 1
        assert deliver(store, "toy", store.mlflow_uri, lambda run_ids: None).delivered == 1
        check_run(store)

    def test_a_repetition_of_every_operation_tells_each_once(self, store: Store, tmp_path: Path) -> None:
        spool_one(store, tmp_path)
        kept = tmp_path / "kept"
        shutil.copytree(store.spools, kept)
        ids: list[dict[str, str]] = []
        for _ in range(2):
            assert deliver(store, "toy", store.mlflow_uri, ids.append).delivered == 1
            shutil.copytree(kept, store.spools, dirs_exist_ok=True)
        assert ids[0] == ids[1]
        check_run(store)

    def test_a_run_that_was_made_gets_what_it_lacks(self, store: Store, tmp_path: Path) -> None:
        create = creation("toy", "toy-0", 500, {**source_tags(), "kind": "trial"}, is_child=True)
        folder = store.spool("toy")
        writer = made(store.mlflow_uri, store, folder, create, 0)
        assert not is_provisional(writer.run_id)
        away = RunWriter(store.mlflow_uri, store, folder, writer.run_id, 0, is_away=True)
        whole_run(away, tmp_path)
        late = RunWriter(store.mlflow_uri, store, folder, writer.run_id, 0)
        assert late.is_spooling  # in order, though MLflow would answer
        assert deliver(store, "toy", store.mlflow_uri, lambda run_ids: None).delivered == 1
        check_run(store)

    def test_who_is_still_at_work_is_left_alone_and_who_has_died_is_not(self, store: Store) -> None:
        create = creation("toy", "toy-0", 500, {"kind": "trial"}, is_child=True)
        writer = made(store.mlflow_uri, store, store.spool("toy"), create, 0, is_away=True)
        assert deliver(store, "toy", store.mlflow_uri, lambda run_ids: None) == Delivered(0, 1)
        [file] = store.spooled("toy")
        head, _, rest = file.read_text().partition("\n")
        with subprocess.Popen(["true"]) as gone:
            pass
        dead = json.dumps({**json.loads(head), "pid": gone.pid})
        file.write_text(f"{dead}\n{rest}")
        done = deliver(store, "toy", store.mlflow_uri, lambda run_ids: None)
        assert (done.delivered, set(done.run_ids), done.reason) == (1, {writer.run_id}, None)

    def test_what_mlflow_refuses_is_left_out_with_a_tag_and_keeps_nothing_else_back(
        self, store: Store, tmp_path: Path
    ) -> None:
        from mlflow import MlflowClient

        create = creation("toy", "toy-0", 500, {**source_tags(), "kind": "trial"}, is_child=True)
        writer = made(store.mlflow_uri, store, store.spool("toy"), create, 0, is_away=True)
        writer.write(Batch(params={"a[0]": "no name that MLflow takes"}))
        whole_run(writer, tmp_path)
        done = deliver(store, "toy", store.mlflow_uri, lambda run_ids: None)
        assert (done.delivered, done.left) == (1, 0)
        check_run(store)
        [run_id] = done.run_ids.values()
        assert MlflowClient(store.mlflow_uri).get_run(run_id).data.tags["refused"].startswith("batch: ")

    def test_a_run_that_somebody_deleted_is_let_go(self, store: Store, tmp_path: Path) -> None:
        from mlflow import MlflowClient

        create = creation("toy", "toy-0", 500, {**source_tags(), "kind": "trial"}, is_child=True)
        run_id = made(store.mlflow_uri, store, store.spool("toy"), create, 0).run_id
        MlflowClient(store.mlflow_uri).delete_run(run_id)
        RunWriter(store.mlflow_uri, store, store.spool("toy"), run_id).write(Batch(tags={"a": "b"}))
        assert n_pending(store, "toy") == 0
        away = RunWriter(store.mlflow_uri, store, store.spool("toy"), run_id, is_away=True)
        whole_run(away, tmp_path)
        done = deliver(store, "toy", store.mlflow_uri, lambda run_ids: None)
        assert (done.left, done.reason) == (0, None)
        assert not store.spools.exists()

    def test_while_mlflow_is_away_nothing_is_touched_and_the_reason_is_told(self, store: Store, tmp_path: Path) -> None:
        spool_one(store, tmp_path)
        [file] = store.spooled("toy")
        before = file.read_bytes()
        done = deliver(store, "toy", "http://127.0.0.1:9", lambda run_ids: None)
        assert (done.delivered, done.left, done.is_away) == (0, 1, True)
        assert "refused" in str(done.reason)
        assert (file.read_bytes(), [one.name for one in file.parent.iterdir() if one.suffix]) == (before, [file.name])

    def test_what_a_kill_left_before_the_first_operation_is_cleared_away(self, store: Store) -> None:
        for run_id in ("spooled-1", "0" * 32):
            head_alone(Journal(store.spool("toy") / run_id), of_the_dead(run_id))
        assert deliver(store, "toy", store.mlflow_uri, lambda run_ids: None) == Delivered()
        assert not store.spools.exists()

    def test_the_end_of_a_run_that_nobody_can_make_keeps_nothing_back(self, store: Store) -> None:
        RunWriter(store.mlflow_uri, store, store.spool("toy"), "spooled-1").write(End("KILLED", 1, {}))
        assert deliver(store, "toy", store.mlflow_uri, lambda run_ids: None) == Delivered()
        assert not store.spools.exists()

    def test_what_is_refused_of_a_run_is_no_reason_to_tell_its_rest_to_the_one_before(self, store: Store) -> None:
        from mlflow import MlflowClient

        client, folder = MlflowClient(store.mlflow_uri), store.spool("toy")
        before = Journal(folder / "spooled-1")
        first = creation("toy", "toy-0", 500, {"kind": "train"})("spooled-1")
        before.append(to_json(first), head={**of_the_dead("spooled-1"), "trial": 0})
        after = made(store.mlflow_uri, store, folder, creation("toy", "toy-1", 500, {"kind": "train"}), 1).run_id
        client.log_param(after, "a", "1")
        writer = RunWriter(store.mlflow_uri, store, folder, after, 1, is_away=True)
        for operation in (Batch(params={"a": "2"}), Batch(tags={"who": "after"}), End("FINISHED", 5, {})):
            writer.write(operation)
        done = deliver(store, "toy", store.mlflow_uri, lambda run_ids: None)
        runs = {run_id: client.get_run(run_id) for run_id in (done.run_ids["spooled-1"], after)}
        assert [run.info.status for run in runs.values()] == ["RUNNING", "FINISHED"]
        assert [run.data.tags.get("who") for run in runs.values()] == [None, "after"]

    @pytest.mark.parametrize("trouble", ["trash", "files", "damaged"])
    def test_trouble_of_one_run_keeps_no_other_back(self, store: Store, tmp_path: Path, trouble: str) -> None:
        from mlflow import MlflowClient

        create = creation("toy" if trouble != "trash" else "trashed", "toy-0", 500, {"kind": "train"})
        writer = made(store.mlflow_uri, store, store.spool("toy"), create, -1, is_away=True)  # the first in line
        (tmp_path / "first").mkdir()
        whole_run(writer, tmp_path / "first")
        journal = Journal(store.spool("toy") / writer.run_id)
        file = journal.folder / "operations.jsonl"
        if trouble == "trash":
            client, experiment = open_experiment(store.mlflow_uri, "trashed", store)
            client.delete_experiment(experiment)
        elif trouble == "files":
            shutil.rmtree(journal.files("0"))
        else:
            lines = file.read_bytes().replace(b'"train.epochs"', b'"train.epochs').splitlines(keepends=True)
            dead = json.dumps({**json.loads(lines[0]), **of_the_dead(writer.run_id), "trial": -1})
            file.write_bytes(b"".join([dead.encode() + b"\n", *lines[1:]]))
        spool_one(store, tmp_path)
        done = deliver(store, "toy", store.mlflow_uri, lambda run_ids: None)
        assert (done.delivered, done.left, done.is_away) == (1, 1, False)
        assert journal.exists
        said = {"trash": "is in the trash", "files": "No such file", "damaged": "line 3 of"}[trouble]
        assert said in str(done.reason)
        if trouble == "trash":
            MlflowClient(store.mlflow_uri).restore_experiment(experiment)
            assert deliver(store, "toy", store.mlflow_uri, lambda run_ids: None) == Delivered(
                1, 0, None, False, {writer.run_id: known_run(store, writer.run_id)}
            )

    def test_one_run_alone_is_delivered_while_its_process_lives(self, store: Store) -> None:
        runs = [
            made(store.mlflow_uri, store, store.spool("toy"), creation("toy", "r", 500, {}), is_away=True).run_id
            for _ in range(2)
        ]
        for run_id in runs:
            done = deliver(store, "toy", store.mlflow_uri, lambda run_ids: None, run_id=run_id)
            assert (done.delivered, done.left, set(done.run_ids)) == (1, 0, {run_id})
        assert deliver(store, "toy", store.mlflow_uri, lambda run_ids: None, run_id=runs[0]) == Delivered()

    def test_two_deliveries_do_not_meet(self, store: Store, tmp_path: Path) -> None:
        spool_one(store, tmp_path)
        met: list[Delivered] = []

        def meanwhile(run_ids: Any) -> None:
            met.append(deliver(store, "toy", store.mlflow_uri, lambda run_ids: None))

        deliver(store, "toy", store.mlflow_uri, meanwhile)
        assert met == [Delivered(0, 1, "another process delivers it now")]

    def test_a_disk_that_takes_nothing_ends_the_write_with_its_reason(self, store: Store, tmp_path: Path) -> None:
        if os.geteuid() == 0:
            (tmp_path / "file").write_text("in the way")
            folder = tmp_path / "file"
        else:
            folder = tmp_path / "locked"
            folder.mkdir(0o500)
        writer = RunWriter(store.mlflow_uri, store, folder, "0" * 32, is_away=True)
        with pytest.raises(OSError, match=r"Not a directory|Permission denied|File exists"):
            writer.write(Batch(tags={"a": "b"}))


class Mute(ThreadingHTTPServer):
    """A server that is well, as it says, and answers nothing else."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), MuteHandler)
        self.asked: list[str] = []
        self.ended = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class MuteHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Mute)
        self.server.asked.append(self.path)
        if self.path != "/health":
            self.server.ended.wait(60)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def healthy_and_mute() -> Iterator[Mute]:
    with Mute() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.ended.set()
        server.shutdown()


class TestSweepWithoutItsServer:
    @pytest.fixture
    def dead_address(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        monkeypatch.setenv(RETRIES, "0")
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            yield f"http://127.0.0.1:{probe.getsockname()[1]}"

    @staticmethod
    def config(store: Store, uri: str | None) -> dict[str, Any]:
        return {"train": {"epochs": 2}, "tracking": {"uri": uri}, "paths": {"store": str(store.root)}}

    def test_a_first_start_is_refused_and_a_resume_goes_on(self, store: Store, dead_address: str) -> None:
        with pytest.raises(ConfigError, match=r"^MLflow at http://127\.0\.0\.1:\d+ cannot be used"):
            MlflowTracker().open_sweep("toy", self.config(store, dead_address))
        assert n_pending(store, "toy") == 0
        tracker = MlflowTracker()
        tracker.open_sweep("toy", self.config(store, dead_address), is_resume=True)
        run_id = tracker.start_trial(0, self.config(store, None), {})
        assert is_provisional(run_id)
        assert tracker.running_trials() == [(run_id, 0)]
        [line] = tracker.news()
        assert "does not answer" in line
        assert tracker.news() == []
        for _ in range(2):
            tracker.end_trial(run_id, "COMPLETE", None, False)
        assert (tracker.running_trials(), tracker.undelivered) == ([], 1)
        tracker.close_sweep({"n_complete": 1}, 0, finished=True)
        assert tracker.deliver(lambda run_ids: None) is False

        # the same store, now that there is an MLflow
        noted: dict[str, str] = {}
        again = MlflowTracker()
        again.open_sweep("toy", self.config(store, None), is_resume=True)
        again.deliver(noted.update)
        assert (again.undelivered, again.running_trials()) == (0, [])
        assert set(noted) == {run_id}

    @pytest.mark.parametrize("is_noted", [True, False])
    def test_a_run_of_which_mlflow_was_told_a_part_is_no_stranger(
        self, store: Store, tmp_path: Path, is_noted: bool
    ) -> None:
        from mlflow import MlflowClient

        key = spool_one(store, tmp_path)
        journal, client = Journal(store.spool("toy") / key), MlflowClient(store.mlflow_uri)
        create = from_json(journal.operations()[0])
        run_id = create.apply(Target(client, store.mlflow_uri, store), again=False)
        if is_noted:
            client.delete_tag(run_id, "created_as")  # its progress alone tells
            journal.note_progress(1, run_id)
        tracker = MlflowTracker()
        tracker.open_sweep("toy", self.config(store, None), is_resume=True)
        assert tracker.running_trials() == []
        tracker.deliver(lambda run_ids: None)
        check_run(store)

    def test_a_run_whose_journal_was_never_begun_is_running_where_nobody_works_on_it(self, store: Store) -> None:
        tracker = MlflowTracker()
        tracker.open_sweep("toy", self.config(store, None))
        run_id = tracker.start_trial(0, self.config(store, None), {})
        head_alone(Journal(store.spool("toy") / run_id), of_the_dead(run_id))
        assert tracker.running_trials() == [(run_id, 0)]

    def test_an_end_that_an_earlier_start_left_does_not_end_the_next_one(self, store: Store, dead_address: str) -> None:
        from mlflow import MlflowClient

        client, config = MlflowClient(store.mlflow_uri), self.config(store, None)
        MlflowTracker().open_sweep("toy", config)
        [parent] = client.search_runs([client.get_experiment_by_name("toy").experiment_id])
        writer = RunWriter(store.mlflow_uri, store, store.spool("toy"), parent.info.run_id, is_away=True)
        writer.write(End("KILLED", 1, {}))
        tracker = MlflowTracker()
        tracker.open_sweep("toy", config, is_resume=True)
        tracker.deliver(lambda run_ids: None)
        assert client.get_run(parent.info.run_id).info.status == "RUNNING"
        assert tracker.undelivered == 0

    def test_a_server_that_is_healthy_and_hangs_is_not_asked_before_each_trial(
        self, store: Store, healthy_and_mute: Mute, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        monkeypatch.setattr("besom.tracking.SECONDS", 0.3)
        monkeypatch.setattr("besom.spool.deliver.SECONDS", 0.3)
        tracker = MlflowTracker()
        tracker.open_sweep("toy", self.config(store, healthy_and_mute.address), is_resume=True)
        run_id = tracker.start_trial(0, self.config(store, None), {})
        tracker.end_trial(run_id, "COMPLETE", None, False)
        for parent in (None, "0" * 32):  # it is not known, or it is
            tracker._parent_id = parent
            tracker._outbox.look(at_once=True)
            tracker._outbox.rest(time.monotonic())  # look again at once
            assert tracker.deliver(lambda run_ids: None, 5.0) is False
            assert "no answer in 0.3 seconds" in str(tracker._outbox.why_away)
            asked = len(healthy_and_mute.asked)
            assert tracker.deliver(lambda run_ids: None, 5.0) is False
            assert len(healthy_and_mute.asked) == asked

    def test_the_end_of_the_sweeps_own_run_waits_too(self, store: Store, dead_address: str) -> None:
        from mlflow import MlflowClient

        tracker = MlflowTracker()
        tracker.open_sweep("toy", self.config(store, dead_address), is_resume=True)
        tracker.close_sweep({"n_complete": 3}, 2, finished=True)
        assert deliver(store, "toy", store.mlflow_uri, lambda run_ids: None) == Delivered(1)
        client = MlflowClient(store.mlflow_uri)
        [run] = client.search_runs([client.get_experiment_by_name("toy").experiment_id])
        assert (run.info.status, run.data.metrics, run.data.tags["best_trial"]) == (
            "FINISHED",
            {"n_complete": 3.0},
            "2",
        )

    def test_a_run_keeps_its_real_id_wherever_a_trial_is_read(self, tmp_path: Path) -> None:
        import optuna

        study = optuna.create_study(storage=f"sqlite:///{tmp_path}/s.db", study_name="s")
        trial = study.ask()
        trial.set_user_attr("run_id", "spooled-1")
        study.tell(trial, 1.0)
        [frozen] = study.trials
        assert run_id_of(frozen, known_ids(study)) == "spooled-1"
        note(study, {"spooled-1": "a"})
        note(study, {"spooled-2": "b"})
        assert (run_id_of(frozen, known_ids(study)), known_ids(study)["spooled-2"]) == ("a", "b")
