"""What runs inside a lane: one job after another, until told to end or until the parent dies.

The parent's side is `besom.engines.lanes`. Knows nothing of what a job is: the runner it was started with does.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn

import cloudpickle

from besom.engines.engine import OnReport
from besom.engines.handed import Handed
from besom.errors import DiskFull
from besom.signals import heard

Runner = Callable[[Any, OnReport], Any]
"""What a lane does with a job: called as ``runner(job, channel)``; its return crosses back."""


@dataclass(frozen=True)
class LaneSetup:
    """What every lane of a pool starts with.

    Args:
        runner: called for each job, crosses by cloudpickle.
        preload: modules imported at the start, while the parent is still busy with its own.
        start_method: ``spawn``, or ``forkserver`` where ``preload`` only imports: a TensorFlow that has computed
            something hangs when it is forked.
        log_folder: where what a lane prints goes, one file a lane; None leaves it on the terminal.
        jobs_per_lane: a lane is replaced after so many jobs; 0 is never.
    """

    runner: Runner
    preload: Sequence[str] = ()
    start_method: str = "spawn"
    log_folder: Path | None = None
    jobs_per_lane: int = 0


def run_lane(connection: Connection, handed: Handed, log: Path | None) -> None:
    """Run jobs until told to end, or until the parent dies."""
    os.setsid()
    heard()
    # a daemonic process may start none of its own, which a data loader with workers does; this one ends with its parent
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    threading.Thread(target=_die_with_parent, daemon=True).start()
    if log is not None:
        print_into(log)
    setup: LaneSetup = handed.take()
    for module in setup.preload:
        importlib.import_module(module)
    connection.send(("ready",))
    while message := _next_message(connection):
        connection.send(run_message(setup.runner, message, _channel_through(connection)))


def _next_message(connection: Connection) -> bytes:
    try:
        return connection.recv_bytes()
    except EOFError:
        return b""


def _channel_through(connection: Connection) -> OnReport:
    def channel(step: int, value: float) -> bool:
        try:
            connection.send(("report", step, value))
            return bool(connection.recv())
        except (EOFError, OSError):  # the parent is dead; to the job it would look like a failure of its own
            return _die()

    return channel


def run_message(runner: Runner, message: bytes, channel: OnReport) -> tuple[str, bytes]:
    """Run a pickled job: ("done", pickled result), ("full", message) of a full disk, or ("failed", traceback)."""
    try:
        return "done", cloudpickle.dumps(runner(cloudpickle.loads(message), channel))
    except DiskFull as error:  # no fault of the job's
        return "full", str(error).encode()
    except BaseException:  # also SystemExit: whatever a job does, the lane lives on
        return "failed", traceback.format_exc().encode()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a lane is always a child"
    wait([parent.sentinel])
    _die()


def _die() -> NoReturn:
    """End this lane and all that its job has started, at once."""
    os.killpg(0, signal.SIGKILL)
    raise AssertionError("nobody survives that")


def print_into(log: Path) -> None:
    """Send standard output and error, those of C++ included, to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
