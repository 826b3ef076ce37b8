"""The convolution layers of a trained model, opened: their filters, and the feature maps they make of one image.

The lesson of the notebook in numbers: a filter is a block of weights as deep as its input has channels, and one
filter makes one feature map out of all of them. Layers are called one after another; to trace a model that gives
its inner outputs would take ten times as long. Knows nothing of pictures and files.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Convolution:
    """One convolution layer and what it makes of one image.

    Args:
        name: of the Keras layer.
        kernel: its filters together, float32, shape (k, l, channels, filters): filter i is ``kernel[..., i]``.
        bias: shape (filters,); zeros where the layer has none.
        padding: ``valid`` or ``same``.
        strides: (down, across).
        inputs: what goes in, float32, shape (height, width, channels).
        maps: what its filters make of that, float32, shape (height, width, filters): the sums of weights times
            inputs, and the bias, before the activation and batch norm, so that each can be checked by hand.
    """

    name: str
    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    has_bias: bool
    padding: str
    strides: tuple[int, int]
    inputs: NDArray[np.float32]
    maps: NDArray[np.float32]

    @property
    def n_params(self) -> int:
        return self.kernel.size + (self.bias.size if self.has_bias else 0)


@dataclass(frozen=True)
class Opened:
    """What a network makes of one image, convolution after convolution.

    Args:
        image: as the model sees it, float32, shape (height, width, channels).
        truth: its class.
        predicted: what the model takes it for.
        convolutions: in the order of the layers.
    """

    image: NDArray[np.float32]
    truth: int
    predicted: int
    convolutions: Sequence[Convolution]


def opened(model: keras.Model, image: NDArray[np.float32], truth: int, predicted: int) -> Opened | None:
    """Return what a model makes of an image; None where it has no convolutions that can be shown.

    Those are plain Keras ``Conv2D`` in float32, without groups or dilation, in a model whose layers are one chain.

    Args:
        image: as the model sees it, shape (height, width, channels).
    """
    try:
        found = _convolutions(_chain(model), image)
    except Exception as error:  # somebody's own layers run here, one by one; the trained model is worth more
        log.warning("no pictures of the filters: %s: %s", type(error).__name__, error)
        return None
    return Opened(image, truth, predicted, found) if found else None


def _convolutions(layers: Sequence[keras.Layer], image: NDArray[np.float32]) -> list[Convolution]:
    found: list[Convolution] = []
    last = max((number for number, layer in enumerate(layers) if _is_plain(layer)), default=-1)
    x = tf.constant(image[np.newaxis])
    for layer in layers[: last + 1]:
        if _is_plain(layer):
            sums = layer.convolution_op(x, layer.kernel)
            sums = sums if layer.bias is None else sums + layer.bias
            found.append(_convolution(layer, x, sums))
            x = sums if layer.activation is None else layer.activation(sums)
        else:
            x = layer(x, training=False)
    return found


def _convolution(layer: keras.layers.Conv2D, inputs: tf.Tensor, sums: tf.Tensor) -> Convolution:
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    no_bias = np.zeros(kernel.shape[-1], np.float32)
    return Convolution(
        name=layer.name,
        kernel=kernel,
        bias=no_bias if layer.bias is None else keras.ops.convert_to_numpy(layer.bias),
        has_bias=layer.bias is not None,
        padding=layer.padding,
        strides=tuple(layer.strides),
        inputs=inputs[0].numpy(),
        maps=sums[0].numpy(),
    )


def _is_plain(layer: keras.Layer) -> bool:
    return (
        type(layer) is keras.layers.Conv2D
        and layer.dilation_rate == (1, 1)
        and layer.groups == 1
        and layer.data_format == "channels_last"
        and layer.compute_dtype == "float32"
    )


def _chain(model: keras.Model) -> list[keras.Layer]:
    """Return a model's layers in order; none where they are no chain, each taking only what the one before gives."""
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    try:
        (tensor,) = model.inputs
        for layer in layers:
            if layer.input is not tensor:
                return []
            tensor = layer.output
        return layers if tensor is model.outputs[0] else []
    except (AttributeError, TypeError, ValueError):  # a model written as a class has no tensors, others have several
        return []
