"""Warm worker processes on this machine: spawned once, each runs one job after another.

One event loop over pipes and process sentinels, in the parent's own thread. An executor would not do:
its workers outlive a killed parent for ever. Knows nothing of Hydra, Optuna or Keras: a lane calls
the runner it was started with on whatever it is sent.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from multiprocessing import forkserver
from multiprocessing.connection import wait
from typing import Any

import cloudpickle

from besom.engines.engine import WorkerDied
from besom.engines.handed import Handed
from besom.engines.lane import LaneSetup, run_lane
from besom.engines.sockets import keep_sockets_short
from besom.engines.work import GRACE_SECONDS, MAX_DEAD_STARTS, Pool, Work
from besom.signals import passed_over

log = logging.getLogger(__name__)

START_METHODS = ("spawn", "forkserver")
"""How a lane comes to be: a new process that imports everything itself, or the copy of one that did so for all."""


def warm_up(preload: Sequence[str]) -> None:
    """Start the process that lanes of ``start_method="forkserver"`` are copied from; does not wait for it.

    Lanes get the environment as it is now. One pool of such lanes at a time.

    Raises:
        ConfigError: TMPDIR is too long for a socket, and no other folder can be written.
    """
    keep_sockets_short()
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(preload))
    with passed_over():
        forkserver.ensure_running()


def cool_down() -> None:
    """End the process that lanes are copied from, so that the next one has the environment and modules of its time."""
    server: Any = forkserver._forkserver  # nothing public stops it
    with passed_over():  # half stopped, it could not be stopped again
        if server._forkserver_pid is not None:
            with suppress(ProcessLookupError):  # by itself it ends after its imports, and when no lane lives any more
                os.kill(server._forkserver_pid, signal.SIGKILL)
        server._stop()


class LanePool(Pool):
    """So many lanes, a queue before them, and the loop that serves both.

    Args:
        n_lanes: how many processes.
        setup: what they start with.
    """

    def __init__(self, n_lanes: int, setup: LaneSetup) -> None:
        super().__init__()
        self._setup = setup
        self._handed = Handed.of(setup)
        self._dead_starts = 0
        self._lanes: list[_Lane] = []
        try:
            for index in range(n_lanes):
                self._lanes.append(self._new_lane(index))
        except BaseException:
            self.close()
            raise

    @property
    def capacity(self) -> int:
        return len(self._lanes)

    def wait(self, timeout: float) -> None:
        """Serve what lanes send next; return after ``timeout`` seconds at the latest."""
        ready = wait(
            [lane.connection for lane in self._lanes] + [lane.process.sentinel for lane in self._lanes], timeout
        )
        for lane in list(self._lanes):
            if lane.connection in ready:
                self._serve(lane)
            elif lane.process.sentinel in ready:
                self._bury(lane)
        self._feed()

    def cancel(self, futures: Collection[Future[Any]]) -> None:
        """Take queued jobs back and kill the lanes of running ones; killed lanes are replaced."""
        self._take_back(futures)
        for lane in list(self._lanes):
            if lane.work is not None and lane.work.future in futures:
                lane.kill()
                lane.was_ready = True  # its job is not to be started elsewhere
                self._bury(lane)

    def close(self) -> None:
        """End all lanes: idle ones by asking, busy ones and those that are still importing at once."""
        self._take_back()
        for lane in self._lanes:
            lane.ask_to_end() if lane.was_ready and lane.work is None else lane.kill()
        for lane in self._lanes:
            lane.join()
            if lane.work is not None:
                lane.work.future.set_exception(WorkerDied("the lane was closed"))
                lane.work = None
        self._handed.close()
        if self._setup.start_method == "forkserver":
            cool_down()

    def _feed(self) -> None:
        for lane in self._lanes:
            if self._queue and lane.work is None:
                lane.start_job(self._queue.popleft())

    def _serve(self, lane: _Lane) -> None:
        try:
            kind, *content = lane.receive()
        except (EOFError, OSError):
            self._bury(lane)
            return
        if kind == "ready":
            self._dead_starts = 0
            lane.mark_running()
        elif kind == "report":
            lane.answer(content[0], content[1])
        else:
            self._finish(lane, kind, content[0])

    def _finish(self, lane: _Lane, kind: str, content: bytes) -> None:
        work, lane.work = lane.work, None
        assert work is not None, "a lane sends a result only for a job"
        self._dead_starts = 0
        if self._setup.jobs_per_lane and lane.n_done >= self._setup.jobs_per_lane:
            lane.ask_to_end()
            self._replace(lane)
        work.end(kind, content)

    def _bury(self, lane: _Lane) -> None:
        """Put a new lane in the place of one that died; its job is lost, unless it never got to start it."""
        lane.kill()  # its job may have left processes
        lane.join()
        work, lane.work = lane.work, None
        self._dead_starts += not lane.was_ready
        if self._dead_starts >= MAX_DEAD_STARTS * len(self._lanes):
            raise RuntimeError(
                f"lanes die before they can take a job ({lane.death()}); see {lane.log or 'the terminal'}"
            )
        self._replace(lane)
        if work is not None and lane.was_ready:
            work.future.set_exception(WorkerDied(lane.death()))
        elif work is not None:
            self._queue.appendleft(work)

    def _replace(self, lane: _Lane) -> None:
        self._lanes[self._lanes.index(lane)] = self._new_lane(lane.index)

    def _new_lane(self, index: int) -> _Lane:
        try:
            if self._setup.start_method == "forkserver":
                warm_up(self._setup.preload)  # there already, unless it has died
            return _Lane(index, self._setup, self._handed)
        except (EOFError, ConnectionError):
            if self._setup.start_method == "spawn":
                raise
            # the process to copy has died, most likely of an import: a lane that imports by itself leaves the reason
            # where lanes print
            log.warning("the process that lanes are copied from has died; from now on each lane imports by itself")
            cool_down()
            self._setup = replace(self._setup, start_method="spawn")
            return _Lane(index, self._setup, self._handed)


class _Lane:
    """The parent's side of one process."""

    def __init__(self, index: int, setup: LaneSetup, handed: Handed) -> None:
        self.index = index
        self.log = setup.log_folder / f"{index}.log" if setup.log_folder else None
        self.work: Work | None = None
        self.n_done = 0
        self.was_ready = False
        context: Any = multiprocessing.get_context(setup.start_method)
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=run_lane,
            name=f"besom-lane-{index}",
            args=(theirs, handed, self.log),
            daemon=True,
        )
        if setup.start_method == "spawn":
            with passed_over():
                self.process.start()
        else:  # waits until all is imported; lanes are as deaf as the process that they are copied from
            self.process.start()
        theirs.close()

    def start_job(self, work: Work) -> None:
        self.work = work
        with suppress(OSError):  # it died meanwhile: its sentinel tells in the next turn of the loop
            self.connection.send_bytes(cloudpickle.dumps(work.job))
        self.mark_running()

    def mark_running(self) -> None:
        """Let the job's future say that it runs, once the lane is up."""
        if self.was_ready and self.work is not None:
            self.work.mark_running()

    def receive(self) -> tuple[Any, ...]:
        message: tuple[Any, ...] = self.connection.recv()
        self.was_ready = True
        self.n_done += message[0] in ("done", "failed")
        return message

    def answer(self, step: int, value: float) -> None:
        prune = self.work.on_report(step, value) if self.work is not None else True
        with suppress(OSError):
            self.connection.send(prune)

    def ask_to_end(self) -> None:
        with suppress(OSError):
            self.connection.send_bytes(b"")

    def kill(self) -> None:
        """Kill the lane and what its job has started: they are one process group, there as long as one of them is."""
        if self.process.pid:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()  # it may not have made its group yet

    def join(self) -> None:
        self.process.join(GRACE_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()

    def death(self) -> str:
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"the lane was killed by {signal.Signals(-code).name}"
        return f"the lane ended with exit code {code}"
