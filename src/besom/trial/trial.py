"""One trial from config to result: data → model → fit → result.

`train_once` trains and knows of no tracking; `run` is what a lane, `besom train` and `besom reproduce`
call: it trains into an MLflow run and tells the sweep, if there is one.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from keras.callbacks import LambdaCallback
from omegaconf import DictConfig

from besom import data, model
from besom.configs.config import plain, typed
from besom.configs.schema import TrialConfig
from besom.errors import TrialPruned
from besom.fingerprint import fingerprint, history_sha256, predictions_sha256, weights_sha256
from besom.geometry import Geometry
from besom.reporting import TrialHandle, current_trial
from besom.tracking import as_text, tracking_uri
from besom.trial import artifacts, training
from besom.trial.measure import sized
from besom.trial.outcome import Fit, Outcome, PrunedFit
from besom.trial.run_logger import RunLogger

OnEpoch = Callable[[int, Mapping[str, float]], None]
"""Takes an epoch, from 0, and its metrics: ``train_loss train_accuracy val_loss val_accuracy``."""

LOG_FILE = "trial.log"

log = logging.getLogger(__name__)


def run(config: DictConfig | Mapping[str, Any]) -> float:
    """Train one configuration into its MLflow run and return its objective.

    Inside a sweep the run is the one that the parent made, and the parent ends it.

    Raises:
        UserError: the config, its data or its model is wrong.
        NonFinite: loss or objective became nan or inf.
        TrialPruned: the sweep wanted it to stop.
    """
    content = plain(config) if isinstance(config, DictConfig) else dict(cast(Mapping[str, Any], config))
    settings, geometry = typed(content), sized(content)
    with _logger(settings, content) as logger:
        record = _Record(logger, current_trial(), geometry)
        outcome = None
        try:
            record.dataset(data.load(settings.data))
            outcome = train_once(settings, record.epoch)
            record.outcome(outcome)
        except PrunedFit as pruned:
            record.pruned(pruned.fit)
            raise TrialPruned(str(pruned)) from None  # the sweep's process needs no arrays
        except Exception as error:
            record.failure(error)
            raise
        finally:
            record.files(content, outcome)
    fit = outcome.fit
    log.info("%s %.4f at epoch %d, %s parameters, run %s", settings.train.objective, fit.objective, fit.best_epoch,
             f"{outcome.n_params:,}", logger.run_id)  # fmt: skip
    return fit.objective


def train_once(config: TrialConfig, on_epoch: OnEpoch) -> Outcome:
    """Train one configuration in this process, without tracking.

    Args:
        on_epoch: called at the end of each epoch, before its objective is reported to the sweep.

    Raises:
        UserError: the config, its data or its model is wrong.
        NonFinite: loss or objective became nan or inf.
        PrunedFit: the sweep wants it to stop.
    """
    dataset = data.load(config.data)
    training.start_trial(config.train)  # after the data: a loader may draw random numbers when it first reads
    network = model.build(config.model, dataset.input_shape, dataset.n_classes)
    listener = LambdaCallback(on_epoch_end=lambda epoch, logs: on_epoch(epoch, training.named(logs)))
    fit = training.fit(network, dataset, config.train, [listener])
    probabilities = fit.probabilities
    assert probabilities is not None, "a training that came to its end has them"
    return Outcome(
        model=network,
        fit=fit,
        dataset=dataset,
        probabilities=probabilities,
        n_params=network.count_params(),
        hashes={
            "weights_sha256": weights_sha256(network.get_weights()),
            "history_sha256": history_sha256(fit.history),
            "predictions_sha256": predictions_sha256(probabilities),
        },
        fingerprint=fingerprint(asdict(config), dataset.digest, dataset.split_digest, config.train.threads),
    )


@contextmanager
def _logger(settings: TrialConfig, content: Mapping[str, Any]) -> Iterator[RunLogger]:
    """Give the run that the sweep made, or make one and end it."""
    uri, handle = tracking_uri(settings), current_trial()
    if handle is not None and handle.run_id is not None:
        yield RunLogger.attach(uri, handle.run_id)
        return
    name = time.strftime("train-%Y-%m-%d_%H-%M-%S")
    logger = RunLogger.start(uri, settings.tracking.experiment, name, content)
    status = "KILLED"  # Ctrl-C, or pruned
    try:
        yield logger
        status = "FINISHED"
    except Exception as error:
        status = "KILLED" if isinstance(error, TrialPruned) else "FAILED"
        raise
    finally:
        logger.end(status)


class _Record:
    """Tells MLflow and, where there is one, the sweep the same things.

    Args:
        geometry: None for a user's own model builder.
    """

    def __init__(self, logger: RunLogger, handle: TrialHandle | None, geometry: Geometry | None) -> None:
        self._logger = logger
        self._handle = handle
        self._tell: Callable[..., None] = handle.tell if handle is not None else lambda **facts: None
        self._geometry = geometry

    def dataset(self, dataset: data.Dataset) -> None:
        self._logger.log_dataset(dataset)
        self._tell(n_val=len(dataset.x_val), **self._size())

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        log.info("epoch %d: %s", epoch, "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
        self._logger.log_epoch(epoch, metrics)

    def pruned(self, fit: Fit) -> None:
        """Record a training that was stopped by the sweep."""
        numbers = _numbers(fit)
        self._logger.log_metrics({**numbers, **self._size()})
        self._tell(**numbers)

    def outcome(self, outcome: Outcome) -> None:
        """Record a training that came to its end."""
        numbers = _numbers(outcome.fit)
        metrics = {**numbers, **self._size(), "objective": outcome.fit.objective, "n_params": outcome.n_params}
        parts = {f"fingerprint.{part}": as_text(value) for part, value in outcome.fingerprint.items()}
        self._logger.log_model(outcome.model, outcome.dataset, metrics, {**outcome.hashes, **parts})
        self._tell(**numbers, n_params=outcome.n_params, **outcome.hashes)

    def failure(self, error: Exception) -> None:
        """Leave the traceback in the trial's log; outside a sweep the command shows the error itself."""
        if self._handle is not None:
            self._handle.log_failure(error)

    def files(self, content: Mapping[str, Any], outcome: Outcome | None) -> None:
        with TemporaryDirectory() as name:
            folder = Path(name)
            artifacts.write(folder, config=content, outcome=outcome, geometry=self._geometry)
            if HydraConfig.initialized() and (file := Path(HydraConfig.get().runtime.output_dir, LOG_FILE)).is_file():
                shutil.copy(file, folder / LOG_FILE)
            self._logger.log_folder(folder)

    def _size(self) -> dict[str, int]:
        geometry = self._geometry
        return {} if geometry is None else {"n_params": geometry.n_params, "n_macs": geometry.n_macs}


def _numbers(fit: Fit) -> dict[str, float]:
    return {"best_epoch": fit.best_epoch, "fit_seconds": fit.fit_seconds}
