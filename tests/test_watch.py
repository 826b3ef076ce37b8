"""`besom status`, once and with --watch: a sweep seen from a second terminal, which only reads."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from conftest import BesomCommand, until
from optuna.trial import TrialState
from rich.console import Console
from stored import store_in, study_in, trial

import besom.app.cli
from besom.app import watch as watching
from besom.app.watch import Picture
from besom.compare.watched import Watched
from besom.lock import holder_of, parent_lock
from besom.paths import Store
from besom.storage import delete_study


class Sweep:
    """A sweep `toy` of four trials in a store, whose parent is this process as long as it holds the lock."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.study = study_in(store, total=4)
        self._lock = ExitStack()

    def begin(self) -> None:
        self._lock.enter_context(parent_lock(self.store.lock("toy"), "toy"))

    def end(self) -> None:
        self._lock.close()

    def start(self, **given: Any) -> int:
        self.study.add_trial(trial("running", [], {"model.activation": "swish"}, **given))
        return len(self.study.trials) - 1

    def report(self, number: int, step: int, value: float) -> None:
        self.study._storage.set_trial_intermediate_value(self._id_of(number), step, value)

    def finish(self, number: int, value: float) -> None:
        self.study._storage.set_trial_user_attr(self._id_of(number), "outcome", "complete")
        self.study._storage.set_trial_state_values(self._id_of(number), TrialState.COMPLETE, [value])

    def _id_of(self, number: int) -> int:
        return self.study.trials[number]._trial_id


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Sweep]:
    made = Sweep(store_in(tmp_path))
    yield made
    made.end()


def files(store: Store) -> dict[str, bytes]:
    """Return what is in a store, but for what SQLite keeps beside a database while it is open."""
    paths = [path for path in store.root.rglob("*") if path.is_file() and path.suffix not in (".db-wal", ".db-shm")]
    return {str(path.relative_to(store.root)): path.read_bytes() for path in paths}


def test_a_holder_is_named_as_long_as_it_lives(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "toy"
    assert holder_of(path) is None
    assert not path.parent.exists()
    with parent_lock(path, "toy"):
        found = holder_of(path)
        assert found is not None
        assert found["pid"] == os.getpid()
    assert holder_of(path) is None


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "toy"
    code = (
        "import os, pathlib, sys; from besom.lock import parent_lock\n"
        "with parent_lock(pathlib.Path(sys.argv[1]), 'toy'): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False, timeout=60)
    assert "pid" in path.read_text()
    assert holder_of(path) is None


def test_a_parent_may_start_while_somebody_looks(tmp_path: Path) -> None:
    path = tmp_path / "toy"
    path.touch()
    looking = os.open(path, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    timer = threading.Timer(0.04, os.close, [looking])
    timer.start()
    with parent_lock(path, "toy"):
        assert holder_of(path) is not None
    timer.join()


def test_a_running_sweep_has_what_runs_how_long_and_how_long_yet(sweep: Sweep) -> None:
    sweep.study.add_trial(trial("complete", [0.5], seconds=1000, ago=86_400))  # of a start of yesterday
    sweep.study.add_trial(trial("complete", [0.6], seconds=0.5))  # of this one
    sweep.begin()
    number = sweep.start(reports=[0.1, 0.2])
    status = Watched(sweep.store, "toy").look().to_json()
    assert (status["activity"], status["complete"], status["running"]) == ("running", 2, 1)
    (running,) = status["running_trials"]
    assert (running["number"], running["epoch"], running["value"]) == (number, 2, 0.2)
    assert status["best"]["number"] == 1
    assert 0 < status["remaining_seconds"] < 10
    assert status["elapsed_seconds"] == pytest.approx(1000.5, abs=5)


def test_a_stopped_sweep_runs_nothing_and_knows_no_time_left(sweep: Sweep) -> None:
    sweep.study.add_trial(trial("complete", [0.5], seconds=10, ago=50))
    sweep.study.add_trial(trial("parent_died", [], seconds=5000, ago=40))
    sweep.start(seconds=1000, reports=[0.1])  # nobody has closed it yet
    status = Watched(sweep.store, "toy").look().to_json()
    assert (status["activity"], status["running"], status["running_trials"]) == ("stopped", 1, [])
    assert status["remaining_seconds"] is None
    assert status["elapsed_seconds"] == 10.0


def test_a_sweep_is_complete_at_its_total_whoever_holds_it(sweep: Sweep) -> None:
    for ago in (0, 5, 10, 100):
        sweep.study.add_trial(trial("complete", [0.5], seconds=8, ago=ago))
    status = Watched(sweep.store, "toy").look().to_json()
    assert (status["activity"], status["remaining_seconds"]) == ("complete", 0.0)
    assert status["elapsed_seconds"] == pytest.approx(18 + 8, abs=1)
    sweep.begin()
    assert Watched(sweep.store, "toy").look().activity == "complete"


def test_status_is_shown_and_written_as_csv(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    sweep.begin()
    sweep.start(reports=[0.25])
    assert besom.app.cli.run(["status", "toy", "--store", str(sweep.store.root)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][:2] == ["name", "n_trials"]
    assert "running" in lines[1]
    assert lines[3:] == [
        ["running", "epoch", "value", "time", "point"],
        ["0", "1", "0.25", lines[4][3], "activation=swish"],
    ]
    assert besom.app.cli.run(["status", "toy", "--store", str(sweep.store.root), "--format", "csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["activity"], row["running"], row["best"]) == ("running", "1", "")


def test_status_makes_nothing_and_writes_nothing(sweep: Sweep, tmp_path: Path, besom_command: BesomCommand) -> None:
    number = sweep.start()
    sweep.finish(number, 0.5)
    sweep.study._storage.remove_session()
    sweep.study._storage._backend.engine.dispose()
    before = files(sweep.store)
    for args in ([], ["--watch"], ["--format", "json"]):
        done = besom_command("status", "toy", *args, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert files(sweep.store) == before
    (tmp_path / "empty").mkdir()
    for name in ("toy", "none"):
        refused = besom_command("status", name, "--watch", cwd=tmp_path / "empty")
        assert refused.returncode == 2
    assert not list((tmp_path / "empty").iterdir())


class Story:
    """Stands in for the ``time`` of a watch: at each pause the next thing happens; at the end Ctrl-C is pressed."""

    def __init__(self, *chapters: Any) -> None:
        self._chapters = list(chapters)

    def sleep(self, seconds: float) -> None:
        if not self._chapters:
            raise KeyboardInterrupt
        self._chapters.pop(0)()


def watched(sweep: Sweep, monkeypatch: pytest.MonkeyPatch, *chapters: Any, form: str = "table") -> int:
    monkeypatch.setattr(watching, "time", Story(*chapters))
    return besom.app.cli.run(["status", "toy", "--store", str(sweep.store.root), "--watch", "1", "--format", form])


def test_a_watch_has_a_line_for_each_change_and_ends_with_the_sweep(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for value in (0.5, 0.6, 0.7):
        sweep.study.add_trial(trial("complete", [value]))
    sweep.begin()
    chapters = (
        sweep.start,
        lambda: None,
        lambda: sweep.report(3, 0, 0.25),
        lambda: sweep.report(3, 1, 0.5),
        lambda: sweep.finish(3, 0.9),
    )
    assert watched(sweep, monkeypatch, *chapters) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" elapsed")[0].rsplit("; ", 1)[0] for line in lines] == [
        "toy running: 3/4 (3 complete, 0 pruned, 0 failed); best 0.7000, trial 2",
        "toy running: 3/4 (3 complete, 0 pruned, 0 failed); trial 3; best 0.7000, trial 2",
        "toy running: 3/4 (3 complete, 0 pruned, 0 failed); trial 3 epoch 1 0.2500; best 0.7000, trial 2",
        "toy running: 3/4 (3 complete, 0 pruned, 0 failed); trial 3 epoch 2 0.5000; best 0.7000, trial 2",
        "toy complete: 4/4 (4 complete, 0 pruned, 0 failed); best 0.9000, trial 3",
    ]


def test_a_watch_ends_when_nobody_runs_the_sweep_any_more(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep.begin()
    assert watched(sweep, monkeypatch, sweep.start, sweep.end) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("toy stopped: 0/4")


def test_ctrl_c_ends_a_watch_with_130(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep.begin()
    assert watched(sweep, monkeypatch) == 130


def test_a_watch_in_json_is_one_object_a_line(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep.begin()
    assert watched(sweep, monkeypatch, sweep.start, sweep.end, form="json") == 0
    looks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [look["activity"] for look in looks] == ["running", "running", "stopped"]


def test_a_watched_sweep_that_is_deleted_is_not_found(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep.begin()
    assert watched(sweep, monkeypatch, lambda: delete_study(sweep.store.studies_uri, "toy")) == 2
    assert "no sweep 'toy'" in capsys.readouterr().err


def test_a_watch_waits_for_a_sweep_that_is_being_started(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    delete_study(sweep.store.studies_uri, "toy")
    sweep.begin()
    assert watched(sweep, monkeypatch, lambda: None, lambda: study_in(sweep.store, total=4), sweep.end) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["toy running", "toy stopped"]


def test_a_sweep_that_is_started_over_is_watched_from_its_start(sweep: Sweep) -> None:
    sweep.study.add_trial(trial("complete", [0.5]))
    sweep.begin()
    seen = Watched(sweep.store, "toy")
    assert seen.look().tally.counts.complete == 1
    delete_study(sweep.store.studies_uri, "toy")
    study_in(sweep.store, total=2).set_user_attr("id", "another")
    look = seen.look()
    assert (look.tally.counts.counted, look.standing.total, look.activity) == (0, 2, "running")


def test_in_a_terminal_the_picture_is_redrawn(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep.begin()
    sweep.start(reports=[0.25])
    stream = io.StringIO()
    look = Watched(sweep.store, "toy").look()
    with Picture(Console(file=stream, force_terminal=True, color_system=None, width=80, height=24)) as view:
        view.show(look)
    assert "sweep 'toy' running" in stream.getvalue()
    assert "0.2500" in stream.getvalue()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--watch", "toy"], "'toy' is no number of seconds from 0.1; the sweep's NAME goes before it"),
        (["toy", "--watch", "0"], "'0' is no number of seconds from 0.1"),
        (["toy", "--watch", "--format", "csv"], "--watch has no --format csv"),
        (["tay"], "did you mean 'toy'?"),
    ],
)
def test_a_watch_that_cannot_be_is_one_line_and_exit_2(
    args: list[str], message: str, sweep: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    assert besom.app.cli.run(["status", *args, "--store", str(sweep.store.root)]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert message in err


def test_a_watch_in_another_process_follows_the_sweep_to_its_end(
    sweep: Sweep, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    sweep.begin()
    number = sweep.start()
    command = [sys.executable, "-m", "besom", "status", "toy", "--watch", "0.2"]
    with (tmp_path / "lines").open("w") as lines:
        process = subprocess.Popen(command, cwd=tmp_path, env=clean_environment, stdout=lines)
        try:
            until(lambda: "trial 0" in (tmp_path / "lines").read_text())
            sweep.report(number, 0, 0.25)
            until(lambda: "trial 0 epoch 1 0.2500" in (tmp_path / "lines").read_text())
            sweep.finish(number, 0.5)
            sweep.end()
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
    assert (tmp_path / "lines").read_text().splitlines()[-1].startswith("toy stopped: 1/4 (1 complete")


def test_looking_again_reads_little(sweep: Sweep) -> None:
    for _ in range(50):
        sweep.study.add_trial(trial("complete", [0.5], {"model.activation": "swish"}))
    sweep.begin()
    seen = Watched(sweep.store, "toy")
    seen.look()
    start = time.process_time()
    for _ in range(10):
        seen.look()
    assert (time.process_time() - start) / 10 < 0.1
