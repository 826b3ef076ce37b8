"""Processes that stop instead of dying, clocks that jump, memory that runs out, and two parents at once."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from conftest import until
from harness import Bench
from invariants import broken, changed, finished, read_runs, read_trials, result_file
from test_faults_signals import trains

from besom import lock

pytestmark = [pytest.mark.service, pytest.mark.timeout(1800)]


@pytest.fixture
def app(tmp_path: Path, clean_environment: Mapping[str, str]) -> Iterator[Bench]:
    bench = Bench.of_app(tmp_path, clean_environment)
    yield bench
    for process in bench.left():
        process.send_signal(signal.SIGCONT)
    bench.end_all()


def test_of_two_parents_that_start_at_once_one_wins_and_the_other_touches_nothing(app: Bench) -> None:
    for _ in range(6):
        both = [app.start(more=2, seconds=1.5) for _ in range(2)]
        codes = [start.ended() for start in both]
        assert sorted(codes) == [0, 2], [start.output for start in both]
        loser = both[codes.index(2)]
        assert "is being run by" in loser.output
        app.settle("two parents")
    assert not broken(app.books, n_trials=12, mark=app.mark, tmp=app.tmp)


def test_a_lane_that_slept_through_its_parents_death_changes_nothing_when_it_wakes(app: Bench) -> None:
    start = app.start("hydra.launcher.n_lanes=1", more=1, seconds=3)
    trains(app, start)
    [lane] = app.processes(start)["lanes"]
    lane.suspend()
    start.process.kill()
    start.ended()
    (slept,) = [trial.number for trial in read_trials(app.books) if trial.state == "RUNNING"]
    again = app.start("hydra.launcher.n_lanes=1", more=2, seconds=0)
    assert again.ended() == 0, again.output
    assert lane.pid in {one.pid for one in app.left()}  # nobody knows of it any more
    before, states = finished(app.books), [(trial.number, trial.state) for trial in read_trials(app.books)]
    assert dict(states)[slept] == "FAIL"
    lane.resume()
    app.wait_for_nobody("the lane that woke")
    assert not list(changed(app.books, before))
    assert [(trial.number, trial.state) for trial in read_trials(app.books)] == states
    assert not broken(app.books, n_trials=2, mark=app.mark, tmp=app.tmp)
    assert not result_file(app.books, read_trials(app.books)[slept]).exists()  # its report found nobody, so it ended


def test_a_lane_of_besoms_own_app_that_slept_through_it_changes_no_run_either(besoms: Bench) -> None:
    start = besoms.start("hydra.launcher.n_lanes=1", faults="reported:1:self.STOP", more=1)
    besoms.until(lambda: bool(start.landed), start)
    [pid] = start.landed[0]["hit"]
    start.process.kill()
    start.ended()
    again = besoms.start("hydra.launcher.n_lanes=1", more=2)
    assert again.ended() == 0, again.output
    assert pid in {one.pid for one in besoms.left()}
    before, runs = finished(besoms.books), read_runs(besoms.books)
    assert sorted(before) == [1, 2]
    psutil.Process(pid).resume()
    besoms.wait_for_nobody("the lane that woke")
    assert not list(changed(besoms.books, before))
    assert read_runs(besoms.books) == runs
    assert not broken(besoms.books, n_trials=2, mark=besoms.mark, tmp=besoms.tmp)


def test_a_damaged_result_that_the_study_had_not_heard_of_counts_as_none(app: Bench) -> None:
    app.struck("result_written:1:both", "hydra.launcher.n_lanes=1", more=2)
    [file] = app.books.jobs.glob("*/result.json")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    app.kept = {}
    app.whole(more=2)
    first, *others = read_trials(app.books)
    assert (first.outcome, file.parent.name) == ("parent_died", "0")
    again = [trial for trial in others if trial.attributes["point"] == first.attributes["point"]]
    assert [trial.outcome for trial in again] == ["complete"]


def test_a_lane_that_stands_still_is_ended_by_the_trials_timeout(app: Bench) -> None:
    start = app.start("hydra.launcher.n_lanes=1", "hydra.sweeper.trial_timeout=8", more=2, seconds=1)
    trains(app, start)
    [lane] = app.processes(start)["lanes"]
    lane.suspend()
    assert start.ended() == 0, start.output
    reasons = [str(trial.attributes.get("reason")) for trial in read_trials(app.books) if trial.state == "FAIL"]
    assert len(reasons) == 1
    assert "longer than hydra.sweeper.trial_timeout=8 seconds" in reasons[0]
    app.wait_for_nobody("after the timeout")
    assert not broken(app.books, n_trials=2, mark=app.mark, tmp=app.tmp)


def test_a_parent_that_stands_still_keeps_its_sweep_and_goes_on(app: Bench) -> None:
    start = app.start(more=2, seconds=0.5)
    trains(app, start)
    start.process.send_signal(signal.SIGSTOP)
    other = app.start(more=2)
    assert other.ended() == 2, other.output
    assert "is being run by" in other.output
    start.process.send_signal(signal.SIGCONT)
    assert start.ended() == 0, start.output
    app.settle("the parent that stood still")
    assert not broken(app.books, n_trials=2, mark=app.mark, tmp=app.tmp)


def test_time_in_which_the_parent_stood_still_is_not_the_trials(app: Bench) -> None:
    """A trial that reports waits for the answer, as long as its parent waits for a server, or sleeps."""
    start = app.start("hydra.launcher.n_lanes=1", "hydra.sweeper.trial_timeout=12", more=1, seconds=1)
    trains(app, start)
    start.process.send_signal(signal.SIGSTOP)
    time.sleep(15)
    start.process.send_signal(signal.SIGCONT)
    assert start.ended() == 0, start.output
    assert [trial.state for trial in read_trials(app.books)] == ["COMPLETE"]


@pytest.mark.parametrize("jump", [86_400, -86_400], ids=["a day ahead", "a day back"])
def test_nothing_depends_on_the_wall_clock(app: Bench, jump: int) -> None:
    limits = ("hydra.sweeper.trial_timeout=60", "hydra.sweeper.timeout=600")
    moved = {"BESOM_FAULTS_JUMP": f"2:{jump}"}
    start = app.start(*limits, more=6, seconds=0.5, env=moved)
    assert start.ended() == 0, start.output
    assert start.process.pid in start.jumped, "it has read the clock after the jump"
    app.settle("the jump")
    app.struck("told:2:both", *limits, env=moved)
    app.whole(more=1)
    assert {trial.state for trial in read_trials(app.books) if trial.is_own} == {"COMPLETE"}


def test_a_process_is_known_by_its_boot_whatever_the_clock_of_the_machine_does(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = lock.process_identity()
    assert not lock.is_dead(identity)
    now = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: now(process) + 86_400)
    assert not lock.is_dead(identity)
    assert lock.is_dead({**identity, "process_boot": f"another boot/{identity['process_boot']}"})


def test_a_trial_that_runs_out_of_memory_fails_alone(app: Bench) -> None:
    start = app.start("hydra.launcher.n_lanes=1", more=12, env={"APP_EATS": "1500"})
    assert start.ended() == 0, start.output
    app.settle("memory")
    trials = read_trials(app.books)
    eaters = [trial for trial in trials if int(trial.params["x"]) % 5 == 0]
    assert eaters
    for trial in trials:
        expected = "FAIL" if trial in eaters else "COMPLETE"
        assert (trial.state, trial.outcome) == (expected, "failed" if trial in eaters else "complete")
    assert all("MemoryError" in trial.attributes["reason"] for trial in eaters)
    assert not broken(app.books, n_trials=12, mark=app.mark, tmp=app.tmp)


def test_a_trial_that_the_kernel_kills_three_times_for_its_memory_is_given_up(app: Bench) -> None:
    faults = ",".join(f"reported:{n}:self" for n in (1, 2, 3))  # as the OOM killer does: kill -9 of that process
    start = app.start("hydra.launcher.n_lanes=1", faults=faults, more=3)
    assert start.ended() == 0, start.output
    assert len(start.landed) == 3
    app.settle("the OOM killer")
    ends = [(trial.attributes["point"], trial.outcome) for trial in read_trials(app.books)]
    assert ends[:3] == [(0, "lane_died"), (0, "lane_died"), (0, "failed")]
    assert [outcome for _, outcome in ends[3:]] == ["complete", "complete"]
    assert not broken(app.books, n_trials=3, mark=app.mark, tmp=app.tmp)


def test_the_lanes_of_a_killed_pool_leave_no_file_behind(app: Bench) -> None:
    start = app.start(more=2, seconds=2)
    trains(app, start)
    start.process.kill()
    start.ended()
    until(lambda: not app.left(), seconds=60)
    time.sleep(0.1)
    assert not [path for path in app.tmp.iterdir() if not path.match("pymp-*")]
