"""What runs on a Ray cluster: `RayLane`, a warm actor that runs one job after another, and `Reports`, their way home.

The parent's side is `besom.engines.ray_lanes`. A lane runs jobs in its actor's main thread, as any other lane does, so
that a job may do what it may do anywhere; that is why reports have an actor of their own, which can wait. Knows
nothing of what a job is.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import cloudpickle

from besom import offered
from besom.engines.lane import Runner, print_into, run_message


@dataclass(frozen=True)
class RaySetup:
    """What every lane of a pool starts with; it crosses by cloudpickle.

    Args:
        runner: called for each job.
        preload: modules imported at the start.
        search_path: where the parent finds modules.
        environment: variables that a lane is to have and that may be secret: Ray shows them nowhere.
    """

    runner: Runner
    preload: Sequence[str] = ()
    search_path: Sequence[str] = field(default_factory=lambda: tuple(sys.path))
    environment: Mapping[str, str] = field(default_factory=dict)


class RayLane:
    """One lane, an actor.

    Args:
        setup: what `packed` made of a `RaySetup`.
        offers: what the parent has offered, see `besom.offered`; the arrays stay in the node's object store.
        reports: the actor that takes reports.
        name: of this lane, its successors having others.
        log: where it prints; None leaves that to Ray.
        witness: a folder that only those see who share the parent's disk.
    """

    def __init__(
        self,
        setup: bytes,
        offers: Mapping[str, offered.Offer],
        reports: Any,
        name: str,
        log: str | None,
        witness: str | None,
    ) -> None:
        self._shares = witness is None or Path(witness).is_dir()
        if not self._shares:  # the parent ends it
            return
        if log is not None:
            print_into(Path(log))
        search_path, environment, content = cloudpickle.loads(setup)
        sys.path.extend(place for place in search_path if place not in sys.path)
        os.environ.update(environment)
        ready: RaySetup = cloudpickle.loads(content)
        offered.receive(offers)
        for module in ready.preload:
            importlib.import_module(module)
        self._runner, self._reports, self._name = ready.runner, reports, name
        self._environment = environment

    def about(self) -> dict[str, Any]:
        """Return where this lane is, and whether it shares the parent's disk; then it is ready."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        return {"host": socket.gethostname(), "pid": os.getpid(), "node": node, "shares": self._shares}

    def run(self, message: bytes) -> tuple[str, bytes]:
        """Run a job, see `besom.engines.lane.run_message`."""
        os.environ.update(self._environment)  # Ray sets OMP_NUM_THREADS anew for each method, as it thinks best
        return run_message(self._runner, message, self._channel)

    def _channel(self, step: int, value: float) -> bool:
        import ray
        from ray.exceptions import RayError

        try:
            answer = ray.get(self._reports.report.remote(self._name, step, value))
        except RayError:  # the parent is gone, or its node; to the job it would look like a failure of its own
            return _die()
        return bool(answer)


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("nobody survives that")


def packed(setup: RaySetup) -> bytes:
    """Return a setup as `RayLane` takes it: to read the rest may import what only the parent's search path shows."""
    packed: bytes = cloudpickle.dumps((list(setup.search_path), dict(setup.environment), cloudpickle.dumps(setup)))
    return packed


class Reports:
    """Takes the reports of all lanes to the parent, and its answers back: an actor on the parent's node."""

    def __init__(self) -> None:
        self._came: list[tuple[str, int, float]] = []
        self._has_come = asyncio.Event()
        self._answers: dict[str, asyncio.Future[bool]] = {}

    async def report(self, lane: str, step: int, value: float) -> bool:
        """Take a report of a lane; return the parent's answer."""
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._answers[lane] = answer
        self._came.append((lane, step, value))
        self._has_come.set()
        return await answer

    async def next(self) -> list[tuple[str, int, float]]:
        """Wait for reports and return them; the parent asks."""
        await self._has_come.wait()
        self._has_come.clear()
        came, self._came = self._came, []
        return came

    async def answer(self, answers: Mapping[str, bool]) -> None:
        """Take answers to the lanes that wait for them."""
        for lane, answer in answers.items():
            waiting = self._answers.pop(lane, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)
