"""Convolutions of few channels, folded: the same sums in two thirds of the time.

oneDNN computes 8 channels at a time, whether there are 8 or 3. Here each 2x2 block of pixels becomes one pixel of four
times as many channels, and the filters are laid out accordingly, zeros in between: fewer, fuller operations. What
comes out differs from Keras' own by the order in which a sum is rounded. For the training step only: validation and
prediction run Keras' layers as they are, and so does whoever loads the model. (Not where a user's layer has a
`tf.function` of its own around a convolution: it keeps what was traced first.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

CHANNELS, MOST_PRODUCT, SMALLEST_KERNEL = range(3, 7), 36, 3
"""Folding is faster for so many input channels, input channels times filters, and pixels a side of a filter.

As far as benchmarks/folding.py measured.
"""

BLOCK = 2
"""Pixels a side of what becomes one."""


@contextmanager
def folding(model: keras.Model) -> Iterator[None]:
    """Have a model's convolutions of few channels computed folded, in what is traced inside."""
    folded: list[keras.layers.Conv2D] = []
    try:
        for layer in filter(is_worth_folding, model._flatten_layers()):
            layer.call = _folded_call(layer)
            folded.append(layer)
        yield
    finally:
        for layer in folded:
            del layer.call


def is_worth_folding(layer: Any) -> bool:
    """Tell whether a layer is a plain Keras convolution of so few channels that folding it saves time."""
    if type(layer) is not keras.layers.Conv2D or not layer.built or "call" in vars(layer):
        return False
    is_plain = (
        layer.strides == (1, 1)
        and layer.dilation_rate == (1, 1)
        and layer.groups == 1
        and layer.data_format == "channels_last"
        and layer.compute_dtype == "float32"
    )
    height, width, channels, filters = layer._kernel.shape  # `kernel` would compute one, where it has LoRA
    is_small = channels in CHANNELS and channels * filters <= MOST_PRODUCT and min(height, width) >= SMALLEST_KERNEL
    return is_plain and is_small


def _folded_call(layer: keras.layers.Conv2D) -> Callable[[tf.Tensor], tf.Tensor]:
    def call(inputs: tf.Tensor) -> tf.Tensor:
        if None in inputs.shape[1:]:
            return type(layer).call(layer, inputs)
        bias = tf.convert_to_tensor(layer.bias) if layer.use_bias else None
        outputs = convolution(inputs, tf.convert_to_tensor(layer.kernel), bias, layer.padding)
        return outputs if layer.activation is None else layer.activation(outputs)

    return call


def convolution(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None, padding: str) -> tf.Tensor:
    """Return a convolution with stride 1, computed folded.

    Args:
        x: float32, shape (n, height, width, channels); only n may be unknown.
        kernel: shape (k, l, channels, filters).
        bias: shape (filters,), None for none.
        padding: ``valid`` or ``same``.
    """
    height, width, k, l = x.shape[1], x.shape[2], kernel.shape[0], kernel.shape[1]  # noqa: E741
    before = ((k - 1) // 2, (l - 1) // 2) if padding == "same" else (0, 0)
    out = (height, width) if padding == "same" else (height - k + 1, width - l + 1)
    blocks = (_blocks(out[0]), _blocks(out[1]))
    needed = [BLOCK * (count + _blocks(size + 1) - 1) for count, size in zip(blocks, (k, l), strict=True)]
    after = (needed[0] - height - before[0], needed[1] - width - before[1])
    if any((*before, *after)):
        x = tf.pad(x, [[0, 0], [before[0], after[0]], [before[1], after[1]], [0, 0]])
    y = tf.nn.conv2d(_fold(x), _folded_kernel(kernel), 1, "VALID")
    if bias is not None:
        y = tf.nn.bias_add(y, tf.tile(bias, [BLOCK * BLOCK]))
    y = _unfold(y)
    return y if y.shape[1:3] == out else y[:, : out[0], : out[1]]


def _blocks(size: int) -> int:
    """Return how many blocks cover so many pixels."""
    return -(-size // BLOCK)


def _fold(x: tf.Tensor) -> tf.Tensor:
    """Turn (n, 2h, 2w, c) into (n, h, w, 4c)."""
    height, width, channels = x.shape[1] // BLOCK, x.shape[2] // BLOCK, x.shape[3]
    rows = tf.reshape(x, [-1, height, BLOCK, width, BLOCK * channels])
    return tf.reshape(tf.transpose(rows, [0, 1, 3, 2, 4]), [-1, height, width, BLOCK * BLOCK * channels])


def _unfold(y: tf.Tensor) -> tf.Tensor:
    """Turn (n, h, w, 4c) into (n, 2h, 2w, c)."""
    height, width, channels = y.shape[1], y.shape[2], y.shape[3] // (BLOCK * BLOCK)
    rows = tf.reshape(y, [-1, height, width, BLOCK, BLOCK * channels])
    return tf.reshape(tf.transpose(rows, [0, 1, 3, 2, 4]), [-1, BLOCK * height, BLOCK * width, channels])


def _folded_kernel(kernel: tf.Tensor) -> tf.Tensor:
    """Turn (k, l, c, f) into what does the same to folded images: one copy, moved, for each pixel of a block.

    Its shape is (ceil((k + 1) / 2), ceil((l + 1) / 2), 4c, 4f).
    """
    k, l, channels, filters = kernel.shape  # noqa: E741
    rows, columns = _blocks(k + 1), _blocks(l + 1)
    moved = [
        tf.pad(kernel, [[down, BLOCK * rows - k - down], [right, BLOCK * columns - l - right], [0, 0], [0, 0]])
        for down in range(BLOCK)
        for right in range(BLOCK)
    ]
    copies = tf.reshape(tf.stack(moved, 3), [rows, BLOCK, columns, BLOCK, channels, BLOCK * BLOCK * filters])
    return tf.reshape(
        tf.transpose(copies, [0, 2, 1, 3, 4, 5]), [rows, columns, BLOCK * BLOCK * channels, BLOCK * BLOCK * filters]
    )
