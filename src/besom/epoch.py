"""One epoch as TensorFlow runs it: the two functions that Keras' ``fit`` calls for each execution.

Keras' own take a batch from a ``tf.data`` iterator at every step, inside two conditions, and are traced
accordingly. These gather their batches by number from tensors in memory: no pipeline, one loop, a third of the
tracing, the same bits. Everything else stays Keras': ``fit``, callbacks, ``train_step``, metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from besom.images import Images

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


def train_function(model: keras.Model, images: Images, order: tf.Variable, batch_size: int, steps: int) -> Step:
    """Return what trains a compiled model on ``steps`` batches.

    Args:
        order: int64, shape (n,): the order in which this epoch visits the images.
    """
    n_batches = batch_count(order.shape[0], batch_size)

    def execute(first: tf.Tensor) -> Any:
        def step(number: tf.Tensor) -> list[tf.Tensor]:
            rows = order[number * batch_size : (number + 1) * batch_size]
            model.train_step((tf.gather(images.x_train, rows), tf.gather(images.y_train, rows)))
            return [number + 1]

        last = tf.minimum(first + steps, n_batches)
        tf.while_loop(lambda number: number < last, step, [first], parallel_iterations=1)
        return model.get_metrics_result()

    traced = tf.function(execute, autograph=False)
    return lambda numbers: traced(next(numbers))


class Validation:
    """What validates a compiled model, batch by batch; it keeps the probabilities that it computed on the way.

    ``probabilities`` has shape (n, n_classes) after an epoch.
    """

    def __init__(self, model: keras.Model, images: Images) -> None:
        loss_so_far = next(metric for metric in model.metrics if metric.name == "loss")
        n_images = images.x_val.shape[0]
        self._batches: list[tf.Tensor] = []

        def execute(number: tf.Tensor) -> Any:
            start = number * FORWARD_BATCH
            x, y = images.x_val[start : start + FORWARD_BATCH], images.y_val[start : start + FORWARD_BATCH]
            probabilities = model(x, training=False)
            loss = model.compute_loss(x=x, y=y, y_pred=probabilities, training=False)
            loss_so_far.update_state(loss, sample_weight=tf.shape(x)[0])
            return model.compute_metrics(x, y, probabilities), probabilities

        self._execute = tf.function(execute, autograph=False)
        self.batches = executions(batch_count(n_images, FORWARD_BATCH), 1)

    def __call__(self, numbers: Iterator[tf.Tensor]) -> Any:
        number = next(numbers)
        logs, probabilities = self._execute(number)
        if number == 0:
            self._batches = []
        self._batches.append(probabilities)
        return logs

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """Return what the last validation gave."""
        return np.concatenate([batch.numpy() for batch in self._batches])
