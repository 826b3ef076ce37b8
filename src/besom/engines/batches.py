"""Any Hydra launcher as an engine: its jobs run in batches, and a batch is run to its end.

Two halves: `BatchEngine` in the parent, and `SweptTask`, which the launcher runs in the place of the app's task and
which leaves ``result.json`` behind. Knows nothing of how the launcher runs its jobs.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import cloudpickle
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.basecontainer import BaseContainer

from besom.cores import usable_cores
from besom.engines.engine import Job, OnReport, WorkerDied
from besom.engines.launcher import job_folder, log_failure, resolvers
from besom.engines.storage_reporter import StorageReporter
from besom.errors import ConfigError
from besom.judge import failed, judge, reason_of
from besom.machine import this_machine
from besom.reporting import TrialHandle, running
from besom.results import TrialResult

BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
PLAIN = (bool, int, float, str, type(None))


def capacity_of(launcher: DictConfig, n_jobs: int | None) -> int:
    """Return how many jobs make a batch: ``n_jobs``, else what the launcher runs at the same time.

    Args:
        launcher: the fields of ``hydra.launcher``.
        n_jobs: the sweep's own setting, None where it has none.
    """
    if n_jobs is not None:
        return n_jobs
    if launcher.get("_target_") == BASIC:
        return 1
    own = OmegaConf.select(launcher, "n_jobs")
    return own if isinstance(own, int) and own > 0 else usable_cores()


@dataclass(eq=False)
class SweptTask:
    """An app's task as a foreign launcher runs it: judged, its ``result.json`` left in the job's folder, last.

    It crosses to other processes by plain pickle too, whatever the task is. It has no ``__name__`` on purpose:
    joblib's multiprocessing backend would look for a function of that name instead.

    Args:
        task_function: the app's task.
        storage: the URL of the study that reports go to.
        study_name: the study.
        pruner: the fields of ``hydra.sweeper.pruner``.
        n_objectives: how many numbers the task returns.
        study: the study's id, which goes into ``result.json``.
        run_ids: the runs that the parent made for the jobs of the next batch, by job number.
        machine: the parent's.
    """

    task_function: TaskFunction
    storage: str
    study_name: str
    pruner: Mapping[str, Any]
    n_objectives: int = 1
    study: str = ""
    run_ids: dict[int, str | None] = field(default_factory=dict)
    machine: str = field(default_factory=this_machine)

    def __call__(self, config: DictConfig) -> Any:
        """Run the task; return what it returns, or raise what it raises, in a form that any process can read."""
        hydra = HydraConfig.get()
        number, folder = int(str(hydra.job.num)), Path(str(hydra.runtime.output_dir))
        channel = partial(self._reporter, number)
        with running(TrialHandle(number, self.run_ids.get(number), channel, self._is_elsewhere)) as handle:
            try:
                value = self.task_function(config)
            except (Exception, SystemExit) as error:
                log_failure(error, handle)
                portable = _portable_error(error)
                failed(portable, handle).write(folder, self.study)
                raise portable from (None if portable is error else error)
        result = judge(value, handle, self.n_objectives)
        result.write(folder, self.study)
        return _portable_value(value, result)

    @cached_property
    def _reporter(self) -> StorageReporter:
        return StorageReporter(self.storage, self.study_name, self.pruner, is_elsewhere=self._is_elsewhere)

    @property
    def _is_elsewhere(self) -> bool:
        return self.machine != this_machine()

    @property
    def __wrapped__(self) -> TaskFunction:
        return self.task_function

    def __getstate__(self) -> dict[str, Any]:
        state = {key: value for key, value in self.__dict__.items() if key != "_reporter"}
        return {**state, "task_function": cloudpickle.dumps(self.task_function)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, task_function=cloudpickle.loads(state["task_function"]))


def _portable_error(error: BaseException) -> BaseException:
    """Return an exception that another process can read: one that it cannot would take the whole batch with it."""
    if isinstance(error, SystemExit):  # it would end the launcher, or its worker
        return RuntimeError(f"the task called sys.exit({error.code})")
    try:
        cloudpickle.loads(cloudpickle.dumps(error))
    except Exception:
        return RuntimeError(reason_of(error))
    return error


def _portable_value(value: Any, result: TrialResult) -> Any:
    """Return a return that another process can read; of others, what was judged."""
    if isinstance(value, PLAIN) or (type(value) in (list, tuple) and all(isinstance(item, PLAIN) for item in value)):
        return value
    try:
        cloudpickle.loads(cloudpickle.dumps(value))
    except Exception as error:
        if result.state != "COMPLETE":
            raise TypeError(f"{result.reason}; nor can it be pickled: {reason_of(error)}") from error
        return result.values if result.value is None else result.value
    return value


class BatchEngine:
    """An `besom.engines.engine.Engine` of a Hydra launcher.

    Args:
        launcher: any; it is set up here.
        task: what it is to run.
        context: Hydra's; jobs are composed by its loader.
        master: the config of the multirun.
        capacity: how many jobs make a batch (`capacity_of`).
    """

    blocks = True

    def __init__(
        self, launcher: Launcher, task: SweptTask, context: HydraContext, master: DictConfig, capacity: int
    ) -> None:
        self._launcher = launcher
        self._task = task
        self._composed = ComposedJobs(context.config_loader)
        self._capacity = capacity
        self._queue: dict[Future[JobReturn], Job] = {}
        self._n_suspects = 0
        self._has_begun = False
        loader = cast(ConfigLoader, self._composed)
        launcher.setup(hydra_context=replace(context, config_loader=loader), task_function=task, config=master)

    @property
    def capacity(self) -> int:
        """How many jobs make the next batch: one at a time after a loss, for of a lost batch nobody knows which to
        blame, and a point that kills its worker must not take others with it again."""
        return 1 if self._n_suspects else self._capacity

    def submit(self, job: Job, on_report: OnReport) -> Future[JobReturn]:
        """Queue a job for the next batch; ``on_report`` is not called, the job reports through the storage."""
        future: Future[JobReturn] = Future()
        self._queue[future] = job
        return future

    def wait(self, timeout: float) -> None:
        """Run all that is queued to its end, however long that takes."""
        while self._queue:
            self._launch(_next_batch(self._queue))

    def cancel(self, jobs: Collection[Future[JobReturn]]) -> None:
        """Take queued jobs back; at other times there are none."""
        for future in [future for future in self._queue if future in jobs]:
            del self._queue[future]
            future.cancel()

    def close(self) -> None:
        """Take back what is queued; there are no workers between batches."""
        self.cancel(list(self._queue))

    def _launch(self, batch: Mapping[Future[JobReturn], Job]) -> None:
        jobs = list(batch.values())
        self._task.run_ids = {job.number: job.run_id for job in jobs}
        self._composed.jobs = {tuple(job.overrides): job.config for job in jobs}
        for future in batch:
            del self._queue[future]
            future.set_running_or_notify_cancel()
        try:
            returns = self._launcher.launch([list(job.overrides) for job in jobs], initial_job_idx=jobs[0].number)
        except Exception as error:
            self._give_up(batch, error)
        else:
            self._n_suspects = max(0, self._n_suspects - len(jobs))
            for future, returned in zip(batch, returns, strict=True):
                future.set_result(returned)
        self._has_begun = True

    def _give_up(self, batch: Mapping[Future[JobReturn], Job], error: Exception) -> None:
        """Tell all of a failed batch that their worker died; some may have left a whole result before.

        Raises:
            ConfigError: no job has ever begun, so that it is the launcher that cannot work.
        """
        folders = [job_folder(job.config) for job in batch.values()]
        whole = [TrialResult.read(job_folder(job.config), job.number, job.study) for job in batch.values()]
        reason = textwrap.shorten(reason_of(error), 500, placeholder="…")
        if not self._has_begun and not any(folder.exists() for folder in folders):
            raise ConfigError(f"the launcher cannot run a trial: {reason}; expected one that does") from error
        if len(batch) > 1:
            self._n_suspects = whole.count(None)
        else:
            self._n_suspects = max(0, self._n_suspects - 1)
        for future in batch:
            future.set_exception(WorkerDied(f"the launcher failed: {reason}", alone=len(batch) == 1))


def _next_batch(queue: Mapping[Future[JobReturn], Job]) -> dict[Future[JobReturn], Job]:
    """Return the first run of jobs whose numbers follow one another, which is how a launcher numbers them."""
    ordered = sorted(queue.items(), key=lambda item: item[1].number)
    first = ordered[0][1].number
    return {future: job for offset, (future, job) in enumerate(ordered) if job.number == first + offset}


class ComposedJobs:
    """Hydra's config loader, but that jobs which were composed before are not composed again, which costs 20 ms each.

    A launcher in this process gets them; to other processes crosses the loader that is behind it.

    Args:
        loader: the real one.
    """

    def __init__(self, loader: ConfigLoader) -> None:
        self._loader = loader
        self.jobs: dict[tuple[str, ...], DictConfig] = {}

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: Sequence[str]) -> DictConfig:
        """Return the config of a job, each composed one once."""
        known = self.jobs.pop(tuple(sweep_overrides), None)
        return self._loader.load_sweep_config(master_config, list(sweep_overrides)) if known is None else known

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self._loader, cloudpickle.dumps(resolvers()))


def _itself(loader: ConfigLoader, known: bytes) -> ConfigLoader:
    """Return the loader, in a process that is to know the resolvers of the one that it is from."""
    BaseContainer._resolvers.update(cloudpickle.loads(known))
    return loader
