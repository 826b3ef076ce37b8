"""What one training gives: the word that training, artifacts, tracking and reproduction share.

Only the record; knows nothing of how a model is trained, stored or compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from besom.errors import TrialPruned

if TYPE_CHECKING:
    import keras

    from besom.data import Dataset


@dataclass(frozen=True)
class Fit:
    """A training, ended or stopped early.

    Args:
        history: ``train_loss train_accuracy val_loss val_accuracy``, each one value per finished epoch.
        best_epoch: epoch of the objective's best value, from 0; the last one under ``objective_epoch=last``.
        objective: value of the objective metric at ``best_epoch``, as a fraction or a loss.
        fit_seconds: wall time of compiling the model and of Keras' ``fit``.
        probabilities: of the validation images, float32 of shape ``(n_val, n_classes)``, with the weights of
            ``best_epoch``; None of a training that was stopped early.
        one_image: validates one image, as validation does many; None of a training that was stopped early.
    """

    history: dict[str, list[float]]
    best_epoch: int
    objective: float
    fit_seconds: float
    probabilities: NDArray[np.float32] | None = field(default=None, compare=False)
    one_image: Callable[[], object] | None = field(default=None, compare=False)

    @classmethod
    def so_far(cls, history: Mapping[str, list[float]], objective: str, seconds: float) -> Fit | None:
        """Return the epochs that a training finished before it failed; None where no epoch is all numbers.

        Args:
            history: as above; the last epoch may be the one that went wrong.
            objective: the metric that decides which epoch is the best; the higher the better for an accuracy.
        """
        good = [epoch for epoch, row in enumerate(zip(*history.values(), strict=True)) if all(map(math.isfinite, row))]
        if not good or objective not in history:
            return None
        values = history[objective]
        best_epoch = (max if objective.endswith("accuracy") else min)(good, key=values.__getitem__)
        return cls(dict(history), best_epoch, values[best_epoch], seconds)


@dataclass(frozen=True)
class Outcome:
    """A trained model with everything that is recorded or compared.

    Args:
        model: with the weights that are kept.
        probabilities: of the validation images, float32 of shape ``(n_val, n_classes)``.
        n_params: trainable and non-trainable weights of the model.
        hashes: ``weights_sha256 history_sha256 predictions_sha256``.
        fingerprint: what the result depends on, part by part, see `besom.fingerprint`.
        latency_ms: median milliseconds of one image through the compiled validation step (forward pass, loss and
            metrics) on the threads of this process. Of this machine at that moment: in no hash, and never compared.
    """

    model: keras.Model
    fit: Fit
    dataset: Dataset
    probabilities: NDArray[np.float32]
    n_params: int
    hashes: dict[str, str]
    fingerprint: dict[str, Any]
    latency_ms: float


class PrunedFit(TrialPruned):
    """The sweep's pruner stopped a training; carries what was trained until then.

    Args:
        message: at which step, with which value.
        fit: the finished epochs.
    """

    def __init__(self, message: str, fit: Fit) -> None:
        super().__init__(message, fit)
        self.fit = fit

    def __str__(self) -> str:
        return str(self.args[0])
