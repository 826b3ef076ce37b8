"""The sweep: asks the study for points, has them run, writes down how they ended.

Reads top to bottom: `sweep` sets up, `Sweep.run` is the whole story, the rest is what a turn of its
loop does. Knows nothing of Keras, MLflow or lanes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from besom.code_watch import CodeWatch
from besom.configs.frozen import frozen_context, remembering_context
from besom.engines.engine import Engine, Job, WorkerDied
from besom.engines.launcher import job_folder, ran_in, result_of, sweep_folder
from besom.errors import DiskFull, UserError
from besom.judge import reason_of
from besom.reporting import TrialHandle
from besom.results import TrialResult
from besom.search.constraints import violations
from besom.search.pruners import build_pruner
from besom.storage import find_study, settings_of
from besom.sweep import settings as sweep_settings
from besom.sweep.engines import refuse_what_no_engine_can, start_engine
from besom.sweep.interrupt import Interrupt
from besom.sweep.jobs import Infeasible, Jobs, refuse_broken
from besom.sweep.ledger import Ledger
from besom.sweep.ownership import is_elsewhere, locked, own, refuse_folder_of_another
from besom.sweep.progress import Progress, choose_progress
from besom.sweep.settings import SweepSettings
from besom.sweep.stopping import Stopping
from besom.sweep.study import Asked, SweepStudy
from besom.targets import imported
from besom.tracker import NoTracker

TICK_SECONDS = 0.25
ABSENT_SECONDS = 10.0
"""Between two looks at the trials; from then on the parent was away itself, waiting for a server, or suspended."""


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
    folder = sweep_folder(master)
    settings = sweep_settings.read(
        raw, arguments, app=master.hydra.job.name, folder=folder, loader=context.config_loader, master=master
    )
    comparable = sweep_settings.comparable(master, raw, arguments)
    sweep_settings.check_search(settings)
    refuse_what_no_engine_can(settings, master)
    is_own = raw["tracker"] is not None
    with locked(settings, folder, is_own) as lock:
        found = find_study(settings.storage, settings.study_name)
        refuse_folder_of_another(settings.study_name, folder, found)
        if (stored := settings_of(found)) is not None:
            sweep_settings.refuse_changes(settings.study_name, stored, comparable)
        study = SweepStudy(
            settings.storage,
            settings.study_name,
            settings.search,
            comparable,
            build_pruner(settings.pruner),
            None if lock is None else lock.acquire,
        )
        tracker = imported("hydra.sweeper.tracker._target_", raw["tracker"]["_target_"])() if raw["tracker"] else None
        measure = imported("hydra.sweeper.measure", raw["measure"]) if raw["measure"] else None
        own(folder, study.id)
        home = study.home(folder) if not is_own and is_elsewhere(settings.storage, folder) else folder
        frozen = _frozen(context, home, settings.freeze, is_own)
        Sweep(
            settings,
            Jobs(master, frozen, settings, measure, is_tracked=tracker is not None),
            Ledger(study, tracker or NoTracker(), home, folder, settings),
            CodeWatch(task),
            lambda: start_engine(settings, master, frozen, task, study.id),
        ).run()


def _frozen(context: HydraContext, home: Path, freeze: bool, is_own: bool) -> HydraContext:
    """Return the context that trials are composed in; besom's own sweeps run on a copy of the files already."""
    if freeze:
        return frozen_context(context, home)
    return remembering_context(context) if is_own else context


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
        self,
        settings: SweepSettings,
        jobs: Jobs,
        ledger: Ledger,
        code: CodeWatch,
        start_engine: Callable[[], Engine],
    ) -> None:
        self.settings = settings
        self.jobs = jobs
        self.ledger = ledger
        self.study = ledger.study
        self.running: list[Running] = []
        self._code = code
        self._code_at_start = self.study.code(code.state())
        self._start_engine = start_engine
        self._seed = self.study.seed(settings.seed)
        self.study.aim_at(settings.total)
        self._stopping = Stopping(settings, self.study)
        self._started: dict[int, float] = {}  # number → when its worker took it up
        self._looked = time.monotonic()

    def run(self) -> None:
        """Open the books, run what is left, close the books."""
        finished = False
        with Interrupt() as interrupt:
            self.study.let_end(interrupt.check)
            try:
                self._run(interrupt)
                finished = True
            finally:
                # else another parent has taken it, and what is left, its runs too, is its to close; or the study's
                # server is away, and the next start closes it
                if not self.study.is_given_up:
                    self._close(finished, interrupt)
            interrupt.check()  # of one that came too late to stop anything

    def _close(self, finished: bool, interrupt: Interrupt) -> None:
        self._close_running()
        # once Ctrl-C was pressed, what is left is bounded; before, it may take long and loses nothing
        self.ledger.close(finished, lambda: interrupt.at_once(interrupt.asked is None))
        self._pass_on_news(choose_progress(self.study, self.settings.total))

    def _run(self, interrupt: Interrupt) -> None:
        self._stopping.check_failures("in an earlier start")
        if not self._has_work():
            self._open(interrupt)
            choose_progress(self.study, self.settings.total).said(self._why_no_more() or "nothing is left to do")
            return
        with interrupt.at_once(True):  # nothing runs yet, and lanes may take seconds to be there
            engine = self._start_engine()
        with closing(engine):
            self._open(interrupt)
            self._loop(engine, interrupt)

    def _open(self, interrupt: Interrupt) -> None:
        # what waits goes on waiting where its delivery is stopped
        self.ledger.open(self.jobs.content(self.jobs.master), lambda: interrupt.at_once(True))

    def _close_running(self) -> None:
        """Write down what was stopped in flight: done where it had just ended, else to be tried again."""
        for trial in self.running:
            result = self._result_in(trial.folder, trial.asked.number)
            if result is not None:
                self.ledger.finish(result, trial.run_id)
            else:
                self.ledger.lose(trial.asked.number, trial.run_id, "interrupted", "the sweep was interrupted")

    def _has_work(self) -> bool:
        return self._why_no_more() is None or bool(self.study.left_running())

    def _why_no_more(self) -> str | None:
        """Return why no further trial is to be started, None while one is."""
        if reason := self._stopping.reason():
            return reason
        if not self.study.is_used_up or self.study.to_retry():
            return None
        size = self.settings.search.size
        return f"all {size} points of the search space were tried" if size else "no new point of the space is found"

    def _loop(self, engine: Engine, interrupt: Interrupt) -> None:
        with choose_progress(self.study, self.settings.total) as progress:
            self._fill(engine, progress, interrupt)
            while self.running:
                with interrupt.at_once(engine.blocks):
                    engine.wait(TICK_SECONDS)
                interrupt.check()
                self._stop_late(engine, progress)
                for trial in [trial for trial in self.running if trial.future.done()]:
                    self.running.remove(trial)
                    self._settle(trial, engine, progress)
                self._fill(engine, progress, interrupt)
                progress.tick()
            progress.said(self._why_no_more() or "nothing is left to do")

    def _fill(self, engine: Engine, progress: Progress, interrupt: Interrupt) -> None:
        """Start trials until every lane has one or there is none to start; many may end without a lane."""
        at_once = min(engine.capacity, self.settings.n_jobs or engine.capacity)
        while len(self.running) < at_once and (asked := self._next()) is not None:
            self._start(asked, engine, progress)
            interrupt.check()

    def _next(self) -> Asked | None:
        if self._stopping.reason() is not None:
            return None
        if lost := self.study.to_retry():
            return self.study.retry(lost[0], self._seed)
        for place, point in enumerate(self.settings.enqueue):
            if asked := self.study.take(place, point, self._seed):
                return asked
        return self.study.ask(self._seed)

    def _start(self, asked: Asked, engine: Engine, progress: Progress) -> None:
        """Compose and check a trial, make its run, hand it to a worker; or end it here and now."""
        self._tell_changed_code(progress)
        run_id = None
        if asked.error is not None:
            self._end(TrialResult(asked.number, "FAIL", reason=asked.error), None, progress)
            return
        try:
            job = self.jobs.compose(asked)
            content = self.jobs.content(job.config)
            run_id = self.ledger.start(asked, content)
            self._pass_on_news(progress)
            measures = self.jobs.measures(content)
            decidable = self.jobs.decidable(measures)
            self.study.constrain(asked.number, violations(decidable, measures))
            refuse_broken(decidable, measures)
        except Infeasible as error:
            self._end(TrialResult(asked.number, "PRUNED", reason=str(error)), run_id, progress, why="infeasible")
        except UserError as error:
            self._end(TrialResult(asked.number, "FAIL", reason=str(error)), run_id, progress)
        else:
            self._submit(asked, replace(job, run_id=run_id, study=self.study.id), engine, progress)

    def _pass_on_news(self, progress: Progress) -> None:
        """Say what the tracker has to say, and show how many runs it could not pass on."""
        for line in self.ledger.news():
            progress.said(line)
        progress.waits(self.ledger.undelivered)

    def _tell_changed_code(self, progress: Progress) -> None:
        changed = self._code.changed_files(self._code_at_start)
        if changed:
            progress.said(
                f"code changed since the sweep was started: {', '.join(changed)}; its trials are not of one program"
            )
            self._code_at_start = {**self._code_at_start, **self._code.state()}  # say it once

    def _submit(self, asked: Asked, job: Job, engine: Engine, progress: Progress) -> None:
        def on_report(step: int, value: float) -> bool:
            progress.reported(asked.number, step, value)
            return self.study.report(asked.number, step, value)

        folder = job_folder(job.config)
        self.ledger.note_folder(asked.number, folder)
        self.running.append(Running(asked, folder, job.run_id, engine.submit(job, on_report)))
        progress.started(asked)

    def _stop_late(self, engine: Engine, progress: Progress) -> None:
        """Stop trials that run for longer than ``trial_timeout``; waiting for worker or parent does not count."""
        limit, now = self.settings.trial_timeout, time.monotonic()
        if limit is None:
            return
        if (absent := now - self._looked) > ABSENT_SECONDS:  # trials may have waited for an answer all the while
            self._started = {number: started + absent for number, started in self._started.items()}
        self._looked = now
        for trial in [trial for trial in self.running if trial.future.running()]:
            number = trial.asked.number
            if now - self._started.setdefault(number, now) > limit:
                self.running.remove(trial)
                engine.cancel([trial.future])
                late = TrialResult(number, "FAIL", reason=f"longer than hydra.sweeper.trial_timeout={limit:g} seconds")
                self._end(self._result_in(trial.folder, number) or late, trial.run_id, progress)

    def _settle(self, trial: Running, engine: Engine, progress: Progress) -> None:
        """Write down how a trial ended; ``result.json`` counts, whatever became of its worker."""
        number = trial.asked.number
        if engine.blocks and self.settings.pruner:  # without one, samplers have no use for reports
            self.study.hear(number)
        result = self._result_in(trial.folder, number)
        error = trial.future.exception()
        if result is None and error is None:  # the launcher may have its own idea of hydra.job.id, and so of the folder
            result = self._result_in(ran_in(trial.future.result()) or trial.folder, number)
        if result is not None:
            self._end(result, trial.run_id, progress)
        elif isinstance(error, WorkerDied):
            why = "lane_died" if error.alone else "batch_lost"  # of a batch nobody knows whose fault it was
            again = self.ledger.lose(number, trial.run_id, why, str(error))
            progress.lost(number, f"{error}; " + ("its point is tried again" if again else "given up"))
            if not again:
                self._stopping.check_failures(str(error))
        elif isinstance(error, DiskFull):  # each further trial would fail too, and none of them by itself
            self.ledger.lose(number, trial.run_id, "interrupted", str(error))
            raise error
        elif error is not None:
            self._end(TrialResult(number, "FAIL", reason=reason_of(error)), trial.run_id, progress)
        else:
            handle = TrialHandle(number, trial.run_id, lambda step, value: False)
            n_objectives = len(self.settings.search.directions)
            self._end(result_of(trial.future.result(), handle, n_objectives), trial.run_id, progress)

    def _end(self, result: TrialResult, run_id: str | None, progress: Progress, why: str | None = None) -> None:
        result = self.ledger.finish(result, run_id, why)
        self._pass_on_news(progress)
        progress.ended(result)
        if result.state == "FAIL":
            self._stopping.check_failures(result.reason)

    def _result_in(self, folder: Path, number: int) -> TrialResult | None:
        return TrialResult.read(folder, number, self.study.id)
