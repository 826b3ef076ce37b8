"""What becomes of a trial while it runs and at its end, told to MLflow and, where there is one, to the sweep.

A trial that is pruned or fails leaves what it got to: its size, what its result would depend on, its epochs. Knows
nothing of how a model is trained.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from besom.data import Dataset
from besom.geometry import Geometry
from besom.provenance.origin import Origin
from besom.reporting import TrialHandle
from besom.temporary import temporary_folder
from besom.tracking import as_text
from besom.trial import artifacts
from besom.trial.convolutions import Opened, opened
from besom.trial.outcome import Fit, Outcome
from besom.trial.run_logger import RunLogger

LOG_FILE = "trial.log"

log = logging.getLogger(__name__)


class Record:
    """Tells MLflow and, where there is one, the sweep the same things.

    Args:
        handle: None outside a sweep.
        objective: the metric that decides which epoch is the best.
        geometry: None for a user's own model builder.
        origin: the code and packages that it runs with.
    """

    def __init__(
        self, logger: RunLogger, handle: TrialHandle | None, objective: str, geometry: Geometry | None, origin: Origin
    ) -> None:
        self._logger = logger
        self._handle = handle
        self._tell: Callable[..., None] = handle.tell if handle is not None else lambda **facts: None
        self._objective = objective
        self._geometry = geometry
        self._origin = origin
        self._started = time.perf_counter()
        self._history: dict[str, list[float]] = {}
        self._fit: Fit | None = None
        self._fingerprint: Mapping[str, Any] = {}

    def dataset(self, dataset: Dataset, fingerprint: Mapping[str, Any]) -> None:
        """Record what is trained on, and what the result will depend on; training starts now."""
        self._fingerprint = fingerprint
        self._logger.log_dataset(dataset)
        self._tell(n_val=len(dataset.x_val), **self._size())
        self._started = time.perf_counter()

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        log.info("epoch %d: %s", epoch, "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
        for name, value in metrics.items():
            self._history.setdefault(name, []).append(value)
        # the objective first: MLflow's page of compared runs opens with the first metric that they have
        self._logger.log_epoch(epoch, {self._objective: metrics[self._objective], **metrics})

    def pruned(self, fit: Fit) -> None:
        """Record a training that was stopped by the sweep."""
        self._stopped(fit)

    def failure(self, error: Exception) -> None:
        """Leave the traceback in the trial's log (outside a sweep the command shows the error itself), and what
        there is of the training.
        """
        if self._handle is not None:
            self._handle.log_failure(error)
        self._stopped(self._so_far())

    def _stopped(self, fit: Fit | None) -> None:
        self._fit = fit
        numbers = _numbers(fit) if fit is not None else {}
        self._logger.log_stopped({**numbers, **self._size()}, _tags(self._fingerprint))
        self._tell(**numbers)

    def outcome(self, outcome: Outcome) -> None:
        """Record a training that came to its end."""
        self._fit = outcome.fit
        numbers = {**_numbers(outcome.fit), "latency_ms": outcome.latency_ms}
        metrics = {**numbers, **self._size(), "objective": outcome.fit.objective, "n_params": outcome.n_params}
        tags = {**outcome.hashes, **_tags(outcome.fingerprint)}
        self._logger.log_model(outcome.model, outcome.dataset, metrics, tags)
        self._tell(**numbers, n_params=outcome.n_params, **outcome.hashes)

    def files(self, content: Mapping[str, Any], outcome: Outcome | None) -> None:
        """Record the files that people look at, the last thing of a trial.

        Args:
            content: the frozen config.
        """
        with temporary_folder() as folder:
            artifacts.write(
                folder,
                config=content,
                geometry=self._geometry,
                origin=self._origin,
                fit=self._fit or self._so_far(),
                fingerprint=self._fingerprint,
                outcome=outcome,
                opened=_opened(outcome) if outcome is not None else None,
            )
            if HydraConfig.initialized() and (file := Path(HydraConfig.get().runtime.output_dir, LOG_FILE)).is_file():
                shutil.copy(file, folder / LOG_FILE)
            self._logger.log_folder(folder)

    def _so_far(self) -> Fit | None:
        return Fit.so_far(self._history, self._objective, time.perf_counter() - self._started)

    def _size(self) -> dict[str, int]:
        geometry = self._geometry
        return {} if geometry is None else {"n_params": geometry.n_params, "n_macs": geometry.n_macs}


def _opened(outcome: Outcome) -> Opened | None:
    """Return what the model makes of the first validation image."""
    dataset, predicted = outcome.dataset, int(outcome.probabilities[0].argmax())
    return opened(outcome.model, dataset.x_val[0], int(dataset.y_val[0]), predicted)


def _numbers(fit: Fit) -> dict[str, float]:
    return {"best_epoch": fit.best_epoch, "fit_seconds": fit.fit_seconds}


def _tags(fingerprint: Mapping[str, Any]) -> dict[str, str]:
    """Return a fingerprint as tags; its list of files is in ``fingerprint.json`` alone."""
    return {f"fingerprint.{part}": as_text(value) for part, value in fingerprint.items() if part != "sources"}
