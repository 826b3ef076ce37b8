"""What the arithmetic of one training step costs alone: each of TensorFlow's kernels, timed by itself.

This is the floor under any training loop on TensorFlow: no images are fetched, no metric is kept, nothing is
scheduled. Where Keras computes something in several kernels and TensorFlow has one for it (the optimizer, the loss),
the floor counts the one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from besom.configs.schema import CnnConfig

Body = Callable[[], list[Any]]
"""Calls one kernel, or the few that belong together, and returns what they gave."""
WARM_UP_STEPS = 20


def seconds_a_step(config: CnnConfig, image: tuple[int, int, int], n_classes: int, batch: int, steps: int) -> float:
    """Return the CPU seconds of all kernels of one step of an RMSprop training.

    Args:
        config: plain convolutions without padding or stride, then one dense layer; relu, swish or tanh.
        image: height, width and channels.
        steps: how often each kernel runs, in a loop inside TensorFlow.
    """
    return sum(_cost(body, steps) for body in _Step(config, image, n_classes, batch).kernels())


def _cost(body: Body, steps: int) -> float:
    """Return the CPU seconds of one call of a body, the loop around it taken off."""
    loop, empty = _loop(body), _loop(list)
    for run in (loop, empty):
        run(tf.constant(WARM_UP_STEPS))
    return (_clock(loop, steps) - _clock(empty, steps)) / steps


def _loop(body: Body) -> Callable[[tf.Tensor], Any]:
    """Return what runs a body so often; each result is kept in a variable, or TensorFlow would leave its kernel out."""
    kept = [tf.Variable(item) for item in _tensors(body)]

    def step(number: tf.Tensor) -> list[tf.Tensor]:
        for variable, item in zip(kept, _tensors(body), strict=True):
            variable.assign(item)
        return [number + 1]

    return tf.function(
        lambda steps: tf.while_loop(lambda number: number < steps, step, [0], parallel_iterations=1), autograph=False
    )


def _tensors(body: Body) -> list[tf.Tensor]:
    """Return what a kernel gave; an update of a variable gives nothing."""
    return [item for item in body() if isinstance(item, tf.Tensor)]


def _clock(run: Callable[[tf.Tensor], Any], steps: int) -> float:
    start = time.process_time()
    run(tf.constant(steps))
    return time.process_time() - start


@dataclass
class _Step:
    """The kernels of one step; their inputs are variables, so that nothing is computed ahead of the loop."""

    config: CnnConfig
    image: tuple[int, int, int]
    n_classes: int
    batch: int
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def kernels(self) -> Iterator[Body]:
        """Yield every kernel, forward and backward."""
        height, width, channels = self.image
        for index, block in enumerate(self.config.layers):
            size = int(block.kernel_size)
            shape = (self.batch, height, width, channels)
            height, width = height - size + 1, width - size + 1
            out = (self.batch, height, width, block.filters)
            yield from self._convolution(shape, (size, size, channels, block.filters), out, is_first=index == 0)
            yield from self._activation(out)
            channels = block.filters
        units = height * width * channels
        yield from self._dense(units, self.config.dense)
        yield from self._activation((self.batch, self.config.dense))
        yield from self._dense(self.config.dense, self.n_classes)
        logits, labels = self._tensor((self.batch, self.n_classes)), self._tensor((self.batch, self.n_classes))
        yield lambda: [tf.nn.softmax(logits)]
        yield lambda: list(tf.raw_ops.SoftmaxCrossEntropyWithLogits(features=logits, labels=labels))

    def _convolution(self, shape: Any, filters: Any, out: Any, *, is_first: bool) -> Iterator[Body]:
        x, weights, gradient = self._tensor(shape), self._tensor(filters), self._tensor(out)
        strides = [1, 1, 1, 1]
        yield lambda: [tf.nn.conv2d(x, weights, 1, "VALID")]
        yield lambda: [
            tf.raw_ops.Conv2DBackpropFilter(
                input=x, filter_sizes=filters, out_backprop=gradient, strides=strides, padding="VALID"
            )
        ]
        if not is_first:  # nobody asks for the gradient of an image
            yield lambda: [
                tf.raw_ops.Conv2DBackpropInput(
                    input_sizes=shape, filter=weights, out_backprop=gradient, strides=strides, padding="VALID"
                )
            ]
        yield from self._bias(out)
        yield self._update(filters)

    def _dense(self, inputs: int, units: int) -> Iterator[Body]:
        x, weights, gradient = (
            self._tensor(shape) for shape in ((self.batch, inputs), (inputs, units), (self.batch, units))
        )
        yield lambda: [tf.matmul(x, weights)]
        yield lambda: [tf.matmul(x, gradient, transpose_a=True)]
        yield lambda: [tf.matmul(gradient, weights, transpose_b=True)]
        yield from self._bias((self.batch, units))
        yield self._update((inputs, units))

    def _bias(self, out: Any) -> Iterator[Body]:
        value, bias = self._tensor(out), self._tensor(out[-1:])
        yield lambda: [tf.nn.bias_add(value, bias)]
        yield lambda: [tf.raw_ops.BiasAddGrad(out_backprop=value)]
        yield self._update(out[-1:])

    def _activation(self, shape: Any) -> Iterator[Body]:
        x, gradient = self._tensor(shape), self._tensor(shape)
        if self.config.activation == "relu":
            yield lambda: [tf.nn.relu(x)]
            yield lambda: [tf.raw_ops.ReluGrad(gradients=gradient, features=x)]
        elif self.config.activation == "tanh":
            yield lambda: [tf.tanh(x)]
            yield lambda: [tf.raw_ops.TanhGrad(y=x, dy=gradient)]
        elif self.config.activation == "swish":
            yield lambda: [x * tf.sigmoid(x)]

            def backward() -> list[tf.Tensor]:
                gate = tf.sigmoid(x)
                return [gradient * (gate * (1.0 + x * (1.0 - gate)))]

            yield backward
        else:
            raise ValueError(f"no kernels are listed for {self.config.activation!r}")

    def _update(self, shape: Any) -> Body:
        variables = [tf.Variable(self.rng.random(shape, dtype=np.float32)) for _ in range(3)]
        gradient = self._tensor(shape)

        def body() -> list[Any]:
            return [
                tf.raw_ops.ResourceApplyRMSProp(
                    var=variables[0].handle, ms=variables[1].handle, mom=variables[2].handle, lr=1e-3, rho=0.9,
                    momentum=0.0, epsilon=1e-7, grad=gradient,
                )
            ]  # fmt: skip

        return body

    def _tensor(self, shape: Any) -> tf.Variable:
        return tf.Variable(self.rng.random(shape, dtype=np.float32), trainable=False)
