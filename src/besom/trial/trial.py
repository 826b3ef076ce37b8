"""One trial from config to result: data → model → fit → result.

`train_once` trains and knows of no tracking; `run` is what a lane, `besom train` and `besom reproduce`
call: it trains into an MLflow run and tells the sweep, if there is one.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from typing import Any, cast

from keras.callbacks import LambdaCallback
from omegaconf import DictConfig

from besom import data, model
from besom.configs.config import plain, typed
from besom.configs.schema import TrialConfig
from besom.errors import TrialPruned
from besom.fingerprint import fingerprint, foreign_targets, history_sha256, predictions_sha256, weights_sha256
from besom.judge import reason_of
from besom.paths import Store
from besom.provenance.origin import Origin
from besom.reporting import current_trial
from besom.signals import put_off
from besom.tracking import tracking_uri
from besom.trial import training
from besom.trial.latency import median_ms
from besom.trial.measure import sized
from besom.trial.outcome import Outcome, PrunedFit
from besom.trial.record import Record
from besom.trial.run_logger import RunLogger, opened, spool_folder
from besom.trial.system_metrics import system_metrics
from besom.withheld import be_discreet

OnEpoch = Callable[[int, Mapping[str, float]], None]
"""Takes an epoch, from 0, and its metrics: ``train_loss train_accuracy val_loss val_accuracy``."""

log = logging.getLogger(__name__)


def run(config: DictConfig | Mapping[str, Any]) -> float:
    """Train one configuration into its MLflow run and return its objective.

    Inside a sweep the run is the one that the parent made, and the parent ends it.

    Raises:
        UserError: the config, its data or its model is wrong.
        NonFinite: loss or objective became nan or inf.
        TrialPruned: the sweep wanted it to stop.
    """
    be_discreet()
    content = plain(config) if isinstance(config, DictConfig) else dict(cast(Mapping[str, Any], config))
    settings, geometry = typed(content), sized(content)
    with _logger(settings, content) as logger, _watched(settings, logger):
        origin = Origin.taken(foreign_targets(content))
        record = Record(logger, current_trial(), settings.train.objective, geometry, origin)
        outcome = None
        try:
            dataset = data.load(settings.data)
            record.dataset(dataset, _fingerprint(settings, dataset))
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
    log.info("SHA-256 of %s", ", ".join(f"{name.removesuffix('_sha256')} {sha256[:12]}…"
                                         for name, sha256 in outcome.hashes.items()))  # fmt: skip
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
    assert fit.probabilities is not None, "a training that came to its end has them"
    assert fit.one_image is not None, "a training that came to its end has it"
    hashes = {
        "weights_sha256": weights_sha256(network.get_weights()),
        "history_sha256": history_sha256(fit.history),
        "predictions_sha256": predictions_sha256(fit.probabilities),
    }
    return Outcome(
        model=network,
        fit=fit,
        dataset=dataset,
        probabilities=fit.probabilities,
        n_params=network.count_params(),
        hashes=hashes,
        fingerprint=_fingerprint(config, dataset),
        latency_ms=median_ms(fit.one_image),  # last: somebody's own layer may change its weights when it is called
    )


def _fingerprint(config: TrialConfig, dataset: data.Dataset) -> dict[str, Any]:
    return fingerprint(asdict(config), dataset.digest, dataset.split_digest, config.train.threads)


def _watched(settings: TrialConfig, logger: RunLogger) -> AbstractContextManager[None]:
    """Return what logs the system metrics of a run, if they are wanted and MLflow is there to take them."""
    is_wanted = settings.tracking.system_metrics and not logger.is_spooling
    return system_metrics(tracking_uri(settings), logger) if is_wanted else nullcontext()


@contextmanager
def _logger(settings: TrialConfig, content: Mapping[str, Any]) -> Iterator[RunLogger]:
    """Give the run that the sweep made, or make one and end it."""
    uri, handle, store = tracking_uri(settings), current_trial(), Store.at(settings.paths.store)
    if handle is not None and handle.run_id is not None:
        number = max(handle.number, 0)
        yield RunLogger.attach(uri, handle.run_id, store, number, is_elsewhere=handle.is_elsewhere)
        return
    name = time.strftime("train-%Y-%m-%d_%H-%M-%S")
    status, reason = "KILLED", None  # Ctrl-C, or pruned
    logger: RunLogger | None = None
    try:
        experiments = opened(uri, settings.tracking.experiment, store)
        with put_off():  # a run that nobody knows yet nobody would end
            logger = RunLogger.start(uri, experiments, name, store)
        logger.log_config(content)
        yield logger
        status = "FINISHED"
    except Exception as error:
        status, reason = "KILLED" if isinstance(error, TrialPruned) else "FAILED", reason_of(error)
        raise
    finally:
        if logger is not None:
            _end(logger, status, reason, store)


def _end(logger: RunLogger, status: str, reason: str | None, store: Store) -> None:
    logger.end(status, reason)
    if logger.is_spooling:
        place = spool_folder(store)
        sys.stderr.write(
            f"besom: MLflow does not answer; run {logger.run_id} waits in {place}: the next 'besom train' delivers it, "
            "or 'besom repair'\n"
        )
