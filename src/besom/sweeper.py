"""The sweep: asks the study for points, has them run, writes down how they ended.

Reads top to bottom: `sweep` sets up, `Sweep.run` is the whole story, the rest is what a turn of its
loop does. Knows nothing of Keras, MLflow or lanes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from besom import settings as sweep_settings
from besom.config import plain
from besom.engine import Engine, Job, WorkerDied
from besom.errors import ConfigError, GeometryError, SweepStopped, UserError
from besom.interrupt import Interrupt
from besom.launcher import compose_job, job_folder, result_of
from besom.ledger import Ledger
from besom.lock import parent_lock
from besom.progress import Progress, choose_progress
from besom.reporting import TrialHandle
from besom.results import TrialResult
from besom.settings import SweepSettings
from besom.study import Asked, SweepStudy
from besom.tracker import NoTracker

TICK_SECONDS = 0.25

Measure = Callable[[Mapping[str, Any]], Mapping[str, float]]
"""Gives the numbers that constraints are about, from a trial's config, before it is trained."""


def sweep(
    raw: Mapping[str, Any], master: DictConfig, context: HydraContext, task: TaskFunction, arguments: Sequence[str]
) -> None:
    """Run a sweep to its end, or take it up where it was left.

    Args:
        raw: the fields of ``hydra.sweeper``.
        master: the composed config of the multirun, with its ``hydra`` node.
        arguments: the task's overrides, those that sweep included.

    Raises:
        UserError: the settings are wrong, or differ from those the sweep was started with.
        SweepStopped: more trials failed than ``max_failure_rate`` allows.
        KeyboardInterrupt: Ctrl-C; what ran is closed, the sweep can be resumed.
    """
    settings = sweep_settings.read(raw, arguments)
    comparable = sweep_settings.comparable(master, raw, arguments)
    folder = Path(os.path.abspath(str(master.hydra.sweep.dir)))
    with parent_lock(folder / "parent.lock", settings.study_name):
        study = SweepStudy(
            settings.storage or f"sqlite:///{folder / 'study.db'}",
            settings.study_name,
            settings.direction,
            comparable,
            sweep_settings.build_pruner(settings.pruner),
        )
        sweep_settings.refuse_changes(settings.study_name, study.settings, comparable)
        tracker = instantiate(raw["tracker"]) if raw["tracker"] else NoTracker()
        Sweep(
            settings,
            Trials(master, context, settings, get_method(raw["measure"]) if raw["measure"] else None),
            Ledger(study, tracker, folder, settings.retries),
            lambda: _start_engine(master, context, task),
        ).run()


def _start_engine(master: DictConfig, context: HydraContext, task: TaskFunction) -> Engine:
    launcher = Plugins.instance().instantiate_launcher(context, task, master)
    if not hasattr(launcher, "engine"):
        choice = master.hydra.runtime.choices.get("hydra/launcher")
        raise ConfigError(f"hydra/launcher={choice} runs only batches; expected hydra/launcher=besom_lanes")
    engine: Engine = launcher.engine()
    return engine


class Infeasible(Exception):
    """A point that is not to be trained: a constraint is broken, or a layer does not fit."""


@dataclass(frozen=True)
class Trials:
    """Turns a point into a composed, checked config."""

    master: DictConfig
    context: HydraContext
    settings: SweepSettings
    measure: Measure | None

    def compose(self, asked: Asked) -> DictConfig:
        """Return the trial's config with its ``hydra`` node.

        Raises:
            UserError: the point cannot be composed.
        """
        overrides = [*self.settings.fixed, *self.settings.space.overrides(asked.point)]
        try:
            return compose_job(self.context, self.master, overrides, asked.number)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(f"{type(error).__name__}: {error}") from error

    def check(self, config: Mapping[str, Any]) -> None:
        """Raise `Infeasible` where a constraint is broken."""
        if self.measure is None:
            return
        try:
            numbers = self.measure(config)
        except GeometryError as error:
            raise Infeasible(str(error)) from error
        for constraint in self.settings.constraints:
            if broken := constraint.broken_by(numbers):
                raise Infeasible(broken)


@dataclass(frozen=True)
class Running:
    """A trial on its way."""

    asked: Asked
    folder: Path
    run_id: str | None
    future: Future[JobReturn]


class Sweep:
    """One start of a sweep, from what is left to do until nothing is."""

    def __init__(
        self, settings: SweepSettings, trials: Trials, ledger: Ledger, start_engine: Callable[[], Engine]
    ) -> None:
        self.settings = settings
        self.trials = trials
        self.ledger = ledger
        self.study = ledger.study
        self.running: list[Running] = []
        self._start_engine = start_engine
        self._seed = self.study.seed(settings.seed)
        self.study.aim_at(settings.total)
        self._deadline = float("inf")

    def run(self) -> None:
        """Open the books, run what is left, close the books."""
        finished = False
        try:
            with Interrupt() as interrupt:
                if self._has_work():
                    with closing(self._start_engine()) as engine:  # lanes warm up while the tracker opens
                        self.ledger.open(plain(self.trials.master))
                        self._loop(engine, interrupt)
                else:
                    self.ledger.open(plain(self.trials.master))
            finished = True
        finally:
            self._close_running()
            self.ledger.close(finished)

    def _close_running(self) -> None:
        """Write down what was stopped in flight: done where it had just ended, else to be tried again."""
        for trial in self.running:
            result = TrialResult.read(trial.folder)
            if result is not None:
                self.ledger.finish(result, trial.run_id)
            else:
                self.ledger.lose(trial.asked.number, trial.run_id, "interrupted", "the sweep was interrupted")

    def _has_work(self) -> bool:
        total = self.settings.total
        return total is None or self.study.counts.counted < total or bool(self.study.left_running())

    def _loop(self, engine: Engine, interrupt: Interrupt) -> None:
        if self.settings.timeout is not None:
            self._deadline = time.monotonic() + self.settings.timeout
        with choose_progress(self.study, self.settings.total) as progress:
            self._fill(engine, progress, interrupt)
            while self.running:
                engine.wait(TICK_SECONDS)
                interrupt.check()
                for trial in [trial for trial in self.running if trial.future.done()]:
                    self.running.remove(trial)
                    self._settle(trial, progress)
                self._fill(engine, progress, interrupt)
                progress.tick()

    def _fill(self, engine: Engine, progress: Progress, interrupt: Interrupt) -> None:
        """Start trials until every lane has one or there is none to start; many may end without a lane."""
        at_once = min(engine.capacity, self.settings.n_jobs or engine.capacity)
        while len(self.running) < at_once and (asked := self._next()) is not None:
            self._start(asked, engine, progress)
            interrupt.check()

    def _next(self) -> Asked | None:
        counts, total = self.study.counts, self.settings.total
        if time.monotonic() > self._deadline or (total is not None and counts.counted + counts.running >= total):
            return None
        if lost := self.study.to_retry():
            return self.study.retry(self.settings.space, lost[0])
        for point in self.settings.enqueue:
            if asked := self.study.take(self.settings.space, point):
                return asked
        return self.study.ask(self.settings.space, self.settings.sampler, self._seed)

    def _start(self, asked: Asked, engine: Engine, progress: Progress) -> None:
        """Compose and check a trial, make its run, hand it to a lane; or end it here and now."""
        run_id = None
        try:
            config = self.trials.compose(asked)
            content = plain(config)
            run_id = self.ledger.start(asked, content)
            self.trials.check(content)
        except Infeasible as error:
            self._end(TrialResult(asked.number, "PRUNED", reason=str(error)), run_id, progress, why="infeasible")
        except UserError as error:
            self._end(TrialResult(asked.number, "FAIL", reason=str(error)), run_id, progress)
        else:
            self._submit(asked, config, run_id, engine, progress)

    def _submit(self, asked: Asked, config: DictConfig, run_id: str | None, engine: Engine, progress: Progress) -> None:
        def on_report(step: int, value: float) -> bool:
            progress.reported(asked.number, step, value)
            return self.study.report(asked.number, step, value)

        folder = job_folder(config)
        self.ledger.note_folder(asked.number, folder)
        future = engine.submit(Job(asked.number, config, run_id), on_report)
        self.running.append(Running(asked, folder, run_id, future))
        progress.started(asked)

    def _settle(self, trial: Running, progress: Progress) -> None:
        """Write down how a trial ended; ``result.json`` counts, whatever became of its lane."""
        number = trial.asked.number
        result = TrialResult.read(trial.folder)
        error = trial.future.exception()
        if result is not None:
            self._end(result, trial.run_id, progress)
        elif isinstance(error, WorkerDied):
            again = self.ledger.lose(number, trial.run_id, "lane_died", str(error))
            progress.lost(number, f"{error}; " + ("its point is tried again" if again else "given up"))
        elif error is not None:
            reason = str(error).strip().splitlines()[-1]
            self._end(TrialResult(number, "FAIL", reason=reason), trial.run_id, progress)
        else:
            handle = TrialHandle(number, trial.run_id, lambda step, value: False)
            self._end(result_of(trial.future.result(), handle), trial.run_id, progress)

    def _end(self, result: TrialResult, run_id: str | None, progress: Progress, why: str | None = None) -> None:
        self.ledger.finish(result, run_id, why)
        progress.ended(result)
        counts = self.study.counts
        if counts.failure_rate > self.settings.max_failure_rate:
            raise SweepStopped(
                f"{counts.failed} of {counts.counted} trials failed, more than hydra.sweeper.max_failure_rate="
                f"{self.settings.max_failure_rate} allows; the last: {result.reason}"
            )
