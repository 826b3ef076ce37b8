"""Keras' own ``fit``, made to give the same bits in any process of one kind of CPU, and fast on one thread.

What runs inside an epoch is `besom.trial.epoch`; the order of its images is drawn by `besom.seeding`. Knows nothing of
configs beyond ``train``, of tracking or of sweeps, but that a value may be reported and answered with "stop".
"""

from __future__ import annotations

import gc
import json
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.framework.ops import gradient_registry
from tensorflow.python.util._pywrap_util_port import IsMklEnabled  # nothing public says whether oneDNN is in use

from besom.configs.schema import TrainConfig
from besom.data import Dataset
from besom.errors import ConfigError, NonFinite, TrialPruned
from besom.provenance.environment import GPU_NAMES
from besom.reporting import report
from besom.seeding import GPUS, ONEDNN_SWITCH, epoch_order, runtime_environment
from besom.trial.epoch import Validation, batch_count, executions, predict, train_function
from besom.trial.images import Images, images_of
from besom.trial.outcome import Fit, PrunedFit

METRICS = {
    "train_loss": "loss",
    "train_accuracy": "accuracy",
    "val_loss": "val_loss",
    "val_accuracy": "val_accuracy",
}
"""besom's name of a metric → Keras' own."""

_threads: int | None = None


def prepare_process(threads: int) -> None:
    """Fix once, for this whole process, what the bits of every training in it depend on.

    Args:
        threads: of TensorFlow, the same for all trainings of one process.

    Raises:
        ConfigError: the process already trains with another number of threads, or was not started
            with the environment of `besom.seeding.runtime_environment`.
    """
    global _threads
    if _threads is None:
        _check_environment(threads)
        with suppress(RuntimeError):  # the thread pools exist already: made by the variables just checked
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        _use_gpus()
        tf.config.experimental.enable_op_determinism()
        keras.config.set_floatx("float32")  # whatever the user's keras.json says
        keras.config.set_epsilon(1e-7)
        keras.config.set_image_data_format("channels_last")
        # the remapper fuses operations according to where in a graph they stand, so that the same
        # step gives other bits for steps_per_execution=1, and `predict` other ones than `model(x)`
        tf.config.optimizer.set_experimental_options({"remapping": False})
        # every trial traces its functions anew, on purpose; TensorFlow warns of that each time
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        # what is there now is there for good: searching it for garbage after every trial takes 0.2 s
        gc.collect()
        gc.freeze()
        _threads = threads
    elif threads != _threads:
        raise ConfigError(
            f"train.threads={threads} cannot be used here: this process trains with {_threads}; "
            f"expected train.threads={_threads}, or a process of its own"
        )


def _use_gpus() -> None:
    """Take memory of the GPUs of this lane as it is needed, and name them for the fingerprint; most lanes have none."""
    found = tf.config.list_physical_devices("GPU") if os.environ.get(GPUS) else []
    for gpu in found:
        with suppress(RuntimeError):  # somebody has used it in this process
            tf.config.experimental.set_memory_growth(gpu, True)
    names = [str(tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)) for gpu in found]
    os.environ[GPU_NAMES] = json.dumps(names)


def _check_environment(threads: int) -> None:
    """Raise `ConfigError` where the environment is not that of a training process, or came too late to be one."""
    mend = f"call besom.seeding.fix_runtime({threads}) before TensorFlow is imported"
    onednn = os.environ.get(ONEDNN_SWITCH) != "0"  # a reproduction may do without
    for name, value in runtime_environment(threads, onednn=onednn).items():
        if os.environ.get(name) != value:
            raise ConfigError(f"{name}={os.environ.get(name)!r} in this process; expected {value!r}: {mend}")
    if IsMklEnabled() != onednn:
        is_, wanted = ("without", "with") if onednn else ("with", "without")
        raise ConfigError(f"TensorFlow of this process runs {is_} oneDNN; expected {wanted} it: {mend}")


def start_trial(train: TrainConfig) -> None:
    """Make this process as good as fresh; call before the model is built.

    Raises:
        ConfigError: see `prepare_process`.
    """
    prepare_process(train.threads)
    _forget_gradients()
    keras.backend.clear_session(free_memory=True)
    keras.utils.set_random_seed(train.seed)


def _forget_gradients() -> None:
    """Drop what `tf.custom_gradient` (swish has one) registered in earlier trials.

    TensorFlow never does, and each entry holds the whole graph of its trial, 4 MB.
    """
    gradients = gradient_registry._registry
    for name in [name for name in gradients if name.startswith("CustomGradient-")]:
        del gradients[name]


def fit(model: keras.Model, dataset: Dataset, train: TrainConfig, callbacks: Sequence[Any] = ()) -> Fit:
    """Train a model in place; it keeps the weights of the epoch that ``train.objective_epoch`` names.

    The objective of each epoch is reported to the sweep, if there is one.

    Args:
        model: as `besom.model.build` gives it, after `start_trial`.
        callbacks: Keras callbacks; they see an epoch before it is reported. What they are told as a batch is one
            execution, of ``train.steps_per_execution`` batches.

    Raises:
        NonFinite: loss or objective became nan or inf.
        PrunedFit: the sweep wants this trial to stop. Every callback has seen the end of training by then.
    """
    started = time.perf_counter()
    images = images_of(dataset)
    order = tf.Variable(tf.zeros(len(dataset.x_train), tf.int64), trainable=False)
    _compile(model, images, train)
    validation = Validation(model, images)
    keeper, watch = _Keeper(train, validation), _Watch(train)
    steps = train.steps_per_execution
    model.train_function = train_function(model, images, order, train.batch_size, steps, train.fold)
    model.test_function = validation
    try:
        epochs = model.fit(
            executions(batch_count(len(dataset.x_train), train.batch_size), steps),
            validation_data=validation.batches,
            epochs=train.epochs,
            callbacks=[_Shuffle(order, train.seed), *callbacks, keeper, watch],
            shuffle=False,  # the order does it
            verbose=0,
        )
    finally:  # who evaluates or fits the model later gets Keras' own
        model.train_function = model.test_function = None
    seconds = time.perf_counter() - started
    if watch.non_finite is not None:
        raise watch.non_finite
    result = _result(named(epochs.history), keeper, train, seconds)
    if watch.pruned is not None:
        raise PrunedFit(str(watch.pruned), replace(result, probabilities=None)) from watch.pruned
    if result.probabilities is None:
        result = replace(result, probabilities=predict(model, images.x_val))
    return replace(result, one_image=validation.one_image)


def named(logs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what Keras logged under besom's names of metrics; other entries are left out."""
    return {name: logs[keras_name] for name, keras_name in METRICS.items() if keras_name in logs}


def _compile(model: keras.Model, images: Images, train: TrainConfig) -> None:
    optimizer = {"class_name": train.optimizer, "config": {"learning_rate": train.learning_rate}}
    model.compile(
        optimizer=keras.optimizers.deserialize(optimizer),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    # variables that are only made while the training step is traced make TensorFlow trace it twice
    model.optimizer.build(model.trainable_variables)
    model.compute_metrics(images.x_train[:1], images.y_train[:1], images.y_train[:1])


def _result(history: dict[str, list[float]], keeper: _Keeper, train: TrainConfig, seconds: float) -> Fit:
    values = history[train.objective]
    best_epoch = keeper.best_epoch if train.objective_epoch == "best" else len(values) - 1
    return Fit(history, best_epoch, values[best_epoch], seconds, keeper.probabilities)


class _Keeper(keras.callbacks.EarlyStopping):  # type: ignore[misc]  # Keras is untyped
    """Remembers the best epoch, gives its weights back at the end and stops when no better one comes.

    ``probabilities`` are what the validation of the epoch gave whose weights are kept.
    """

    def __init__(self, train: TrainConfig, validation: Validation) -> None:
        super().__init__(
            monitor=METRICS[train.objective],
            mode="max" if train.objective.endswith("accuracy") else "min",
            patience=train.early_stopping or train.epochs,
            restore_best_weights=train.objective_epoch == "best",
        )
        self.probabilities: NDArray[np.float32] | None = None
        self._validation = validation

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_end(epoch, logs)
        if self.best_epoch == epoch or not self.restore_best_weights:
            self.probabilities = self._validation.probabilities


class _Shuffle(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped
    """Sets the order of the images before each epoch."""

    def __init__(self, order: tf.Variable, seed: int) -> None:
        super().__init__()
        self._order = order
        self._seed = seed

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._order.assign(epoch_order(self._seed, epoch, self._order.shape[0]))


class _Watch(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped
    """Stops ``fit`` the regular way, so that no other callback misses the end, and remembers why."""

    def __init__(self, train: TrainConfig) -> None:
        super().__init__()
        self.non_finite: NonFinite | None = None
        self.pruned: TrialPruned | None = None
        self._train = train
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float]) -> None:
        self._check(logs)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        self._check(logs)
        if self.non_finite is None:
            try:
                report(epoch, logs[METRICS[self._train.objective]])
            except TrialPruned as pruned:
                self.pruned = pruned
                self.model.stop_training = True

    def _check(self, logs: Mapping[str, float]) -> None:
        wrong = {name: value for name, value in named(logs).items() if not math.isfinite(value)}
        if wrong and self.non_finite is None:
            name, value = next(iter(wrong.items()))
            self.non_finite = NonFinite(
                f"{name} became {value} in epoch {self._epoch}, counted from 0; expected a finite number: "
                f"try a train.learning_rate below {self._train.learning_rate:g}, or data.rescale=unit"
            )
            self.model.stop_training = True
