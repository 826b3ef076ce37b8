"""Warm lanes on a Ray cluster: actors, each runs one job after another; nodes may come and go meanwhile.

The same pool as `besom.engines.lanes`, with actors in the place of processes and ``ray.wait`` in that of the pipes.
Knows nothing of Hydra, Optuna or Keras.
"""

from __future__ import annotations

import itertools
import logging
import textwrap
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from besom import offered
from besom.engines.engine import WorkerDied
from besom.engines.ray_cluster import Share, cluster, room
from besom.engines.ray_handle import RayHandle
from besom.engines.ray_lane import RayLane, RaySetup, Reports, packed
from besom.engines.work import GRACE_SECONDS, MAX_DEAD_STARTS, Pool
from besom.errors import ConfigError, one_line
from besom.temporary import temporary_folder

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""Between two looks at the nodes of a cluster."""
WARN_SECONDS = 30.0
"""Without any lane, until that is told."""


@dataclass(frozen=True)
class RayPoolSetup:
    """How a pool is to be.

    Args:
        lane: what every lane starts with.
        address: of the cluster, see `besom.engines.ray_cluster.cluster`.
        n_lanes: how many; None for as many as the cluster has room for, whenever that changes.
        share: what each needs of it.
        env_vars: variables that a lane's process starts with; Ray shows them to who may look at the cluster.
        log_folder: where what a lane prints goes, one file a lane; None leaves it to Ray.
        jobs_per_lane: a lane is replaced after so many jobs; 0 is never.
        shared: a folder that every lane has to see as the parent does; None where nothing is read there.
    """

    lane: RaySetup
    address: str | None = None
    n_lanes: int | None = None
    share: Share = field(default_factory=Share)
    env_vars: Mapping[str, str] | None = None
    log_folder: Path | None = None
    jobs_per_lane: int = 0
    shared: Path | None = None


class RayPool(Pool):
    """Lanes on a cluster, a queue before them, and the loop that serves both.

    Raises:
        ConfigError: there is no cluster; `wait` raises it where a node does not share the disk.
    """

    def __init__(self, setup: RayPoolSetup) -> None:
        super().__init__()
        self._setup = setup
        self._names = itertools.count()
        self._lanes: list[RayHandle] = []
        self._dead_starts = 0
        self._looked = self._had_lane = time.monotonic()
        self._leaving = ExitStack()
        self._ray = self._leaving.enter_context(cluster(setup.address, setup.n_lanes, setup.share, offered.size()))
        try:
            self._witness = self._leaving.enter_context(temporary_folder(str(setup.shared))) if setup.shared else None
            self._start()
        except BaseException:
            self._leaving.close()
            raise

    def _start(self) -> None:
        lane = self._setup.lane
        # again: of some, whatever a process starts with, Ray has its own idea
        lane = replace(lane, environment={**lane.environment, **(self._setup.env_vars or {})})
        self._lane_setup = self._ray.put(packed(lane))
        self._offers = self._ray.put(offered.offers())
        self._make_reports()
        self._keep_size()

    def _make_reports(self) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = self._ray.get_runtime_context().get_node_id()
        actor = self._ray.remote(num_cpus=0)(Reports)
        self._reports = actor.options(scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False)).remote()
        self._next_reports = self._reports.next.remote()

    @property
    def capacity(self) -> int:
        """How many lanes are up, at least 1."""
        return max(1, sum(lane.is_ready for lane in self._lanes))

    def wait(self, timeout: float) -> None:
        """Serve what lanes send next; return after ``timeout`` seconds at the latest."""
        self._look()
        waiting = [self._next_reports, *(lane.coming for lane in self._lanes if lane.coming is not None)]
        ready, _ = self._ray.wait(waiting, timeout=timeout)
        if ready:
            ready, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        if self._next_reports in ready:
            self._answer()
        for lane in list(self._lanes):
            if lane.coming is not None and lane.coming in ready:
                self._serve(lane)
        self._feed()

    def cancel(self, futures: Collection[Future[Any]]) -> None:
        """Take queued jobs back and kill the lanes of running ones; killed lanes are replaced."""
        self._take_back(futures)
        for lane in list(self._lanes):
            if lane.work is not None and lane.work.future in futures:
                self._end(lane)
                self._bury(lane, "the lane was killed")

    def close(self) -> None:
        """End all lanes at once, and leave the cluster."""
        self._take_back()
        try:
            for lane in self._lanes:
                lane.kill()
            self._await_ends(self._lanes)
            for lane in self._lanes:
                if lane.work is not None:
                    lane.work.future.set_exception(WorkerDied("the lane was closed"))
                    lane.work = None
            self._lanes.clear()
        finally:
            self._leaving.close()

    def _await_ends(self, lanes: Sequence[RayHandle]) -> None:
        """Wait until the cluster says that killed lanes are dead, for some seconds at most.

        Their processes may be ending still, out of reach for longer.
        """
        with suppress(Exception):  # the cluster may be gone
            ends = [lane.ending() for lane in lanes]
            self._ray.wait(ends, num_returns=len(ends), timeout=GRACE_SECONDS)

    def _end(self, lane: RayHandle) -> None:
        lane.kill()
        self._await_ends([lane])

    def _feed(self) -> None:
        for lane in self._lanes:
            if self._queue and lane.is_ready and lane.work is None:
                lane.start_job(self._queue.popleft())

    def _answer(self) -> None:
        """Answer the reports that came, and wait for further ones."""
        from ray.exceptions import RayError

        try:
            came: Sequence[tuple[str, int, float]] = self._ray.get(self._next_reports)
        except RayError as error:  # whoever waits for an answer waits in vain: lanes die of that by themselves
            log.warning("the actor that takes reports has died: %s", _short(error))
            self._make_reports()
            for lane in list(self._lanes):
                self._end(lane)
                self._bury(lane, "the lane could not report", alone=False)
            return
        self._next_reports = self._reports.next.remote()
        by_name = {lane.name: lane for lane in self._lanes if lane.work is not None}
        answers = {name: by_name[name].hears(step, value) if name in by_name else True for name, step, value in came}
        self._reports.answer.remote(answers)

    def _serve(self, lane: RayHandle) -> None:
        from ray.exceptions import RayError

        try:
            content = self._ray.get(lane.coming)
        except RayError as error:
            self._bury(lane, _short(error))  # of a node that is gone, too: the job may have brought it down
            return
        self._dead_starts = 0
        lane.coming = None
        if lane.work is None:
            self._refuse_strange_disk(content)
            lane.is_ready, lane.node = True, content["node"]
            log.debug("lane %s is up: %s", lane.name, content)
            return
        work, lane.work = lane.work, None
        lane.n_done += 1
        if self._setup.jobs_per_lane and lane.n_done >= self._setup.jobs_per_lane:
            self._end(lane)
            self._lanes.remove(lane)
            self._keep_size()
        work.end(*content)

    def _refuse_strange_disk(self, about: Mapping[str, Any]) -> None:
        if not about["shares"]:  # what its trials write nobody here would find
            raise ConfigError(
                f"node {about['host']} of the Ray cluster does not see {self._setup.shared} of this machine; expected "
                "a disk that all nodes share, under the same path on each"
            )

    def _bury(self, lane: RayHandle, reason: str, *, alone: bool = True) -> None:
        """Put a new lane in the place of one that died, if there is room; its job is lost.

        Args:
            alone: whether that may be the job's own doing; else it is tried again however often it happens.
        """
        if lane in self._lanes:
            self._lanes.remove(lane)
        self._dead_starts += not lane.is_ready
        if self._dead_starts >= MAX_DEAD_STARTS * (len(self._lanes) + 1):
            raise RuntimeError(f"lanes die before they can take a job ({reason}); see {lane.log or 'the logs of Ray'}")
        self._keep_size()
        work, lane.work = lane.work, None
        if work is not None:
            work.future.set_exception(WorkerDied(reason, alone))

    def _look(self) -> None:
        """Follow the nodes that came and went since the last look."""
        now = time.monotonic()
        if any(lane.is_ready for lane in self._lanes):
            self._had_lane = now
        elif now - self._had_lane > WARN_SECONDS:
            self._had_lane = now
            log.warning(
                "no lane is up yet: each needs %s, and the nodes of the cluster have %s in all",
                self._setup.share,
                {key: value for key, value in self._ray.cluster_resources().items() if ":" not in key},
            )
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._leave_dead_nodes()
            self._keep_size()

    def _leave_dead_nodes(self) -> None:
        """Bury idle lanes whose node is gone: nothing comes from them that would tell."""
        alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
        for lane in [lane for lane in self._lanes if lane.is_ready and lane.work is None and lane.node not in alive]:
            self._bury(lane, "its node is gone")

    def _keep_size(self) -> None:
        """Start the lanes that are missing; those that have no node left and never came up are let go."""
        wanted = self._setup.n_lanes or max(1, room(self._ray, self._setup.share))
        for lane in [lane for lane in self._lanes if not lane.is_ready][: max(0, len(self._lanes) - wanted)]:
            self._end(lane)
            self._lanes.remove(lane)
        while len(self._lanes) < wanted:
            self._lanes.append(self._new_lane())

    def _new_lane(self) -> RayHandle:
        setup, taken = self._setup, {lane.index for lane in self._lanes}
        index = next(number for number in itertools.count() if number not in taken)
        name = f"{index}.{next(self._names)}"
        log_file = setup.log_folder / f"{index}.log" if setup.log_folder else None
        options: dict[str, Any] = {
            "num_cpus": setup.share.cpus,
            "num_gpus": setup.share.gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        if setup.share.memory:
            options["memory"] = setup.share.memory
        if setup.env_vars:
            options["runtime_env"] = {"env_vars": dict(setup.env_vars)}
        actor = (
            self._ray.remote(RayLane)
            .options(**options)
            .remote(
                *(self._lane_setup, self._offers, self._reports, name, str(log_file) if log_file else None),
                str(self._witness) if self._witness else None,
            )
        )
        return RayHandle(index, name, actor, self._ray, log_file)


def _short(error: BaseException) -> str:
    """Return why an actor died on one line; Ray tells it on many."""
    return textwrap.shorten(one_line(error), 400, placeholder="…")
