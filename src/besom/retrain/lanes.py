"""Trains configurations that came out of a store in lanes, each into a run that exists.

Knows nothing of why they are trained again, and of what is compared afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

from besom.engines.engine import OnReport
from besom.engines.lane import LaneSetup, Runner
from besom.engines.lanes import LanePool
from besom.errors import BesomError, one_line
from besom.judge import failed, judge
from besom.paths import OUTSIDE_SWEEPS, Store
from besom.reporting import TrialHandle, running
from besom.results import TrialResult
from besom.seeding import fix_runtime
from besom.spool.client import RunWriter
from besom.spool.deliver import deliver
from besom.spool.operations import End
from besom.temporary import temporary_folder
from besom.tracking import STATUS, fix_environment, milliseconds


@dataclass(frozen=True)
class Training:
    """One configuration and the run that it is trained into.

    Args:
        content: the plain config, already found to be trustworthy; ``paths.store`` is this machine's.
        uri: MLflow's, where the run is.
        run_id: a RUNNING run, which the caller ends.
        stop_at: the epoch, from 0, after whose report the trial is told to stop, as a pruner would; None: never.
    """

    content: Mapping[str, Any]
    uri: str
    run_id: str
    stop_at: int | None = None


def train_all(
    trainings: Iterable[Training], *, n_lanes: int, threads: int, fresh: bool, onednn: bool = True
) -> Iterator[tuple[int, TrialResult]]:
    """Yield the place and the result of each training as it ends, FAIL and PRUNED included.

    MLflow has all of its run then, so that what it logged can be compared.

    Args:
        trainings: each is taken when a lane is free, so that a generator may make its run then.
        n_lanes: how many are trained at the same time; no more than there are.
        threads: of TensorFlow, in each lane.
        fresh: a new process for each training, else the lanes stay warm.
        onednn: see `besom.seeding.runtime_environment`.

    Raises:
        BesomError: MLflow does not take what a training logged; it waits on disk, with its end.
    """
    fix_runtime(threads, onednn=onednn)
    begun: list[Training] = []

    def jobs() -> Iterator[tuple[Training, OnReport]]:
        for training in trainings:
            begun.append(training)
            yield training, _stopper(training.stop_at)

    for place, future in in_lanes(train_here, jobs(), n_lanes=n_lanes, fresh=fresh):
        result = _result(future)
        pass_on(begun[place], result)
        yield place, result


def pass_on(training: Training, result: TrialResult) -> None:
    """Tell MLflow what waits of a training that has ended, since it did not answer meanwhile.

    Raises:
        BesomError: it still waits; its end is added, so that whoever delivers it later has it whole.
    """
    store = Store.at(training.content["paths"]["store"])
    folder = store.spool(OUTSIDE_SWEEPS)
    found = deliver(store, OUTSIDE_SWEEPS, training.uri, lambda run_ids: None, run_id=training.run_id)
    if not found.left:
        return
    writer = RunWriter(training.uri, store, folder, training.run_id, is_away=True)
    tags = {"state": result.state, **({"reason": result.reason} if result.reason else {})}
    writer.write(End(STATUS[result.state], milliseconds(), tags))
    raise BesomError(
        f"MLflow was not told all of run {training.run_id} ({found.reason}): it waits in {folder}; 'besom repair' "
        "delivers it once MLflow answers, then give this command again"
    )


def in_lanes(
    runner: Runner, jobs: Iterable[tuple[Any, OnReport]], *, n_lanes: int, fresh: bool
) -> Iterator[tuple[int, Future[Any]]]:
    """Yield the place and the future of each job as it ends, in the environment that `fix_runtime` has fixed.

    Args:
        runner: what a lane calls with a job and a channel.
        jobs: each with what answers its reports; taken when a lane is free.
    """
    fix_environment()
    waiting: dict[int, Future[Any]] = {}
    with temporary_folder() as log:  # what TensorFlow says at its start belongs to no result
        setup = LaneSetup(runner, log_folder=log, jobs_per_lane=int(fresh))
        with closing(LanePool(n_lanes, setup)) as lanes:
            ahead = enumerate(jobs)
            while True:
                for place, (job, on_report) in islice(ahead, n_lanes - len(waiting)):
                    waiting[place] = lanes.submit(job, on_report)
                if not waiting:
                    return
                lanes.wait(1.0)
                for place in [place for place, future in waiting.items() if future.done()]:
                    yield place, waiting.pop(place)


def never(step: int, value: float) -> bool:
    """Answer a report: go on."""
    return False


def _stopper(stop_at: int | None) -> Callable[[int, float], bool]:
    return lambda step, value: stop_at is not None and step >= stop_at


def _result(future: Future[Any]) -> TrialResult:
    if error := future.exception():  # the lane died, or besom itself failed in it
        return TrialResult(-1, "FAIL", reason=one_line(error))
    result: TrialResult = future.result()
    return result


def train_here(training: Training, channel: OnReport) -> TrialResult:
    """Train one configuration in this process."""
    os.environ["MLFLOW_TRACKING_URI"] = training.uri
    content = {**training.content, "tracking": {**training.content.get("tracking", {}), "uri": None}}
    from besom.trial.trial import run

    with running(TrialHandle(-1, training.run_id, channel)) as handle:
        try:
            return judge(run(content), handle)
        except Exception as error:  # the trial's own end, as in a sweep
            return failed(error, handle)
