"""A trained model opened: its feature maps are convolutions that a loop over pixels, channels and filters repeats."""

from __future__ import annotations

import logging
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from besom.configs.schema import CnnConfig, ConvConfig
from besom.model import build
from besom.trial.convolutions import Convolution, Opened, opened

layers = keras.layers
IMAGE = np.random.default_rng(3).uniform(-1, 1, (11, 9, 3)).astype(np.float32)


def naive(
    inputs: NDArray[Any], kernel: NDArray[Any], bias: NDArray[Any], padding: str, strides: tuple[int, int]
) -> NDArray[np.float64]:
    """Convolve by hand: each number of a map is a sum over a window of all channels, and a bias."""
    (height, width, channels, filters), (down, across) = kernel.shape, strides
    inputs = inputs.astype(float)
    if padding == "same":
        sides = zip(inputs.shape, strides, (height, width), strict=False)
        needed = [max((-(-side // step) - 1) * step + window - side, 0) for side, step, window in sides]
        inputs = np.pad(inputs, [*((total // 2, total - total // 2) for total in needed), (0, 0)])
    rows = range(0, inputs.shape[0] - height + 1, down)
    columns = range(0, inputs.shape[1] - width + 1, across)
    maps = np.zeros((len(rows), len(columns), filters))
    for number in range(filters):
        for y, top in enumerate(rows):
            for x, left in enumerate(columns):
                total = float(bias[number])
                for channel in range(channels):
                    window = inputs[top : top + height, left : left + width, channel]
                    total += float((window * kernel[:, :, channel, number]).sum())
                maps[y, x, number] = total
    return maps


def by_hand(layer: Convolution) -> NDArray[np.float64]:
    return naive(layer.inputs, layer.kernel, layer.bias, layer.padding, layer.strides)


def trained(model: keras.Model) -> keras.Model:
    """Give a model weights as training does: none of them 0, statistics of batch norm included."""
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.1, 1, weights.shape) * rng.choice([1.0, 0.7]) for weights in model.get_weights()])
    return model


def opened_from(model: keras.Model, image: NDArray[np.float32] = IMAGE) -> Opened:
    found = opened(model, image, 1, 0)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "conv",
    [
        [ConvConfig(filters=3, kernel_size=5), ConvConfig(filters=6, kernel_size=3)],
        [ConvConfig(filters=2, kernel_size=4, padding="same"), ConvConfig(filters=2, kernel_size=3, strides=2)],
        [ConvConfig(filters=4, kernel_size=3, padding="same", strides=2), ConvConfig(filters=1, kernel_size=1)],
        [ConvConfig(filters=2, kernel_size=3, padding="same", strides=3)],
        [
            ConvConfig(filters=3, kernel_size=3, batch_norm=True, pool=2, dropout=0.5, activation="tanh"),
            ConvConfig(filters=2, kernel_size=2),
        ],
    ],
    ids=["valid", "same", "same with strides", "same with wide strides", "batch norm, pool and dropout between"],
)
def test_a_feature_map_is_one_filter_on_all_channels(conv: list[ConvConfig]) -> None:
    found = opened_from(trained(build(CnnConfig(conv=conv, dense=4), IMAGE.shape, 2)))
    assert [layer.name for layer in found.convolutions] == [f"conv_{number}" for number in range(len(conv))]
    for layer, block in zip(found.convolutions, conv, strict=True):
        assert layer.maps.shape[-1] == layer.kernel.shape[-1] == block.filters
        assert layer.n_params == (block.kernel_size**2 * layer.inputs.shape[-1] + 1) * block.filters
        expected = by_hand(layer)
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(layer.maps, expected, atol=1e-4)


def test_what_goes_into_a_layer_is_what_comes_out_of_the_layers_before() -> None:
    blocks = [ConvConfig(filters=3, kernel_size=3, batch_norm=True, pool=2, dropout=0.5), ConvConfig(filters=2)]
    model = trained(build(CnnConfig(conv=blocks, dense=4), IMAGE.shape, 2))
    found = opened_from(model)
    inner = keras.Model(model.input, [model.get_layer("conv_0").output, model.get_layer("dropout_0").output])
    first, between = inner(IMAGE[np.newaxis], training=False)
    np.testing.assert_array_equal(found.convolutions[0].inputs, IMAGE)
    np.testing.assert_allclose(found.convolutions[0].maps, first[0], atol=1e-5)  # with batch norm no activation inside
    np.testing.assert_allclose(found.convolutions[1].inputs, between[0], atol=1e-5)


def test_the_activation_comes_after_a_map() -> None:
    model = trained(build(CnnConfig(conv=[ConvConfig(filters=4)], activation="relu", dense=0), IMAGE.shape, 2))
    model.get_layer("conv_0").bias.assign(np.full(4, -2.0))
    (layer,) = opened_from(model).convolutions
    assert layer.maps.min() < 0
    after = keras.Model(model.input, model.get_layer("conv_0").output)(IMAGE[np.newaxis])[0]
    np.testing.assert_allclose(np.maximum(layer.maps, 0), after, atol=1e-5)


def test_opening_a_model_changes_none_of_its_weights() -> None:
    model = trained(build(CnnConfig(conv=[ConvConfig(batch_norm=True)], dropout=0.5), IMAGE.shape, 2))
    before = model.get_weights()
    opened_from(model)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_model_of_ones_own_is_opened_where_it_is_a_chain() -> None:
    chain = [layers.Rescaling(0.5), layers.Conv2D(3, (3, 2), name="stem"), layers.Conv2D(6, 3, groups=3), layers.ReLU()]
    last = layers.Conv2D(2, 3, use_bias=False, name="top")
    model = trained(keras.Sequential([keras.Input(IMAGE.shape), *chain, last, layers.Flatten(), layers.Dense(2)]))
    stem, top = opened_from(model).convolutions  # of the one with groups a filter has not all channels
    assert (stem.name, top.name) == ("stem", "top")
    np.testing.assert_allclose(stem.inputs, IMAGE / 2, atol=1e-6)
    np.testing.assert_allclose(stem.maps, by_hand(stem), atol=1e-4)
    np.testing.assert_allclose(top.maps, by_hand(top), rtol=1e-5)
    assert not top.has_bias
    assert top.n_params == top.kernel.size


def branched() -> keras.Model:
    inputs = keras.Input(IMAGE.shape)
    both = layers.Add()([layers.Conv2D(2, 3)(inputs), layers.Conv2D(2, 3)(inputs)])
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(both)))


def without_convolution() -> keras.Model:
    return keras.Sequential([keras.Input(IMAGE.shape), layers.Flatten(), layers.Dense(2)])


class AsClass(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.flatten, self.out = layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(2)

    def call(self, inputs: Any) -> Any:
        return self.out(self.flatten(self.convolution(inputs)))


def as_class() -> keras.Model:
    model = AsClass()
    model(IMAGE[np.newaxis])
    return model


def with_two_inputs() -> keras.Model:
    inputs = [keras.Input(IMAGE.shape), keras.Input((3,))]
    both = layers.Concatenate()([layers.Flatten()(layers.Conv2D(2, 3)(inputs[0])), inputs[1]])
    return keras.Model(inputs, layers.Dense(2)(both))


@pytest.mark.parametrize("make", [branched, without_convolution, as_class, with_two_inputs])
def test_a_model_that_is_no_chain_of_convolutions_is_not_opened(make: Any) -> None:
    assert opened(make(), IMAGE, 1, 0) is None


class OnlyTraced(layers.Layer):
    """Somebody's layer that cannot be called by itself."""

    def call(self, inputs: Any) -> Any:
        if tf.executing_eagerly():
            raise RuntimeError("there is no graph")
        return inputs


def test_a_layer_that_fails_costs_the_pictures_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    model = keras.Sequential([keras.Input(IMAGE.shape), OnlyTraced(), layers.Conv2D(2, 3)])
    with caplog.at_level(logging.WARNING):
        assert opened(model, IMAGE, 1, 0) is None
    assert "no pictures of the filters: RuntimeError" in caplog.text
    assert "there is no graph" in caplog.text
