"""The seam between a sweep and whatever runs its trials: jobs in, reports and results out.

A Hydra launcher that can run trials without batches has one method more, ``engine()``, which gives an
`Engine`. Knows nothing of lanes, Ray, Optuna or Keras.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from hydra.core.utils import JobReturn
from omegaconf import DictConfig

OnReport = Callable[[int, float], bool]
"""Takes (step, value) of a running trial and returns True when it is to be pruned."""


class WorkerDied(Exception):
    """The process that ran the job died; set as the exception of the job's future.

    Args:
        alone: whether it is known to be this job's process, and not that of another job of its batch.
    """

    def __init__(self, message: str, alone: bool = True) -> None:
        super().__init__(message)
        self.alone = alone


@dataclass(frozen=True)
class Job:
    """One trial, composed.

    Args:
        number: the trial's number, which is Hydra's job number.
        config: the composed config with its ``hydra`` node, ``hydra.job.num`` set.
        run_id: the run that the parent made for it, None where nothing is tracked.
        overrides: what the config was composed from, for launchers that compose it again.
        study: the id of the trial's study, which goes into its ``result.json``.
    """

    number: int
    config: DictConfig
    run_id: str | None = None
    overrides: Sequence[str] = ()
    study: str = ""


class Engine(Protocol):
    """Runs jobs on workers; single-threaded: callbacks and futures are served inside `wait`."""

    @property
    def blocks(self) -> bool:
        """Whether `wait` runs what was submitted to its end, so that nothing can be stopped meanwhile.

        The trials of such an engine report through the study's storage themselves.
        """

    @property
    def capacity(self) -> int:
        """How many jobs can run at the same time."""

    def submit(self, job: Job, on_report: OnReport) -> Future[JobReturn]:
        """Take a job; its future ends with the job's return or with `WorkerDied`."""

    def wait(self, timeout: float) -> None:
        """Serve the reports and results that come in next; return after ``timeout`` seconds at the latest."""

    def cancel(self, jobs: Collection[Future[JobReturn]]) -> None:
        """Stop running jobs at once; their futures end as cancelled or with `WorkerDied`."""

    def close(self) -> None:
        """Stop all workers and wait for their end; running jobs are lost."""
