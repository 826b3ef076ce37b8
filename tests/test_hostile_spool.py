"""What waits for MLflow in a store of others goes nowhere else: no server hears of it, no file outside is written."""

from __future__ import annotations

import http.server
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from besom.compare.catalog import StoredRun
from besom.errors import ConfigError, StoreDamaged
from besom.experiments import mlflow_client, open_experiment
from besom.paths import OUTSIDE_SWEEPS, Store
from besom.retrain.runs import start_run
from besom.spool.deliver import Delivered, deliver, pending
from besom.spool.journal import Journal, n_pending
from besom.spool.operations import Artifacts, Batch, End, Model, to_json

END = End("FINISHED", 1, {"told": "yes"})


@pytest.fixture
def store(made_store: Store, tmp_path: Path) -> Store:
    """A store of its own, which is at home."""
    store = Store(Path(shutil.copytree(made_store.root, tmp_path / "mlruns")))
    say(store, "update experiments set artifact_location = ?", store.artifacts.as_uri() + "/0")
    return store


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder beside the store that is none of its business."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / ".bashrc").write_text("# mine\n")
    return tmp_path / "mine"


def say(store: Store, statement: str, *values: str) -> None:
    with closing(sqlite3.connect(store.mlflow_db)) as database, database:
        database.execute(statement, values)


def a_run(store: Store, experiment: str = "train") -> str:
    client, experiment_id = open_experiment(store.mlflow_uri, experiment, store)
    return str(client.create_run(experiment_id).info.run_id)


def waits(store: Store, run_id: str, *operations: Any, uri: str | None = None, files: Path | None = None) -> Journal:
    """Leave operations, and the end of the run, in the spool of no sweep."""
    journal = Journal(store.spool(OUTSIDE_SWEEPS) / run_id)
    head = {"run_id": run_id, "uri": uri or store.mlflow_uri}
    for one in operations:
        journal.append(to_json(one), files, head=head)
    journal.append(to_json(END), head=head)
    return journal


def delivered(store: Store) -> Delivered:
    return deliver(store, OUTSIDE_SWEEPS, store.mlflow_uri, lambda run_ids: None)


def told(store: Store, run_id: str) -> bool:
    return "told" in mlflow_client(store.mlflow_uri).get_run(run_id).data.tags


def evil_files(folder: Path) -> Path:
    folder.mkdir()
    (folder / ".bashrc").write_text("evil\n")
    return folder


def move_the_run(store: Store, run_id: str, mine: Path) -> None:
    say(store, "update runs set artifact_uri = ? where run_uuid = ?", str(mine), run_id)


def link_in_the_run(store: Store, run_id: str, mine: Path) -> None:
    folder = store.artifacts / "train" / run_id / "artifacts"
    folder.parent.mkdir(parents=True)
    folder.symlink_to(mine)


def percents_in_the_run(store: Store, run_id: str, mine: Path) -> None:
    (store.artifacts / "%2e%2e").mkdir(parents=True)
    move_the_run(store, run_id, Path(f"{store.artifacts}/%2e%2e/%2e%2e/mine"))


@pytest.mark.parametrize("make_hostile", [move_the_run, link_in_the_run, percents_in_the_run])
def test_a_file_that_waits_is_not_written_outside_and_keeps_no_other_run_waiting(
    make_hostile: Callable[[Store, str, Path], None], store: Store, mine: Path, tmp_path: Path
) -> None:
    hostile, other = a_run(store), a_run(store)
    make_hostile(store, hostile, mine)
    waits(store, hostile, Artifacts(), files=evil_files(tmp_path / "evil"))
    waits(store, other, Artifacts(), files=tmp_path / "evil")
    result = delivered(store)
    assert (result.delivered, result.left, result.is_away) == (1, 1, False)
    assert "outside" in str(result.reason)
    assert (mine / ".bashrc").read_text() == "# mine\n"
    assert told(store, other)


def test_a_model_that_waits_is_not_written_outside(store: Store, mine: Path, tmp_path: Path) -> None:
    run_id = a_run(store)
    say(store, "update experiments set artifact_location = ? where name = 'train'", str(mine))
    waits(store, run_id, Model("model", "toy", "a", [], {}), files=evil_files(tmp_path / "evil"))
    assert "outside" in str(delivered(store).reason)
    assert [file.name for file in mine.iterdir()] == [".bashrc"]


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A server's address, and what it was asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_address[1]}", asked
        made.shutdown()


def test_a_server_that_only_a_journal_names_gets_no_request(
    server: tuple[str, list[str]], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "c4nary-token")
    address, asked = server
    other = a_run(store)
    waits(store, "0" * 32, Batch(tags={"a": "b"}), uri=address)
    waits(store, other)
    result = delivered(store)
    assert (result.delivered, result.left, result.is_away) == (1, 1, False)
    assert f"that its runs are at '{address}'" in str(result.reason)
    assert asked == []
    assert told(store, other)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    delivered(store)
    assert "/health" in asked, "who names it means it"


def test_a_database_that_only_a_journal_names_is_not_written(
    store: Store, made_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Store(Path(shutil.copytree(made_store.root, tmp_path / "of mine")))
    run_id = a_run(mine)
    waits(store, run_id, uri=mine.mlflow_uri)
    assert f"MLFLOW_TRACKING_URI={mine.mlflow_uri} besom" in str(delivered(store).reason)
    assert not told(mine, run_id)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mine.mlflow_uri)
    assert delivered(store).delivered == 1
    assert told(mine, run_id)


def link_a_file(store: Store, journal: Journal, mine: Path) -> None:
    (journal.folder / "files" / "0" / "x").symlink_to(mine / ".bashrc")


def link_the_files(store: Store, journal: Journal, mine: Path) -> None:
    shutil.rmtree(journal.folder / "files" / "0")
    (journal.folder / "files" / "0").symlink_to(mine)


def a_pipe_as_file(store: Store, journal: Journal, mine: Path) -> None:
    os.mkfifo(journal.folder / "files" / "0" / "x")


def link_the_journal(store: Store, journal: Journal, mine: Path) -> None:
    journal.folder.rename(mine / "run")
    journal.folder.symlink_to(mine / "run")


def link_the_sweep(store: Store, journal: Journal, mine: Path) -> None:
    journal.folder.parent.rename(mine / "sweep")
    journal.folder.parent.symlink_to(mine / "sweep")


def link_the_spool(store: Store, journal: Journal, mine: Path) -> None:
    store.spools.rename(mine / "spool")
    store.spools.symlink_to(mine / "spool")


LINKS = [link_a_file, link_the_files, a_pipe_as_file, link_the_journal, link_the_sweep, link_the_spool]


@pytest.mark.parametrize("make_hostile", LINKS)
def test_what_is_behind_a_link_in_the_spool_is_neither_sent_nor_removed(
    make_hostile: Callable[[Store, Journal, Path], None], store: Store, mine: Path, tmp_path: Path
) -> None:
    run_id = a_run(store)
    journal = waits(store, run_id, Artifacts(), files=evil_files(tmp_path / "evil"))
    make_hostile(store, journal, mine)
    before = {path: path.lstat().st_mtime_ns for path in mine.rglob("*")}
    result = delivered(store)
    assert (result.delivered, result.left) == (0, 1)
    assert "expected" in str(result.reason)
    assert {path: path.lstat().st_mtime_ns for path in mine.rglob("*")} == before
    assert not (store.artifacts / "train" / run_id).exists()


def test_a_journal_behind_a_link_is_not_removed(store: Store, mine: Path) -> None:
    (mine / "quick" / "sweep").mkdir(parents=True)
    store.spools.symlink_to(mine)
    with pytest.raises(StoreDamaged, match="spool is a link"):
        Journal(store.spool("quick") / "sweep").remove()
    Journal(store.spool("quick") / "gone").remove()
    assert (mine / "quick" / "sweep").is_dir()


def test_a_pipe_in_a_journals_place_is_not_waited_for(store: Store) -> None:
    folder = store.spool(OUTSIDE_SWEEPS) / "run"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "operations.jsonl")
    os.mkfifo(folder / "progress.json")
    assert pending(store) == []
    assert Journal(folder).progress() == (0, None)
    assert (n_pending(store, OUTSIDE_SWEEPS), delivered(store).left) == (0, 0)


def test_a_journals_file_that_is_a_link_is_not_written_through(store: Store, mine: Path) -> None:
    journal = Journal(store.spool("quick") / "run")
    journal.folder.mkdir(parents=True)
    (journal.folder / "operations.jsonl").symlink_to(mine / ".bashrc")
    with pytest.raises(OSError, match="symbolic links"):
        journal.append(to_json(END), head={})
    assert (mine / ".bashrc").read_text() == "# mine\n"


@pytest.mark.parametrize("place", ["rename", "unlink", "rmtree"])
def test_a_kill_while_a_journal_is_removed_leaves_nothing_that_waits_or_stays(
    place: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: Any, **keywords: Any) -> None:
        raise KeyboardInterrupt

    journal = waits(store, a_run(store))
    with monkeypatch.context() as patch:
        if place == "rmtree":  # the second one: the first finds nothing
            patch.setattr(shutil, "rmtree", lambda path, **keywords: stop() if Path(path).exists() else None)
        else:
            patch.setattr(Path, place, stop)
        with pytest.raises(KeyboardInterrupt):
            journal.remove()
    assert n_pending(store, OUTSIDE_SWEEPS) == (1 if place == "rename" else 0)
    assert delivered(store).left == 0
    assert not store.spools.exists()


def test_no_run_is_made_whose_artifacts_would_lie_outside(store: Store, mine: Path) -> None:
    client, experiment_id = open_experiment(store.mlflow_uri, "quick", store)
    original = StoredRun(store.mlflow_uri, "0" * 32, experiment_id, {}, None, {}, client, store)
    config: dict[str, Any] = {"data": {}, "model": {}, "train": {}}
    start_run(original, "x", config, {"kind": "reproduction"})
    say(store, "update experiments set artifact_location = ? where name = 'quick'", str(mine))
    for make in (
        lambda: start_run(original, "x", config, {"kind": "reproduction"}),
        lambda: open_experiment(store.mlflow_uri, "quick", store),
    ):
        with pytest.raises(ConfigError, match=rf"{mine}, which the store names, is .*, outside"):
            make()
    assert len(client.search_runs([experiment_id])) == 1


def test_a_database_of_mine_may_have_its_artifacts_anywhere(store: Store, made_store: Store, tmp_path: Path) -> None:
    other = Store(Path(shutil.copytree(made_store.root, tmp_path / "other")))
    say(
        other,
        "insert into experiments select 7, 'mine', '/anywhere', lifecycle_stage, creation_time, "
        "last_update_time, workspace from experiments where experiment_id = 0",
    )
    assert open_experiment(other.mlflow_uri, "mine", store)[1] == "7"
