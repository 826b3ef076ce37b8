"""Folded convolutions are convolutions: the same numbers but for rounding, whatever sizes, and only while training."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_training import digits

from besom.configs.schema import CnnConfig, ConvConfig, TrainConfig
from besom.model import build
from besom.trial import folding, training

layers = keras.layers
SEED = CnnConfig(conv=[ConvConfig(filters=3, kernel_size=5), ConvConfig(filters=6, kernel_size=5)], dense=8)


def random(*shape: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32))


def outputs_and_gradients(convolution: Any, x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> list[tf.Tensor]:
    with tf.GradientTape() as tape:
        tape.watch([x, kernel, bias])
        y = convolution(x, kernel, bias)
        loss = tf.reduce_sum(y * random(*y.shape))
    return [y, *tape.gradient(loss, [x, kernel, bias])]


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    ("height", "width", "channels", "filters", "kernel"),
    [
        (28, 28, 1, 3, (5, 5)),
        (24, 24, 3, 6, (5, 5)),
        (27, 25, 3, 2, (5, 5)),
        (26, 28, 2, 5, (3, 3)),
        (28, 27, 1, 4, (2, 2)),
        (25, 26, 2, 3, (4, 4)),
        (20, 21, 2, 3, (7, 3)),
        (9, 8, 1, 1, (1, 1)),
        (5, 5, 3, 4, (5, 5)),
    ],
)
def test_a_folded_convolution_and_its_gradients_are_those_of_tensorflow(
    height: int, width: int, channels: int, filters: int, kernel: tuple[int, int], padding: str
) -> None:
    given = (random(4, height, width, channels), random(*kernel, channels, filters), random(filters))
    expected = outputs_and_gradients(lambda x, kernel, bias: tf.nn.conv2d(x, kernel, 1, padding.upper()) + bias, *given)
    found = outputs_and_gradients(lambda x, kernel, bias: folding.convolution(x, kernel, bias, padding), *given)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * float(tf.reduce_max(tf.abs(other))))


def test_a_convolution_without_a_bias_has_none() -> None:
    x, kernel = random(2, 8, 8, 1), random(3, 3, 1, 2)
    found = folding.convolution(x, kernel, None, "valid")
    np.testing.assert_allclose(found, tf.nn.conv2d(x, kernel, 1, "VALID"), rtol=1e-4, atol=1e-5)


class Own(layers.Conv2D):
    """A layer of somebody's own, which may do anything."""


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.Conv2D(3, 5), True),
        (layers.Conv2D(6, (5, 3), padding="same", activation="relu", use_bias=False), True),
        (layers.Conv2D(12, 5), True),
        (layers.Conv2D(13, 5), False),
        (layers.Conv2D(3, (1, 5)), False),
        (layers.Conv2D(3, 5, strides=2), False),
        (layers.Conv2D(3, 5, dilation_rate=2), False),
        (layers.Conv2D(6, 5, groups=3), False),
        (layers.Conv2D(3, 5, dtype="float64"), False),
        (layers.DepthwiseConv2D(5), False),
        (layers.Dense(3), False),
        (Own(3, 5), False),
    ],
    ids=lambda value: value.name if isinstance(value, layers.Layer) else str(value),
)
def test_only_plain_convolutions_of_few_channels_are_folded(layer: layers.Layer, expected: bool) -> None:
    layer.build((None, 28, 28, 3))
    assert folding.is_worth_folding(layer) == expected


def test_a_layer_that_was_never_used_is_left_alone() -> None:
    assert not folding.is_worth_folding(layers.Conv2D(3, 5))


def test_layers_are_keras_own_again_afterwards() -> None:
    training.start_trial(TrainConfig())
    model = build(SEED, (28, 28, 1), 10)
    with folding.folding(model):
        assert "call" in vars(model.get_layer("conv_1"))
        assert "call" not in vars(model.get_layer("conv_0")), "one channel is too few"
    assert not any("call" in vars(layer) for layer in model.layers)


def test_images_of_no_fixed_size_are_convolved_as_ever() -> None:
    training.start_trial(TrainConfig())
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layers.Conv2D(3, 5)(inputs))
    with folding.folding(model):
        traced = tf.function(model).get_concrete_function(tf.TensorSpec((None, None, None, 3)))
    x = random(2, 13, 17, 3)
    np.testing.assert_allclose(traced(x), model(x), rtol=1e-5, atol=1e-6)


def changes(fold: bool) -> list[np.ndarray]:
    """Return by how much one epoch changes each weight."""
    train = TrainConfig(epochs=1, fold=fold, optimizer="sgd", learning_rate=1e-5, objective_epoch="last")
    training.start_trial(train)
    model = build(SEED, (28, 28, 1), 10)
    before = model.get_weights()
    training.fit(model, digits(), train)
    return [after - start for start, after in zip(before, model.get_weights(), strict=True)]


def test_a_folded_training_changes_the_weights_as_an_unfolded_one_does() -> None:
    folded, unfolded = changes(True), changes(False)
    assert any(not np.array_equal(one, other) for one, other in zip(folded, unfolded, strict=True)), (
        "nothing was folded"
    )
    for one, other in zip(folded, unfolded, strict=True):
        assert np.abs(other).max() > 0
        assert np.linalg.norm(one - other) < 0.01 * np.linalg.norm(other)
