"""Lanes: real processes, a cheap runner; what they run, how they die, what they leave behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import all_gone, lanes_of, until

from besom.engines import sockets
from besom.engines.engine import OnReport, WorkerDied
from besom.engines.lane import LaneSetup
from besom.engines.lanes import START_METHODS, LanePool
from besom.errors import ConfigError


class TwoWordsError(Exception):
    """Pickles, and does not unpickle: its constructor takes other arguments than it hands on."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


def runner(job: Any, channel: OnReport) -> Any:  # noqa: C901  # a table in code
    """Do what the job says: a small language of misdeeds."""
    match job:
        case ("pid",):
            return os.getpid()
        case ("echo", value):
            return value
        case ("report", values):
            return [channel(step, value) for step, value in enumerate(values)]
        case ("die", number):
            os.kill(os.getpid(), number)
        case ("exit", code):
            sys.exit(code)
        case ("raise", text):
            raise ValueError(text)
        case ("sleep", seconds):
            time.sleep(seconds)
        case ("child",):  # as a data loader with workers does, and a task that runs a command
            worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(0,))
            worker.start()
            worker.join()
            return worker.exitcode
        case ("leave", file):
            child = subprocess.Popen(["sleep", "600"])
            Path(file).write_text(str(child.pid))
            time.sleep(600)
        case ("unreadable",):
            return TwoWordsError("one", "two")
        case ("print", text):
            sys.stdout.write(text)
            sys.stdout.flush()
            os.write(2, b" and below Python")
    return None


def deaf(step: int, value: float) -> bool:
    return False


started_by = "spawn"


@pytest.fixture(autouse=True, params=START_METHODS)
def start_method(request: pytest.FixtureRequest) -> str:
    """Every test here holds for both ways to start a lane."""
    global started_by
    started_by = request.param
    return started_by


def setup_of(run: Any, **setup: Any) -> LaneSetup:
    return LaneSetup(run, start_method=started_by, **setup)


@contextmanager
def lanes(n: int = 1, **setup: Any) -> Iterator[LanePool]:
    with closing(LanePool(n, setup_of(runner, **setup))) as pool:
        yield pool


def settled(pool: LanePool, *futures: Future[Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not all(future.done() for future in futures):
        assert time.monotonic() < end, "a job did not end"
        pool.wait(0.5)


def test_a_lane_runs_one_job_after_another_in_one_warm_process() -> None:
    with lanes() as pool:
        futures = [pool.submit(("pid",), deaf) for _ in range(3)]
        settled(pool, *futures)
    assert len({future.result() for future in futures}) == 1


def test_a_lane_is_replaced_after_its_number_of_jobs() -> None:
    with lanes(jobs_per_lane=2) as pool:
        futures = [pool.submit(("pid",), deaf) for _ in range(4)]
        settled(pool, *futures)
    pids = [future.result() for future in futures]
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_a_free_lane_does_not_wait_for_a_busy_one() -> None:
    with lanes(2) as pool:
        slow = pool.submit(("sleep", 20), deaf)
        quick = [pool.submit(("echo", n), deaf) for n in range(3)]
        settled(pool, *quick)
        assert [future.result() for future in quick] == [0, 1, 2]
        assert not slow.done()


def test_reports_reach_the_parent_and_its_answer_comes_back() -> None:
    heard = []

    def on_report(step: int, value: float) -> bool:
        heard.append((step, value))
        return value > 1

    with lanes() as pool:
        future = pool.submit(("report", [0.5, 1.5]), on_report)
        settled(pool, future)
    assert heard == [(0, 0.5), (1, 1.5)]
    assert future.result() == [False, True]


@pytest.mark.parametrize(
    ("job", "message"), [(("raise", "boom"), "ValueError: boom"), (("exit", 3), "SystemExit: 3")], ids=["raise", "exit"]
)
def test_a_job_that_fails_leaves_its_lane_alive(job: tuple[str, Any], message: str) -> None:
    with lanes() as pool:
        first = pool.submit(("pid",), deaf)
        failed = pool.submit(job, deaf)
        after = pool.submit(("pid",), deaf)
        settled(pool, first, failed, after)
    assert message in str(failed.exception())
    assert first.result() == after.result()


def test_a_return_that_cannot_be_read_fails_its_job_and_no_other() -> None:
    with lanes() as pool:
        unreadable = pool.submit(("unreadable",), deaf)
        after = pool.submit(("echo", 1), deaf)
        settled(pool, unreadable, after)
    assert "the job's return cannot be read" in str(unreadable.exception())
    assert after.result() == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV], ids=["killed", "segfault"])
def test_a_dead_lane_is_told_by_its_signal_and_replaced(number: signal.Signals) -> None:
    with lanes() as pool:
        died = pool.submit(("die", number), deaf)
        after = pool.submit(("echo", "alive"), deaf)
        settled(pool, died, after)
    assert isinstance(died.exception(), WorkerDied)
    assert number.name in str(died.exception())
    assert after.result() == "alive"


def test_a_lane_killed_before_it_has_read_its_setup_blocks_nobody() -> None:
    weight = bytes(2**20)  # more than a pipe holds

    def heavy(job: Any, channel: OnReport) -> int:
        return len(weight)

    def kill_the_first_lane() -> None:
        until(lambda: bool(lanes_of(os.getpid())), seconds=15)
        for lane in lanes_of(os.getpid()):
            with suppress(psutil.NoSuchProcess):
                lane.kill()

    killer = threading.Thread(target=kill_the_first_lane)
    killer.start()
    with closing(LanePool(1, setup_of(heavy))) as pool:
        killer.join()
        done = pool.submit("weigh", deaf)
        settled(pool, done)
    assert done.result() == 2**20


def test_a_lane_killed_from_outside_while_idle_is_replaced() -> None:
    with lanes() as pool:
        first = pool.submit(("pid",), deaf)
        settled(pool, first)
        lane = psutil.Process(first.result())
        lane.kill()
        until(lambda: all_gone([lane]), seconds=15)
        pool.wait(1)
        second = pool.submit(("pid",), deaf)
        settled(pool, second)
    assert second.result() != first.result()


def test_cancel_kills_the_running_job_and_frees_the_lane() -> None:
    with lanes() as pool:
        slow = pool.submit(("sleep", 60), deaf)
        queued = pool.submit(("sleep", 60), deaf)
        pool.cancel([slow, queued])
        after = pool.submit(("echo", 1), deaf)
        settled(pool, after)
        assert isinstance(slow.exception(), WorkerDied)
        assert queued.cancelled()


def test_a_job_may_start_processes() -> None:
    with lanes() as pool:
        job = pool.submit(("child",), deaf)
        settled(pool, job)
    assert job.result() == 0


def test_a_cancelled_job_takes_what_it_has_started_with_it(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with lanes() as pool:
        job = pool.submit(("leave", str(file)), deaf)
        end = time.monotonic() + 30
        while not (file.exists() and file.read_text()):
            assert time.monotonic() < end
            pool.wait(0.1)
        child = psutil.Process(int(file.read_text()))
        pool.cancel([job])
        until(lambda: all_gone([child]), seconds=15)


def test_close_leaves_no_process_behind() -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with lanes(2) as pool:
        busy = pool.submit(("sleep", 60), deaf)
        idle = pool.submit(("echo", 1), deaf)
        settled(pool, idle)
    names = [child.cmdline() for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert not [name for name in names if "resource_tracker" not in str(name)]
    assert isinstance(busy.exception(), WorkerDied)


def test_what_a_lane_prints_goes_to_its_log_even_from_below_python(tmp_path: Path) -> None:
    with lanes(log_folder=tmp_path) as pool:
        settled(pool, pool.submit(("print", "from Python"), deaf))
    assert (tmp_path / "0.log").read_text() == "from Python and below Python"


def test_lanes_that_cannot_start_end_the_pool_with_the_reason(tmp_path: Path) -> None:
    with (
        lanes(preload=["no_such_module"], log_folder=tmp_path) as pool,
        pytest.raises(RuntimeError, match=r"lanes die before they can take a job .*exit code 1.*0\.log"),
    ):
        settled(pool, pool.submit(("echo", 1), deaf))
    assert "No module named 'no_such_module'" in (tmp_path / "0.log").read_text()


PARENT = """
import sys, time
sys.path.insert(0, {tests!r})
from besom.engines.lane import LaneSetup
from besom.engines.lanes import LanePool
from test_lanes import runner, deaf
if __name__ == "__main__":
    pool = LanePool(2, LaneSetup(runner, start_method={method!r}))
    pid = pool.submit(("pid",), deaf)
    while not pid.done():
        pool.wait(0.5)
    pool.submit(("sleep", 60), deaf)
    pool.submit(("sleep", 60), deaf)
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "kill"])
def test_lanes_end_by_themselves_when_their_parent_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(tests=str(Path(__file__).parent), method=started_by))
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        children = psutil.Process(parent.pid).children(recursive=True)
        assert len(children) >= 2
        parent.send_signal(number)
    until(lambda: all_gone(children), seconds=15)


def test_lanes_start_under_a_tmpdir_that_is_too_long_for_a_socket(tmp_path: Path) -> None:
    script, place = tmp_path / "parent.py", tmp_path / ("x" * 120)
    place.mkdir()
    script.write_text(PARENT.format(tests=str(Path(__file__).parent), method=started_by).replace("time.sleep", "exit"))
    done = subprocess.run(
        [sys.executable, str(script)], env=os.environ | {"TMPDIR": str(place)}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (60, "ready\n"), done.stderr
    assert not list(place.iterdir())


def test_where_no_folder_is_short_enough_for_a_socket_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", f"/{'x' * 120}")
    monkeypatch.setattr(sockets, "SHORT", ("/nowhere",))
    with pytest.raises(ConfigError, match=r"TMPDIR=/x{120} is too long: .*; set a shorter TMPDIR, or"):
        sockets.keep_sockets_short()


def test_where_there_is_no_memory_without_a_name_a_file_without_one_is_handed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with lanes() as pool:
        echo = pool.submit(("echo", 7), deaf)
        settled(pool, echo)
    assert echo.result() == 7


def test_ctrl_c_in_the_terminal_does_not_reach_a_lane() -> None:
    with lanes() as pool:
        pid = pool.submit(("pid",), deaf)
        settled(pool, pid)
        os.kill(pid.result(), signal.SIGINT)
        after = pool.submit(("pid",), deaf)
        settled(pool, after)
    assert after.result() == pid.result()


def test_lanes_that_cannot_import_what_they_need_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deadly.py").write_text("import os; print('no such processor', flush=True); os._exit(3)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    with (
        lanes(preload=("deadly",), log_folder=tmp_path) as pool,
        pytest.raises(
            RuntimeError, match=r"lanes die before they can take a job \(the lane ended with exit code 3\); see"
        ),
    ):
        settled(pool, pool.submit(("pid",), deaf))
    assert "no such processor" in (tmp_path / "0.log").read_text()


WAITING = """
from pathlib import Path
from besom.engines.lane import LaneSetup
from besom.engines.lanes import LanePool

if __name__ == "__main__":
    LanePool(2, LaneSetup(print, preload=("slow",), start_method="forkserver"))
"""


def test_ctrl_c_ends_the_wait_for_what_lanes_are_copied_from(tmp_path: Path, start_method: str) -> None:
    if start_method == "spawn":
        pytest.skip("a spawned lane is there at once and imports by itself")
    (tmp_path / "slow.py").write_text("import pathlib, time; pathlib.Path('here').touch(); time.sleep(600)")
    (tmp_path / "waiting.py").write_text(WAITING)
    process = subprocess.Popen(
        [sys.executable, "waiting.py"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": "."}, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    until((tmp_path / "here").exists)
    started = psutil.Process(process.pid).children(recursive=True)
    time.sleep(0.5)  # the first lane is being waited for
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=30)[1]
    assert len(started) >= 1
    until(lambda: all_gone(started))
