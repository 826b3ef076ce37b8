"""A job on its way through a pool of lanes, what its future becomes, and the queue that every pool has.

Knows nothing of how lanes are reached.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import cloudpickle

from besom.engines.engine import OnReport
from besom.errors import DiskFull

GRACE_SECONDS = 5.0
"""For a lane that was killed to be gone."""
MAX_DEAD_STARTS = 3
"""Lanes in the place of one, one after another, that may die before they can take a job."""


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


class Pool(ABC):
    """Lanes and the queue before them; what a lane is, and how it is served, is its subclass' matter."""

    def __init__(self) -> None:
        self._queue: deque[Work] = deque()

    @property
    @abstractmethod
    def capacity(self) -> int:
        """How many jobs can run at the same time."""

    def submit(self, job: Any, on_report: OnReport) -> Future[Any]:
        """Queue a job for the next free lane."""
        work = Work(job, on_report)
        self._queue.append(work)
        self._feed()
        return work.future

    @abstractmethod
    def wait(self, timeout: float) -> None:
        """Serve what lanes send next; return after ``timeout`` seconds at the latest."""

    @abstractmethod
    def cancel(self, futures: Collection[Future[Any]]) -> None:
        """Take queued jobs back and kill the lanes of running ones; killed lanes are replaced."""

    @abstractmethod
    def close(self) -> None:
        """End all lanes; running jobs are lost."""

    @abstractmethod
    def _feed(self) -> None:
        """Give queued jobs to the lanes that are free."""

    def _take_back(self, futures: Collection[Future[Any]] | None = None) -> None:
        """Cancel queued jobs: these, or all."""
        for work in [work for work in self._queue if futures is None or work.future in futures]:
            self._queue.remove(work)
            work.future.cancel()
