"""One epoch as TensorFlow runs it: the two functions that Keras' ``fit`` calls for each execution.

Keras' own take a batch from a ``tf.data`` iterator at every step, inside two conditions, and are traced
accordingly. These gather their batches by number from tensors in memory: no pipeline, one loop, half of the
tracing, the same bits. Everything else stays Keras': ``fit``, callbacks, metrics, a model's own ``train_step`` and
``test_step``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from besom.trial.folding import folding
from besom.trial.images import Images

FORWARD_BATCH = 1000
"""Images in one batch of validation and prediction."""

Step = Callable[[Iterator[tf.Tensor]], Any]
"""What Keras calls with an iterator over the numbers of first batches; returns the metrics so far."""


def executions(n_batches: int, steps: int) -> tf.data.Dataset:
    """Return the numbers of the first batch of each execution."""
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    options.threading.private_threadpool_size = 1
    return tf.data.Dataset.range(0, n_batches, steps).with_options(options)


def batch_count(n_images: int, batch_size: int) -> int:
    """Return how many batches an epoch has, the last one with what is left."""
    return -(-n_images // batch_size)


def train_function(
    model: keras.Model, images: Images, order: tf.Variable, batch_size: int, steps: int, fold: bool
) -> Step:
    """Return what trains a compiled model on ``steps`` batches.

    Args:
        order: int64, shape (n,): the order in which this epoch visits the images.
        fold: whether convolutions of few channels are computed folded, see `besom.trial.folding`.
    """
    n_batches = batch_count(order.shape[0], batch_size)

    def execute(first: tf.Tensor) -> Any:
        def step(number: tf.Tensor) -> list[tf.Tensor]:
            rows = order[number * batch_size : (number + 1) * batch_size]
            with folding(model) if fold else nullcontext():
                model.train_step((tf.gather(images.x_train, rows), tf.gather(images.y_train, rows)))
            return [number + 1]

        last = tf.minimum(first + steps, n_batches)
        tf.while_loop(lambda number: number < last, step, [first], parallel_iterations=1)
        return model.get_metrics_result()

    traced = tf.function(execute, autograph=False)
    return lambda numbers: traced(next(numbers))


def predict(model: keras.Model, x: tf.Tensor) -> NDArray[np.float32]:
    """Return the class probabilities of images, shape (n, n_classes): the same bits as ``model.predict``.

    It traces no function, which for one pass is most of the time that ``model.predict`` takes.
    """
    batches = [x[start : start + FORWARD_BATCH] for start in range(0, x.shape[0], FORWARD_BATCH)]
    return np.concatenate([np.asarray(model(batch, training=False)) for batch in batches])


class Validation:
    """What validates a compiled model, batch by batch; it keeps the probabilities that it computed on the way.

    ``probabilities`` has shape (n, n_classes) after an epoch; None for a model with a ``test_step`` of its own, which
    gives none.
    """

    def __init__(self, model: keras.Model, images: Images) -> None:
        self._model, self._images = model, images
        self._batches: list[tf.Tensor] = []
        self._size = tf.constant(FORWARD_BATCH, tf.int64)
        self._is_keras = _is_keras_own(type(model))
        self._execute = tf.function(self._keras_step if self._is_keras else self._own_step, autograph=False)
        self.batches = executions(batch_count(images.x_val.shape[0], FORWARD_BATCH), 1)

    def _keras_step(self, number: tf.Tensor, size: tf.Tensor) -> Any:
        """Do what Keras' ``test_step`` does."""
        model, (x, y) = self._model, self._batch(number, size)
        probabilities = model(x, training=False)
        loss = model.compute_loss(x=x, y=y, y_pred=probabilities, training=False)
        model._loss_tracker.update_state(loss, sample_weight=tf.shape(x)[0])
        return model.compute_metrics(x, y, probabilities), probabilities

    def _own_step(self, number: tf.Tensor, size: tf.Tensor) -> Any:
        return self._model.test_step(self._batch(number, size)), None

    def _batch(self, number: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows = slice(number * size, (number + 1) * size)
        return self._images.x_val[rows], self._images.y_val[rows]

    def __call__(self, numbers: Iterator[tf.Tensor]) -> Any:
        number = next(numbers)
        logs, probabilities = self._execute(number, self._size)
        if number == 0:
            self._batches = []
        self._batches.append(probabilities)
        return logs

    def one_image(self) -> None:
        """Validate the first image alone, by the function that is traced already: it counts in no validation."""
        self._execute(tf.constant(0, tf.int64), tf.constant(1, tf.int64))

    @property
    def probabilities(self) -> NDArray[np.float32] | None:
        """Return what the last validation gave."""
        if not self._is_keras:
            return None
        return np.concatenate([batch.numpy() for batch in self._batches])


def _is_keras_own(kind: type[keras.Model]) -> bool:
    return kind.test_step is keras.Model.test_step
