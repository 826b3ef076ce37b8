"""The parent's side of one lane on a Ray cluster; the pool of them is `besom.engines.ray_lanes`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import cloudpickle

from besom.engines.work import Work


class RayHandle:
    """One actor, and the job that it runs.

    Args:
        index: of its place in the pool.
        name: of its own, its successors in that place having others.
        actor: Ray's handle of a `besom.engines.ray_lane.RayLane`.
        ray: the module.
        log_file: where it prints, None where Ray has that.
    """

    def __init__(self, index: int, name: str, actor: Any, ray: Any, log_file: Path | None) -> None:
        self.index = index
        self.name = name
        self.log = log_file
        self.work: Work | None = None
        self.is_ready = False
        self.node = ""
        self.n_done = 0
        self.coming: Any = actor.about.remote()
        self._actor = actor
        self._ray = ray

    def start_job(self, work: Work) -> None:
        self.work = work
        self.coming = self._actor.run.remote(cloudpickle.dumps(work.job))
        work.mark_running()

    def hears(self, step: int, value: float) -> bool:
        return self.work.on_report(step, value) if self.work is not None else True

    def kill(self) -> None:
        with suppress(Exception):  # it may be dead, its node gone
            self._ray.kill(self._actor)

    def ending(self) -> Any:
        """Return what comes once the cluster says that it is dead."""
        return self._actor.about.remote()
