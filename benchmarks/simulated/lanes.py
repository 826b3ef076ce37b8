"""Lanes that train nothing: besom's own pool of processes, with a runner that waits.

To the parent, the pruner and MLflow they are as real ones: each job crosses pickled, each report waits for its answer,
each result is a ``result.json``. Where the sweep is tracked, a lane logs into its run what a trial does, without
TensorFlow: three epochs of metrics, the last numbers and tags, one small file.
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from besom.engines.engine import Job, OnReport
from besom.engines.lane import LaneSetup
from besom.engines.lanes import LanePool
from besom.engines.launcher import PoolLauncher, job_folder
from besom.paths import Store
from besom.results import TrialResult
from besom.trial.run_logger import RunLogger

STEPS = 3
METRICS = ("accuracy", "loss", "val_accuracy", "val_loss", "learning_rate", "epoch_seconds")
NUMBERS = ("n_params", "n_macs", "fit_seconds", "latency_ms", "best_epoch", "n_val")
MLFLOW = ("mlflow", "mlflow.store.tracking.sqlalchemy_store")


def engine(n_lanes: int, seconds: float, context: HydraContext, is_tracked: bool) -> PoolLauncher:
    """Return so many lanes, whose trials take ``seconds`` each, give or take a quarter."""
    preload = ("lanes", *(MLFLOW if is_tracked else ()))
    return PoolLauncher(LanePool(n_lanes, LaneSetup(Waiting(seconds), preload, "forkserver")), context)


@dataclass(frozen=True)
class Waiting:
    """What a lane does with a job."""

    seconds: float

    def __call__(self, job: Job, channel: OnReport) -> JobReturn:
        folder, value, state = job_folder(job.config), objective(job.config), "COMPLETE"
        run = _run_of(job)
        for step in range(STEPS):
            time.sleep(self.seconds / STEPS * random.uniform(0.75, 1.25))
            if run is not None:
                run.log_epoch(step, dict.fromkeys(METRICS, value + 1 / (step + 1)))
            if channel(step, value + 1 / (step + 1)):
                state = "PRUNED"
                break
        if run is not None:
            _log_end(run, folder, value)
        values = [value] if state == "COMPLETE" else []
        TrialResult(job.number, state, values, facts={"n_params": job.number}).write(folder, job.study)
        return JobReturn(status=JobStatus.COMPLETED, _return_value=value)


def objective(config: DictConfig) -> float:
    """Return a number for a config, the same for the same one: smooth in all the numbers that are in it."""
    return sum(
        (number % 7 - 3) ** 2 for number in _numbers(OmegaConf.to_container(OmegaConf.masked_copy(config, KEYS)))
    )


KEYS = ["x", "y", "z", "model", "train"]


def _numbers(config: Any) -> list[float]:
    if isinstance(config, dict | list):
        inner = config.values() if isinstance(config, dict) else config
        return [leaf for value in inner for leaf in _numbers(value)]
    return [float(config)] if isinstance(config, int | float) and not isinstance(config, bool) else []


def _run_of(job: Job) -> RunLogger | None:
    if job.run_id is None:
        return None
    store = Store(Path(str(job.config.paths.store)))
    return RunLogger.attach(os.environ.get("MLFLOW_TRACKING_URI") or store.mlflow_uri, job.run_id, store, job.number)


def _log_end(run: RunLogger, folder: Path, value: float) -> None:
    run.log_stopped(dict.fromkeys(NUMBERS, value), {"weights_sha256": "0" * 64, "predictions_sha256": "0" * 64})
    files = folder / "artifacts"
    files.mkdir(parents=True, exist_ok=True)
    (files / "history.csv").write_text("epoch,val_accuracy\n" + "".join(f"{step},{value}\n" for step in range(STEPS)))
    run.log_folder(files)
