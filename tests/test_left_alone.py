"""What `besom repair` must not touch and what it must say of it, on stores of which nobody trained a trial."""

from __future__ import annotations

import fcntl
import gc
import json
import math
import os
import resource
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import optuna
import pytest
from broken import draft
from optuna.trial import TrialState
from stored import study_in, trial

import besom.app.cli
from besom.disk import explain
from besom.errors import ConfigError, StoreDamaged
from besom.paths import OUTSIDE_SWEEPS, Store
from besom.results import TrialResult
from besom.storage import load_study, open_storage
from besom.sweep.endings import end_of_left
from besom.upkeep.doctor import examine
from besom.upkeep.findings import Finding
from besom.upkeep.leftovers import refuse_through_link
from besom.upkeep.relocate import relocate
from besom.upkeep.repair import repair

RELU = {"model.activation": "relu"}


@pytest.fixture
def store(made_store: Store, tmp_path: Path) -> Store:
    """A store with the sweep `toy`, of which nothing runs."""
    shutil.copytree(made_store.root, tmp_path / "mlruns")
    store = Store.at(tmp_path / "mlruns")
    relocate(store)
    study_in(store)
    store.job("toy", 0).mkdir(parents=True)
    for part in ("conf", "sweeps"):
        (store.snapshot("toy") / part).mkdir(parents=True)
    return store


def left_running(store: Store, name: str = "toy") -> optuna.Study:
    """Add a trial that is RUNNING, of a parent that is dead."""
    study = optuna.load_study(study_name=name, storage=open_storage(store.studies_uri))
    study.add_trial(trial("running", params=RELU))
    return study


def state_of(store: Store, name: str = "toy") -> str:
    return load_study(store.studies_uri, name).trials[0].state.name


def deeds_of(store: Store) -> list[tuple[str, str]]:
    return [(one.deed, one.where) for one in repair(store)]


def found_in(store: Store) -> list[Finding]:
    """Return what is found beside what is told of every disk."""
    return [one for one in examine(store, environ={}) if one.where not in ("disk", "environment")]


def link_a_sweep(store: Store, away: Path) -> None:
    (store.root / "jobs" / "quick").symlink_to(away)


def link_a_job(store: Store, away: Path) -> None:
    store.job("toy", 0).rmdir()
    store.job("toy", 0).symlink_to(away)


def link_images(store: Store, away: Path) -> None:
    store.images("toy").symlink_to(away / "images")


def link_reports(store: Store, away: Path) -> None:
    store.reports.symlink_to(away)


def link_a_spool(store: Store, away: Path) -> None:
    store.spools.symlink_to(away)


@pytest.mark.parametrize("link", [link_a_sweep, link_a_job, link_images, link_reports, link_a_spool])
def test_nothing_is_removed_through_a_link(link: Callable[[Store, Path], None], store: Store, tmp_path: Path) -> None:
    away = tmp_path / "mine"
    (away / "images").mkdir(parents=True)
    (away / "images" / "holiday.npy").write_text("of mine")
    (away / "toy" / "run").mkdir(parents=True)
    os.utime(away / "toy" / "run", (1, 1))
    draft(away / ".mine.0123456789ab")
    before = {path: path.lstat().st_ctime_ns for path in away.rglob("*")}
    link(store, away)
    deeds = deeds_of(store)
    assert deeds == ([("left", "sweep quick")] if link is link_a_sweep else [])
    assert [one.where for one in found_in(store)] == (["jobs/quick"] if link is link_a_sweep else [])
    assert {path: path.lstat().st_ctime_ns for path in away.rglob("*")} == before


def test_jobs_as_a_whole_may_be_a_link_and_what_is_left_there_is_removed(store: Store, tmp_path: Path) -> None:
    (store.root / "jobs").rename(tmp_path / "larger")
    (store.root / "jobs").symlink_to(tmp_path / "larger")
    store.images("toy").mkdir()
    assert deeds_of(store) == [("done", str(store.images("toy")))]
    assert not store.images("toy").exists()
    assert store.job("toy", 0).is_dir()


def test_a_link_that_is_made_between_the_look_and_the_deed_is_seen(store: Store, tmp_path: Path) -> None:
    (tmp_path / "mine" / "images").mkdir(parents=True)
    link_a_sweep(store, tmp_path / "mine")
    with pytest.raises(ConfigError, match="leads through a link"):
        refuse_through_link(store, store.images("quick"))
    refuse_through_link(store, store.images("toy"))


@pytest.mark.parametrize("name", ["mlflow.db", "studies.db"])
@pytest.mark.parametrize("is_there", [True, False], ids=["elsewhere", "nowhere"])
def test_a_database_that_is_a_link_out_of_the_store_is_not_written(
    name: str, is_there: bool, store: Store, tmp_path: Path
) -> None:
    away = tmp_path / "mine.db"
    file = (store.root / name).rename(away)
    if not is_there:
        away.unlink()
    (store.root / name).symlink_to(away)
    before = away.read_bytes() if is_there else None
    assert deeds_of(store) == [("left", name)]
    assert [(one.level, one.where) for one in found_in(store)] == [("error", name)]
    with pytest.raises(ConfigError, match=f"{name} is a link to {away}, outside the store"):
        relocate(store)
    assert (away.read_bytes() if away.exists() else None) == before
    assert file == away


@contextmanager
def locked(file: Path) -> Iterator[None]:
    handle = os.open(file, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@pytest.mark.parametrize("lock", ["of the study", "of the folder"])
def test_a_sweep_of_another_app_that_lives_is_left_alone_and_a_dead_ones_result_is_told(
    lock: str, store: Store, tmp_path: Path
) -> None:
    study, home = study_in(store, "other"), tmp_path / "multirun"
    study.set_user_attr("home", str(home))
    (home / "0").mkdir(parents=True)
    TrialResult(0, "COMPLETE", [0.5]).write(home / "0", "id of other")
    left_running(store, "other")
    file = store.root / ".studies.db-other.lock" if lock == "of the study" else home / "parent.lock"
    with locked(file):
        assert deeds_of(store) == [("alone", "sweep other")]
        assert [(one.level, one.where) for one in found_in(store)] == [("note", "sweep other")]
    assert state_of(store, "other") == "RUNNING"
    assert deeds_of(store) == [("done", "other/0")]
    assert state_of(store, "other") == "COMPLETE"
    assert found_in(store) == []


@pytest.mark.parametrize("name", ["plain", "a my study"])
def test_a_study_that_besom_did_not_make_is_left_alone(name: str, store: Store) -> None:
    optuna.create_study(storage=open_storage(store.studies_uri), study_name=name).ask()
    left_running(store)
    assert [(one.level, one.where) for one in found_in(store)] == [("warning", "toy/0"), ("note", f"sweep {name}")]
    assert sorted(deeds_of(store)) == [("alone", f"sweep {name}"), ("done", "toy/0")]
    assert state_of(store, name) == "RUNNING"


def test_a_sweep_that_cannot_be_looked_after_keeps_nobody_from_the_others(store: Store) -> None:
    study_in(store, "a my study")
    left_running(store)
    assert next((one.level, one.where) for one in found_in(store)) == ("warning", "toy/0")
    assert sorted(deeds_of(store)) == [("done", "toy/0"), ("left", "sweep a my study")]


def test_a_lock_that_cannot_be_read_keeps_nobody_from_the_others(store: Store) -> None:
    study_in(store, "shut")
    store.lock("shut").parent.mkdir(exist_ok=True)
    store.lock("shut").symlink_to("shut")
    left_running(store)
    left_running(store, "shut")
    assert [(one.level, one.where) for one in found_in(store)] == [("error", "sweep shut"), ("warning", "toy/0")]
    assert sorted(deeds_of(store)) == [("done", "toy/0"), ("left", "sweep shut")]
    assert state_of(store, "shut") == "RUNNING"


def test_who_may_live_on_another_host_is_not_closed_by_the_second_call_either(store: Store) -> None:
    left_running(store)
    store.lock("toy").parent.mkdir(exist_ok=True)
    identity = json.dumps({"host": "moon", "pid": 5, "process_start": 1.0})
    store.lock("toy").write_text(identity)
    for _ in range(2):
        assert deeds_of(store) == [("alone", "sweep toy")]
        assert store.lock("toy").read_text() == identity
    assert state_of(store) == "RUNNING"


@pytest.mark.parametrize("way", ["gone", "empty"])
def test_where_the_disk_with_the_results_is_not_there_no_trial_is_closed(
    way: str, store: Store, tmp_path: Path
) -> None:
    left_running(store)
    TrialResult(0, "COMPLETE", [0.5]).write(store.job("toy", 0), "id of toy")
    shutil.move(store.sweep("toy"), tmp_path / "unmounted")
    if way == "empty":
        store.sweep("toy").mkdir()
    assert deeds_of(store) == [("left", "toy/0")]
    assert "toy/0" in [one.where for one in found_in(store)]
    shutil.rmtree(store.sweep("toy"), ignore_errors=True)
    shutil.move(tmp_path / "unmounted", store.sweep("toy"))
    assert deeds_of(store) == [("done", "toy/0")]
    assert state_of(store) == "COMPLETE"


def as_nobody(check: Callable[[], bool]) -> bool:
    """Return what a check says in a process that owns nothing."""
    child = os.fork()
    if child == 0:  # pragma: no cover
        is_true = False
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            is_true = check()
        finally:
            os._exit(0 if is_true else 1)
    return os.waitpid(child, 0)[1] == 0


def test_a_result_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    TrialResult(0, "COMPLETE", [0.5]).write(tmp_path / "jobs" / "0", "s")
    (tmp_path / "jobs" / "0").chmod(0)

    def is_refused() -> bool:
        for read in (
            lambda: TrialResult.read(tmp_path / "jobs" / "0", 0, "s"),
            lambda: end_of_left(trial("running"), tmp_path / "jobs", "s"),
        ):
            with pytest.raises(StoreDamaged, match=r"result\.json cannot be read: Permission denied; expected"):
                read()
        return True

    assert as_nobody(is_refused)
    (tmp_path / "jobs" / "0").chmod(0o755)
    assert TrialResult.read(tmp_path / "jobs" / "0", 0, "s") is not None


def test_a_pipe_in_the_place_of_a_result_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "result.json")
    assert TrialResult.read(tmp_path, 0) is None


@pytest.mark.parametrize("n_objectives", [1, 2])
@pytest.mark.parametrize("reports", [(), (0.1, 0.2), (0.1, math.nan)], ids=str)
def test_a_pruned_trial_is_told_as_optuna_tells_it(reports: tuple[float, ...], n_objectives: int, store: Store) -> None:
    for name in ("one", "two"):
        study = study_in(store, name, ["maximize"] * n_objectives)
        study.add_trial(trial("running", params=RELU, reports=reports))
        store.job(name, 0).mkdir(parents=True)
    study.tell(0, state=TrialState.PRUNED)
    TrialResult(0, "PRUNED", reason="pruned").write(store.job("one", 0), "id of one")
    assert deeds_of(store) == [("done", "one/0")]
    told, expected = (load_study(store.studies_uri, name).trials[0] for name in ("one", "two"))
    assert (told.state, told.values) == (expected.state, expected.values)
    assert told.values == ([0.2] if reports[-1:] == (0.2,) and n_objectives == 1 else None)


def half_a_journal(store: Store) -> Path:
    return store.spool("toy") / "run"


def half_a_journal_of_no_sweep(store: Store) -> Path:
    return store.spool(OUTSIDE_SWEEPS) / "run"


def half_a_journal_of_a_deleted_sweep(store: Store) -> Path:
    return store.spool("gone") / "run"


def half_of_the_configs(store: Store) -> Path:
    return store.snapshot("toy") / ".main-0.ab1_2cde"


@pytest.mark.parametrize(
    "what",
    [half_a_journal, half_a_journal_of_no_sweep, half_a_journal_of_a_deleted_sweep, half_of_the_configs],
)
def test_what_a_kill_left_is_removed_once_it_is_old(what: Callable[[Store], Path], store: Store) -> None:
    folder = what(store)
    (folder / "files").mkdir(parents=True)
    assert deeds_of(store) == []  # somebody may be making it
    os.utime(folder, (1, 1))
    assert str(folder.relative_to(store.root)) in [one.where for one in found_in(store) if one.level == "warning"]
    assert deeds_of(store) == [("done", str(folder))]
    assert not folder.exists()


def test_a_journal_that_waits_is_no_leftover(store: Store) -> None:
    folder = half_a_journal(store)
    folder.mkdir(parents=True)
    (folder / "operations.jsonl").write_text('{"format": 1, "run_id": "run", "uri": "http://127.0.0.1:9"}\n')
    os.utime(folder, (1, 1))
    assert [one for one in found_in(store) if "rest of what waited" in one.what] == []


def test_a_dry_run_changes_no_byte(store: Store) -> None:
    gc.collect()  # a connection of this process that is closed later would fold the -wal in meanwhile
    before = states_of(store)
    assert besom.app.cli.run(["repair", "--dry-run", "--store", str(store.root)]) == 0
    assert states_of(store) == before


def states_of(store: Store) -> dict[Path, tuple[int, ...]]:
    found = {path: path.lstat() for path in store.root.rglob("*")}
    return {path: (one.st_mode, one.st_ino, one.st_size, one.st_mtime_ns) for path, one in found.items()}


def killed_while_it_wrote(store: Store) -> None:
    """Have a sweep's parent be killed: what it wrote is in the ``-wal`` alone."""
    child = os.fork()
    if child == 0:  # pragma: no cover
        with ExitStack() as never_closed:
            database = sqlite3.connect(store.studies_db)
            never_closed.callback(database.close)
            database.execute("PRAGMA wal_autocheckpoint=0")
            database.execute("update studies set study_name = 'renamed'")
            database.commit()
            os._exit(9)
    os.waitpid(child, 0)
    assert (store.root / "studies.db-wal").stat().st_size


def test_without_room_for_a_copy_nothing_is_called_damaged_and_nothing_is_repaired(store: Store) -> None:
    killed_while_it_wrote(store)
    child = os.fork()
    if child == 0:  # pragma: no cover
        is_right = False
        try:
            tempfile.tempdir = None
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
            is_right = _is_right_without_room(store)
        finally:
            os._exit(0 if is_right else 1)
    assert os.waitpid(child, 0)[1] == 0


def _is_right_without_room(store: Store) -> bool:  # pragma: no cover
    told = [one.what for one in examine(store, environ={}) if one.where in ("mlflow.db", "studies.db")]
    assert all("no room" in one for one in told)
    assert set(deeds_of(store)) == {("left", "mlflow.db"), ("left", "studies.db")}
    assert explain(OSError(28, "No space left on device"), places=[store.root]) is not None
    return True


def test_what_only_the_wal_has_is_read_where_nothing_can_be_copied(store: Store) -> None:
    from besom.upkeep.untouched import Untouched

    killed_while_it_wrote(store)
    look = Untouched(store.root / "no such folder")
    with closing(look.connect(store.studies_db)) as database:
        assert database.execute("select study_name from studies").fetchall() == [("renamed",)]
    assert not look.has_room(store.studies_db)
    (store.root / "no such folder").mkdir()
    assert look.has_room(store.studies_db), "a failure is no answer for ever"
