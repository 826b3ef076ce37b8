"""A job on its way through a pool of lanes, and what its future becomes. Knows nothing of how lanes are reached."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import cloudpickle

from besom.engines.engine import OnReport
from besom.errors import DiskFull


@dataclass(eq=False)
class Work:
    """One job, who hears its reports, and its future."""

    job: Any
    on_report: OnReport
    future: Future[Any] = field(default_factory=Future)

    def mark_running(self) -> None:
        """Let the future say that the job runs; again is harmless."""
        if not self.future.running():
            self.future.set_running_or_notify_cancel()

    def end(self, kind: str, content: bytes) -> None:
        """Set the future to what a lane has sent, see `besom.engines.lane.run_message`."""
        if kind == "failed":
            self.future.set_exception(RuntimeError(content.decode()))
            return
        if kind == "full":
            self.future.set_exception(DiskFull(content.decode()))
            return
        try:
            self.future.set_result(cloudpickle.loads(content))
        except Exception as error:  # a user's exception class that pickles but does not unpickle
            self.future.set_exception(RuntimeError(f"the job's return cannot be read: {error}"))
