"""From a config to a Keras model: besom's own `cnn`, or whatever builder the user names.

Knows nothing of data beyond the size of an image and the number of classes, and nothing of training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
from keras import layers

from besom.configs.schema import CnnConfig, ConvConfig
from besom.errors import ConfigError, UserError, one_line
from besom.targets import imported


def build(config: CnnConfig | Mapping[str, Any], input_shape: tuple[int, ...], n_classes: int) -> keras.Model:
    """Return the untrained, uncompiled model of a config's ``model`` group.

    Args:
        config: besom's network, or a mapping whose ``_target_`` is the dotted name of a user's builder;
            it is called with the mapping's other keys, ``input_shape`` and ``n_classes``.
        input_shape: (height, width, channels) of an image.
        n_classes: number of probabilities that the model gives for an image.

    Raises:
        ConfigError: the builder cannot be imported, raises, or gives something else than such a model.
    """
    if isinstance(config, CnnConfig):
        return cnn(config, input_shape, n_classes)
    target = str(config["_target_"])
    arguments = {key: value for key, value in config.items() if key != "_target_"}
    builder = imported("model._target_", target)
    try:
        model = builder(**arguments, input_shape=input_shape, n_classes=n_classes)
    except UserError:
        raise
    except Exception as error:  # the user's own code runs here
        raise ConfigError(f"model._target_={target} raised {type(error).__name__}: {one_line(error)}") from error
    return _checked(target, model, n_classes)


def cnn(config: CnnConfig, input_shape: tuple[int, ...], n_classes: int) -> keras.Model:
    """Return convolution blocks, then one hidden dense layer, then a softmax over the classes.

    Layers are named as in `besom.geometry`; N counts ``config.layers`` from 0.

    Args:
        config: the network.
        input_shape: (height, width, channels).
        n_classes: units of the last layer; the output is (batch, n_classes) and sums to 1 for each image.
    """
    inputs = keras.Input(input_shape, name="input")
    outputs = inputs
    for layer in _steps(config, n_classes):
        outputs = layer(outputs)
    return keras.Model(inputs, outputs, name="cnn")


def _steps(config: CnnConfig, n_classes: int) -> Iterator[keras.Layer]:
    for index, block in enumerate(config.layers):
        yield from _block(index, block, block.activation or config.activation)
    yield _flattening(config.pooling)
    if config.dense:
        yield layers.Dense(config.dense, activation=config.activation, name="dense")
    if config.dropout:
        yield layers.Dropout(config.dropout, name="dropout")
    yield layers.Dense(n_classes, activation="softmax", name="output")


def _block(index: int, block: ConvConfig, activation: str) -> Iterator[keras.Layer]:
    # without batch norm the activation sits inside Conv2D, as in the seed
    inside = None if block.batch_norm else activation
    yield layers.Conv2D(
        block.filters, block.kernel_size, block.strides, block.padding, activation=inside, name=f"conv_{index}"
    )
    if block.batch_norm:
        yield layers.BatchNormalization(name=f"batch_norm_{index}")
        yield layers.Activation(activation, name=f"activation_{index}")
    if block.pool is not None:
        yield layers.MaxPooling2D(block.pool, name=f"pool_{index}")
    if block.dropout:
        yield layers.Dropout(block.dropout, name=f"dropout_{index}")


def _flattening(pooling: str | None) -> keras.Layer:
    if pooling is None:
        return layers.Flatten(name="flatten")
    if pooling == "avg":
        return layers.GlobalAveragePooling2D(name="global_pool")
    return layers.GlobalMaxPooling2D(name="global_pool")


def _checked(target: str, model: Any, n_classes: int) -> keras.Model:
    expected = f"expected a keras.Model with an output of shape (None, {n_classes})"
    if not isinstance(model, keras.Model):
        raise ConfigError(f"model._target_={target} returned {type(model).__name__}; {expected}")
    if not model.built:
        raise ConfigError(f"model._target_={target} returned a model without an input shape; {expected}")
    if model.output_shape != (None, n_classes):
        raise ConfigError(f"model._target_={target} returned an output of shape {model.output_shape}; {expected}")
    return model
