"""The thin adapter between Hydra and lanes: composes jobs, runs them in a lane as Hydra runs any job.

Knows nothing of Optuna and of what the task is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra.core.utils
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.basecontainer import BaseContainer

from besom.cores import usable_cores
from besom.disk import explain
from besom.engines.engine import Job, OnReport
from besom.engines.lane import LaneSetup
from besom.engines.lanes import START_METHODS, LanePool
from besom.engines.work import Pool
from besom.errors import ConfigError, DiskFull, one_of
from besom.judge import failed, is_pruned, judge
from besom.machine import this_machine
from besom.reporting import TrialHandle, running
from besom.results import TrialResult

log = logging.getLogger(__name__)

HYDRA_LOGS_FAILURES = hasattr(hydra.core.utils, "_log_job_error_to_file")


def compose_job(context: HydraContext, master: DictConfig, overrides: Sequence[str], number: int) -> DictConfig:
    """Compose one job's config from its overrides, as Hydra's own launchers do."""
    config = context.config_loader.load_sweep_config(master, list(overrides))
    with open_dict(config):
        config.hydra.job.id = str(number)
        config.hydra.job.num = number
    return config


def sweep_folder(config: DictConfig) -> Path:
    """Return the folder of the sweep that a config is of, as it is now: a task may move to another one."""
    return Path(os.path.abspath(str(config.hydra.sweep.dir)))


def job_folder(config: DictConfig) -> Path:
    """Return the folder of a composed job."""
    return Path(str(OmegaConf.select(config, "hydra.sweep.dir"))) / str(OmegaConf.select(config, "hydra.sweep.subdir"))


def ran_in(returned: JobReturn) -> Path | None:
    """Return the folder that a job ran in, as its worker knew it."""
    folder = OmegaConf.select(returned.hydra_cfg, "hydra.runtime.output_dir") if returned.hydra_cfg else None
    return Path(folder) if folder else None


class PoolLauncher:
    """An `besom.engines.engine.Engine` of warm lanes that run Hydra jobs.

    Args:
        pool: the lanes, whose runner is `hydra_runner`.
        context: Hydra's.
    """

    blocks = False

    def __init__(self, pool: Pool, context: HydraContext) -> None:
        self._pool = pool
        self._context = context

    @property
    def capacity(self) -> int:
        return self._pool.capacity

    def submit(self, job: Job, on_report: OnReport) -> Future[JobReturn]:
        return self._pool.submit(job, on_report)

    def wait(self, timeout: float) -> None:
        self._pool.wait(timeout)

    def cancel(self, jobs: Collection[Future[JobReturn]]) -> None:
        self._pool.cancel(jobs)

    def close(self) -> None:
        self._pool.close()

    def launch(self, master: DictConfig, batch: Sequence[Sequence[str]], first_number: int) -> list[JobReturn]:
        """Run a batch to its end, for sweepers that know only batches. Reports are heard by nobody."""
        try:
            futures = [
                self.submit(
                    Job(number, compose_job(self._context, master, overrides, number)), lambda step, value: False
                )
                for number, overrides in enumerate(batch, first_number)
            ]
            while not all(future.done() for future in futures):
                self.wait(1.0)
            return [future.result() for future in futures]
        finally:
            self.close()


class LanesLauncher(PoolLauncher):
    """Lanes of this machine.

    Args:
        settings: the fields of ``hydra.launcher`` (`besom.hydra_conf.BesomLanesConf`).
        n_objectives: how many numbers a task returns.
    """

    def __init__(
        self, settings: Mapping[str, Any], context: HydraContext, task_function: TaskFunction, n_objectives: int = 1
    ) -> None:
        log_folder = settings["log_folder"]
        n_lanes = lane_count(settings["n_lanes"], settings["threads_per_lane"])
        _tell_of_crowding(n_lanes, settings["threads_per_lane"])
        setup = LaneSetup(
            runner=hydra_runner(context, task_function, n_objectives),
            preload=tuple(settings["preload"]),
            start_method=checked_start_method(settings["start_method"]),
            log_folder=Path(log_folder) if log_folder else None,
            jobs_per_lane=settings["trials_per_lane"],
        )
        super().__init__(LanePool(n_lanes, setup), context)


def check_lanes(settings: Mapping[str, Any]) -> None:
    """Raise `ConfigError` where a field of ``hydra.launcher`` is wrong, before anything is created."""
    lane_count(settings["n_lanes"], settings["threads_per_lane"])
    checked_start_method(settings["start_method"])


def lane_count(n_lanes: Any, threads_per_lane: int) -> int:
    """Return how many lanes to start: a number as given, or ``auto``: usable cores ÷ threads."""
    if threads_per_lane < 1:
        raise ConfigError(f"train.threads={threads_per_lane} is too small for a lane; expected at least 1")
    return checked_number_of_lanes(n_lanes) or max(1, usable_cores() // threads_per_lane)


def checked_number_of_lanes(n_lanes: Any) -> int | None:
    """Return a number of lanes as given, None for ``auto``, or raise `ConfigError`."""
    if n_lanes == "auto":
        return None
    if not isinstance(n_lanes, int) or isinstance(n_lanes, bool) or n_lanes < 1:
        raise ConfigError(f"hydra.launcher.n_lanes={n_lanes!r} is not usable; expected 'auto' or a number from 1")
    return n_lanes


def _tell_of_crowding(n_lanes: int, threads_per_lane: int) -> None:
    if n_lanes * threads_per_lane > (cores := usable_cores()) and n_lanes > 1:
        log.warning(
            "hydra.launcher.n_lanes=%d with %d threads each is more than the %d usable cores: trials will wait for "
            "each other; n_lanes=auto starts as many as there is room for", n_lanes, threads_per_lane, cores,
        )  # fmt: skip


def checked_start_method(name: Any) -> str:
    """Return how lanes are started, or raise `ConfigError`."""
    if name not in START_METHODS:
        raise ConfigError(one_of("hydra.launcher.start_method", name, START_METHODS))
    return str(name)


def hydra_runner(context: HydraContext, task_function: TaskFunction, n_objectives: int) -> HydraRunner:
    """Return what a lane runs jobs with, Hydra being there as it is here."""
    return HydraRunner(context, task_function, Singleton.get_state(), resolvers(), n_objectives)


def resolvers() -> dict[str, Any]:
    """Return the resolvers that this process knows, an app's own too, by name."""
    # OmegaConf lists its resolvers nowhere in public
    return dict(BaseContainer._resolvers)


@dataclass(frozen=True)
class HydraRunner:
    """Runs one `Job` inside a lane and leaves ``result.json`` in its folder, last.

    Raises:
        DiskFull: something of the job could not be written; it leaves no result, and its sweep is to stop.
    """

    context: HydraContext
    task_function: TaskFunction
    singletons: dict[Any, Any]
    resolvers: dict[str, Any]
    n_objectives: int = 1
    cwd: str = field(default_factory=os.getcwd)
    machine: str = field(default_factory=this_machine)

    def __call__(self, job: Job, channel: OnReport) -> JobReturn:
        try:
            return self._whole(job, channel)
        except DiskFull:
            raise
        except Exception as error:
            if full := _full_disk(error, job):
                raise full from error
            raise

    def _whole(self, job: Job, channel: OnReport) -> JobReturn:
        os.chdir(self.cwd)  # the task before may have moved, and relative folders with it
        Singleton.set_state(self.singletons)
        setup_globals()
        BaseContainer._resolvers.update(self.resolvers)
        with running(TrialHandle(job.number, job.run_id, channel, self.machine != this_machine())) as handle:
            returned = self._run(job)
        if returned.status is not JobStatus.COMPLETED:
            log_failure(returned._return_value, handle)  # the job's log is still open
            if full := _full_disk(returned._return_value, job):
                raise full
        result_of(returned, handle, self.n_objectives).write(job_folder(job.config), job.study)
        return returned

    def _run(self, job: Job) -> JobReturn:
        try:
            return run_job(
                task_function=self.task_function,
                config=job.config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
                hydra_context=self.context,
            )
        except SystemExit as exit_:  # run_job lets it through, and it must not end the lane
            error = RuntimeError(f"the task called sys.exit({exit_.code})")
            return JobReturn(status=JobStatus.FAILED, _return_value=error)


def _full_disk(error: BaseException, job: Job) -> DiskFull | None:
    """Return what says that a disk is full, where an error came of that."""
    found = explain(error, places=(job_folder(job.config).parent,))
    return found if isinstance(found, DiskFull) else None


def log_failure(error: BaseException, handle: TrialHandle) -> None:
    """Leave the traceback of a job in its log, which Hydra 1.4 does itself; to be pruned is no failure."""
    if not HYDRA_LOGS_FAILURES and not is_pruned(error):
        handle.log_failure(error)


def result_of(returned: JobReturn, handle: TrialHandle, n_objectives: int) -> TrialResult:
    """Judge what a job returned."""
    value = returned._return_value  # the property raises what the job raised
    if returned.status is JobStatus.COMPLETED:
        return judge(value, handle, n_objectives)
    return failed(value, handle)
