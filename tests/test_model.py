"""The network that a config describes, layer by layer, and builders of the user's own."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from besom.configs.schema import CnnConfig, ConvConfig
from besom.errors import ConfigError, DataError
from besom.geometry import geometry
from besom.model import build, cnn

IMAGE = (28, 28, 1)
SEED = CnnConfig(conv=[ConvConfig(filters=3, kernel_size=5), ConvConfig(filters=6, kernel_size=5)])


def network(*conv: ConvConfig, **fields: Any) -> CnnConfig:
    return CnnConfig(conv=list(conv), **{"dense": 8, **fields})


def names(model: keras.Model) -> list[str]:
    return [layer.name for layer in model.layers]


def test_the_seed_has_its_203068_parameters_where_the_seed_has_them() -> None:
    model = build(SEED, IMAGE, 10)
    assert names(model) == ["input", "conv_0", "conv_1", "flatten", "dense", "output"]
    assert [layer.count_params() for layer in model.layers] == [0, 78, 456, 0, 201_684, 850]
    assert [layer.output.shape[1:] for layer in model.layers[1:]] == [(24, 24, 3), (20, 20, 6), (2400,), (84,), (10,)]
    assert model.count_params() == 203_068
    assert [layer.activation.__name__ for layer in model.layers if hasattr(layer, "activation")] == [
        "silu",  # Keras' name of swish
        "silu",
        "silu",
        "softmax",
    ]


BLOCK = ConvConfig(filters=2, kernel_size=3)
NETWORKS = [
    (network(), ["flatten", "dense"]),
    (network(dense=0), ["flatten"]),
    (network(dropout=0.5), ["flatten", "dense", "dropout"]),
    (network(dense=0, dropout=0.5), ["flatten", "dropout"]),
    (network(BLOCK, pooling="avg"), ["conv_0", "global_pool", "dense"]),
    (network(BLOCK, pooling="max"), ["conv_0", "global_pool", "dense"]),
    (network(BLOCK, BLOCK, depth=1), ["conv_0", "flatten", "dense"]),
    (network(BLOCK, BLOCK, depth=0), ["flatten", "dense"]),
    (
        network(
            ConvConfig(filters=2, batch_norm=True, pool=2, dropout=0.1),
            ConvConfig(filters=3, strides=2, padding="same", pool=3),
        ),
        ["conv_0", "batch_norm_0", "activation_0", "pool_0", "dropout_0", "conv_1", "pool_1", "flatten", "dense"],
    ),
]


@pytest.mark.parametrize(("config", "between"), NETWORKS)
def test_every_option_is_a_layer_of_its_own_and_the_geometry_agrees(config: CnnConfig, between: list[str]) -> None:
    model = cnn(config, (20, 18, 3), 4)
    assert names(model) == ["input", *between, "output"]
    found = geometry(config, (20, 18, 3), 4)
    assert model.count_params() == found.n_params
    for row in found.layers[1:]:
        assert model.get_layer(row.name).output.shape[1:] == row.output_shape, row.name


def test_a_block_without_activation_takes_the_networks_and_batch_norm_comes_before_it() -> None:
    blocks = [ConvConfig(activation="relu"), ConvConfig(), ConvConfig(batch_norm=True)]
    model = cnn(network(*blocks, activation="tanh"), IMAGE, 10)
    used = {layer.name: layer.activation.__name__ for layer in model.layers if hasattr(layer, "activation")}
    assert used == {
        "conv_0": "relu",
        "conv_1": "tanh",
        "conv_2": "linear",
        "activation_2": "tanh",
        "dense": "tanh",
        "output": "softmax",
    }


def test_strides_padding_pools_and_dropouts_are_those_of_the_config() -> None:
    block = ConvConfig(filters=2, kernel_size=4, strides=2, padding="same", pool=3, dropout=0.25)
    model = cnn(network(block, dropout=0.5), IMAGE, 10)
    conv = model.get_layer("conv_0")
    assert (conv.kernel_size, conv.strides, conv.padding) == ((4, 4), (2, 2), "same")
    assert model.get_layer("pool_0").pool_size == (3, 3)
    assert (model.get_layer("dropout_0").rate, model.get_layer("dropout").rate) == (0.25, 0.5)


def initial_weights(seed: int) -> list[np.ndarray[Any, Any]]:
    keras.utils.set_random_seed(seed)
    return list(cnn(SEED, IMAGE, 10).get_weights())


def test_the_first_weights_depend_on_the_seed_alone() -> None:
    first, again, other = initial_weights(0), initial_weights(0), initial_weights(1)
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not all(np.array_equal(one, two) for one, two in zip(first, other, strict=True))


def linear(input_shape: tuple[int, ...], n_classes: int, scale: float = 1.0) -> keras.Model:
    layers = [keras.Input(input_shape), keras.layers.Rescaling(scale, name="scale"), keras.layers.Flatten()]
    return keras.Sequential([*layers, keras.layers.Dense(n_classes, "softmax")])


def too_wide(input_shape: tuple[int, ...], n_classes: int) -> keras.Model:
    return linear(input_shape, n_classes + 1)


def unbuilt(input_shape: tuple[int, ...], n_classes: int) -> keras.Model:
    return keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(n_classes)])


def nothing(input_shape: tuple[int, ...], n_classes: int) -> None:
    return None


def broken(input_shape: tuple[int, ...], n_classes: int) -> keras.Model:
    raise ZeroDivisionError("no\nway")


def refusing(input_shape: tuple[int, ...], n_classes: int) -> keras.Model:
    raise DataError("these images are too small for it")


def test_a_users_own_builder_gets_its_arguments_and_the_size_of_the_task() -> None:
    model = build({"_target_": f"{__name__}.linear", "scale": 0.5}, IMAGE, 7)
    assert model.get_layer("scale").scale == 0.5
    assert model.output_shape == (None, 7)
    assert model.count_params() == 28 * 28 * 7 + 7


MISTAKES = [
    ("no_such_package.build", r"cannot be imported \(ModuleNotFoundError.*importable from the project's root folder"),
    ("build", r"model._target_='build' cannot be imported"),
    (f"{__name__}.linaer", r"has no function 'linaer'; did you mean 'linear'\?"),
    (f"{__name__}.IMAGE", r"has no function 'IMAGE'"),
    (f"{__name__}.broken", r"broken raised ZeroDivisionError: no way$"),
    (f"{__name__}.nothing", r"returned NoneType; expected a keras.Model with an output of shape \(None, 10\)"),
    (f"{__name__}.too_wide", r"returned an output of shape \(None, 11\); expected .* \(None, 10\)"),
    (f"{__name__}.unbuilt", r"returned a model without an input shape; expected"),
]


@pytest.mark.parametrize(("target", "message"), MISTAKES)
def test_a_builder_that_does_not_give_such_a_model_is_named_with_what_it_gave(target: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build({"_target_": target}, IMAGE, 10)


def test_an_argument_that_the_builder_does_not_take_is_named() -> None:
    with pytest.raises(ConfigError, match=r"raised TypeError: .*unexpected keyword argument 'scael'"):
        build({"_target_": f"{__name__}.linear", "scael": 2}, IMAGE, 10)


def test_a_builder_may_refuse_in_besoms_own_words() -> None:
    with pytest.raises(DataError, match=r"^these images are too small for it$"):
        build({"_target_": f"{__name__}.refusing"}, IMAGE, 10)
