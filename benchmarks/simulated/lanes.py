"""Lanes that train nothing: the parent's side of them, and the one process in which they all wait.

To the parent they are as real lanes are: each job crosses pickled whole, each report crosses and waits for its answer,
each result is a ``result.json``. Where the sweep is tracked, a lane logs into its run what a trial logs, without
TensorFlow: params are the parent's matter; three epochs of metrics, the last numbers and tags, one small file.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import random
import time
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import cloudpickle
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from besom.engines.engine import Job, OnReport
from besom.engines.launcher import job_folder
from besom.results import TrialResult

STEPS = 3
Message = tuple[Any, ...]


class SimulatedEngine:
    """An `besom.engines.engine.Engine` of lanes that wait ``seconds`` for each job, give or take a quarter."""

    blocks = False

    def __init__(self, n_lanes: int, seconds: float) -> None:
        self.capacity = n_lanes
        self._seconds = seconds
        self._work: dict[int, tuple[Future[JobReturn], OnReport]] = {}
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, n_lanes), daemon=True)
        self._process.start()
        theirs.close()

    def submit(self, job: Job, on_report: OnReport) -> Future[JobReturn]:
        """Send a job to a lane."""
        future: Future[JobReturn] = Future()
        future.set_running_or_notify_cancel()
        self._work[job.number] = (future, on_report)
        tracked = (
            None if job.run_id is None else (str(job.config.tracking.uri or ""), str(job.config.paths.store), job.run_id)
        )
        value = _value(OmegaConf.to_container(job.config, resolve=False))
        self._connection.send((job.number, str(job_folder(job.config)), job.study, value, self._seconds, tracked))
        self._connection.send_bytes(cloudpickle.dumps(job))  # as it goes to a real lane; nobody here reads it
        return future

    def wait(self, timeout: float) -> None:
        """Serve what has come."""
        ready = wait([self._connection, self._process.sentinel], timeout)
        if self._process.sentinel in ready:
            raise RuntimeError("the process of the simulated lanes has died")
        while self._connection.poll():
            number, *report = self._connection.recv()
            future, on_report = self._work[number]
            if report:
                self._connection.send((number, on_report(*report)))
                continue
            del self._work[number]
            future.set_result(JobReturn(status=JobStatus.COMPLETED, _return_value=0.0))

    def cancel(self, jobs: Collection[Future[JobReturn]]) -> None:
        """Refuse: nothing here runs for too long."""
        raise NotImplementedError

    def close(self) -> None:
        """End the lanes."""
        self._process.kill()
        self._process.join()
        self._connection.close()


def _value(config: Any) -> float:
    """Return the objective of a config: of its numbers, smooth in each, the same for the same config."""
    numbers = [float(one) for one in _leaves({key: one for key, one in config.items() if key != "hydra"})]
    return sum((number % 7 - 3) ** 2 for number in numbers)


def _leaves(config: Any) -> list[float]:
    if isinstance(config, dict):
        return [leaf for value in config.values() for leaf in _leaves(value)]
    if isinstance(config, list):
        return [leaf for value in config for leaf in _leaves(value)]
    return [config] if isinstance(config, int | float) and not isinstance(config, bool) else []


def serve(connection: Connection, n_lanes: int) -> None:
    """Run jobs as they come, so many at a time, until the parent is gone; a process of its own."""
    answers: dict[int, queue.SimpleQueue[bool]] = {}
    outgoing: queue.SimpleQueue[Message] = queue.SimpleQueue()
    with ThreadPoolExecutor(n_lanes + 1) as lanes:
        lanes.submit(_send, connection, outgoing)
        while True:
            try:
                message = connection.recv()
                if len(message) == 2:
                    answers[message[0]].put(message[1])
                    continue
                connection.recv_bytes()
            except (EOFError, OSError):
                os._exit(0)
            answers[message[0]] = queue.SimpleQueue()
            lanes.submit(_run, message, answers, outgoing)


def _send(connection: Connection, outgoing: queue.SimpleQueue[Message]) -> None:
    while True:
        connection.send(outgoing.get())


def _run(message: Message, answers: dict[int, queue.SimpleQueue[bool]], outgoing: queue.SimpleQueue[Message]) -> None:
    number, folder, study, value, seconds, tracked = message
    try:
        logged = _logger(tracked, number)
        state = "COMPLETE"
        for step in range(STEPS):
            time.sleep(seconds / STEPS * random.uniform(0.75, 1.25))
            if logged is not None:
                logged.log_epoch(step, {name: value + 1 / (step + 1) for name in METRICS})
            outgoing.put((number, step, value + 1 / (step + 1)))
            if answers[number].get():
                state = "PRUNED"
                break
        if logged is not None:
            _log_end(logged, Path(folder), value)
        values = [value] if state == "COMPLETE" else []
        TrialResult(number, state, values, facts={"n_params": number}).write(Path(folder), study)
    except BaseException as error:
        TrialResult(number, "FAIL", reason=repr(error)).write(Path(folder), study)
    del answers[number]
    outgoing.put((number,))


METRICS = ("accuracy", "loss", "val_accuracy", "val_loss", "learning_rate", "epoch_seconds")


def _logger(tracked: tuple[str, str, str] | None, number: int) -> Any:
    if tracked is None:
        return None
    from besom.paths import Store
    from besom.trial.run_logger import RunLogger

    uri, store, run_id = tracked
    return RunLogger.attach(uri or f"sqlite:///{store}/mlflow.db", run_id, Store(Path(store)), number)


def _log_end(logged: Any, folder: Path, value: float) -> None:
    numbers = ("n_params", "n_macs", "fit_seconds", "latency_ms", "best_epoch", "n_val")
    logged.log_stopped({name: value for name in numbers}, {"weights_sha256": "0" * 64, "predictions_sha256": "0" * 64})
    files = folder / "artifacts"
    files.mkdir(parents=True, exist_ok=True)
    (files / "history.csv").write_text("epoch,val_accuracy\n" + "".join(f"{step},{value}\n" for step in range(STEPS)))
    logged.log_folder(files)
