"""The geometry of a network: the seed's numbers, the rules one by one, and Keras' own counts."""
# ruff: noqa: RUF001 - the multiplication sign is what the tables and messages show

from __future__ import annotations

import json
import re
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from besom.configs.schema import CnnConfig, ConvConfig
from besom.errors import GeometryError
from besom.geometry import Geometry, Layer, geometry
from besom.seeding import fix_runtime

DIGIT = (28, 28, 1)
SEED = CnnConfig(conv=[ConvConfig(filters=3, kernel_size=5), ConvConfig(filters=6, kernel_size=5)])
SEED_ROWS = [
    # name, output shape, filter shape, params, formula, macs
    ("input", (28, 28, 1), None, 0, "", 0),
    ("conv_0", (24, 24, 3), (5, 5, 1, 3), 78, "(5·5·1+1)·3", 43_200),
    ("conv_1", (20, 20, 6), (5, 5, 3, 6), 456, "(5·5·3+1)·6", 180_000),
    ("flatten", (2400,), None, 0, "", 0),
    ("dense", (84,), None, 201_684, "(2400+1)·84", 201_600),
    ("output", (10,), None, 850, "(84+1)·10", 840),
]
SEED_TABLE = """\
layer    output   filter tensor       parameters  formula         MACs
input    28×28×1                               0                     0
conv_0   24×24×3  3 filters of 5×5×1          78  (5·5·1+1)·3   43,200
conv_1   20×20×6  6 filters of 5×5×3         456  (5·5·3+1)·6  180,000
flatten  2400                                  0                     0
dense    84                              201,684  (2400+1)·84  201,600
output   10                                  850  (84+1)·10        840
total                                    203,068               425,640"""


def cnn(*blocks: dict[str, Any], **rest: Any) -> CnnConfig:
    return CnnConfig(conv=[ConvConfig(**block) for block in blocks], **rest)


def names(found: Geometry) -> list[str]:
    return [layer.name for layer in found.layers]


def layer_of(found: Geometry, name: str) -> Layer:
    return next(layer for layer in found.layers if layer.name == name)


def test_the_seed_network_has_the_seeds_numbers() -> None:
    found = geometry(SEED, DIGIT, 10)
    assert found.layers == tuple(Layer(*row) for row in SEED_ROWS)
    assert (found.n_params, found.n_macs) == (203_068, 425_640)


def test_the_table_shows_the_seed_network_as_people_read_it() -> None:
    assert geometry(SEED, DIGIT, 10).table() == SEED_TABLE


def test_the_table_says_one_filter_and_pads_no_line_at_its_end() -> None:
    lines = geometry(cnn({"filters": 1, "kernel_size": 3, "pool": 2}), DIGIT, 10).table().split("\n")
    assert any(re.search(r"^conv_0 .* 1 filter of 3×3×1 ", line) for line in lines)
    assert any(re.search(r"^pool_0 +13×13×1 +0 +0$", line) for line in lines)
    assert lines == [line.rstrip() for line in lines]


def test_the_json_has_the_keys_that_scripts_rely_on() -> None:
    found = geometry(SEED, DIGIT, 10).to_json()
    assert list(found) == ["layers", "n_params", "n_macs"]
    assert {tuple(row) for row in found["layers"]} == {
        ("name", "output_shape", "filter_shape", "params", "formula", "macs")
    }
    assert (found["n_params"], found["n_macs"]) == (203_068, 425_640)
    assert found["layers"][1] == {
        "name": "conv_0",
        "output_shape": [24, 24, 3],
        "filter_shape": [5, 5, 1, 3],
        "params": 78,
        "formula": "(5·5·1+1)·3",
        "macs": 43_200,
    }
    assert found["layers"][0]["filter_shape"] is None


def test_the_json_is_json_values_all_the_way_down() -> None:
    found = geometry(SEED, DIGIT, 10).to_json()
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("block", "image", "shape"),
    [
        ({"kernel_size": 5}, (28, 28, 1), (24, 24, 8)),
        ({"kernel_size": 1}, (28, 28, 1), (28, 28, 8)),
        ({"kernel_size": 28}, (28, 28, 1), (1, 1, 8)),
        ({"kernel_size": 4}, (28, 28, 1), (25, 25, 8)),
        ({"kernel_size": 3}, (32, 20, 3), (30, 18, 8)),
        ({"kernel_size": 5, "padding": "same"}, (28, 28, 1), (28, 28, 8)),
        ({"kernel_size": 25, "padding": "same"}, (8, 8, 1), (8, 8, 8)),
        ({"kernel_size": 3, "strides": 2}, (28, 28, 1), (13, 13, 8)),
        ({"kernel_size": 3, "strides": 2}, (29, 29, 1), (14, 14, 8)),
        ({"kernel_size": 3, "strides": 2, "padding": "same"}, (28, 28, 1), (14, 14, 8)),
        ({"kernel_size": 3, "strides": 2, "padding": "same"}, (29, 29, 1), (15, 15, 8)),
        ({"kernel_size": 2, "strides": 5}, (8, 8, 1), (2, 2, 8)),
        ({"kernel_size": 2, "strides": 50}, (8, 8, 1), (1, 1, 8)),
    ],
)
def test_a_convolution_shrinks_its_input_by_kernel_padding_and_strides(
    block: dict[str, Any], image: tuple[int, int, int], shape: tuple[int, ...]
) -> None:
    assert layer_of(geometry(cnn(block), image, 10), "conv_0").output_shape == shape


@pytest.mark.parametrize(
    ("pool", "side", "pooled"), [(1, 10, 10), (2, 10, 5), (2, 11, 5), (3, 11, 3), (11, 11, 1), (6, 11, 1)]
)
def test_max_pooling_moves_by_its_own_size_and_drops_what_is_left_over(pool: int, side: int, pooled: int) -> None:
    found = geometry(cnn({"filters": 4, "kernel_size": 1, "pool": pool}), (side, side, 1), 10)
    assert layer_of(found, "pool_0") == Layer("pool_0", (pooled, pooled, 4))


def test_batch_norm_has_four_numbers_a_channel_and_comes_before_the_pooling() -> None:
    found = geometry(cnn({"filters": 6, "kernel_size": 3, "batch_norm": True, "pool": 2}), DIGIT, 10)
    assert names(found) == ["input", "conv_0", "batch_norm_0", "pool_0", "flatten", "dense", "output"]
    assert layer_of(found, "batch_norm_0") == Layer("batch_norm_0", (26, 26, 6), params=24, formula="4·6")
    assert layer_of(found, "conv_0").params == (3 * 3 * 1 + 1) * 6


def test_the_next_filters_are_as_deep_as_the_feature_map_has_channels() -> None:
    found = geometry(cnn({"filters": 3, "kernel_size": 5, "pool": 2}, {"filters": 7, "kernel_size": 4}), DIGIT, 10)
    assert layer_of(found, "conv_1").filter_shape == (4, 4, 3, 7)
    assert layer_of(found, "conv_1").output_shape == (9, 9, 7)


def test_colour_makes_the_first_filters_deeper() -> None:
    found = geometry(SEED, (32, 32, 3), 10)
    assert layer_of(found, "conv_0") == Layer("conv_0", (28, 28, 3), (5, 5, 3, 3), 228, "(5·5·3+1)·3", 28 * 28 * 3 * 75)


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (0, ["input", "flatten", "dense", "output"]),
        (1, ["input", "conv_0", "flatten", "dense", "output"]),
        (2, ["input", "conv_0", "conv_1", "flatten", "dense", "output"]),
        (None, ["input", "conv_0", "conv_1", "flatten", "dense", "output"]),
    ],
)
def test_depth_uses_only_the_first_blocks(depth: int | None, expected: list[str]) -> None:
    assert names(geometry(CnnConfig(conv=SEED.conv, depth=depth), DIGIT, 10)) == expected


def test_a_block_that_depth_leaves_out_need_not_fit() -> None:
    model = cnn({"filters": 3, "kernel_size": 5}, {"kernel_size": 99}, depth=1)
    assert names(geometry(model, DIGIT, 10)) == ["input", "conv_0", "flatten", "dense", "output"]


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_global_pooling_leaves_one_number_a_channel(pooling: str) -> None:
    found = geometry(CnnConfig(conv=SEED.conv, pooling=pooling), DIGIT, 10)
    assert names(found) == ["input", "conv_0", "conv_1", "global_pool", "dense", "output"]
    assert layer_of(found, "global_pool") == Layer("global_pool", (6,))
    assert layer_of(found, "dense") == Layer("dense", (84,), params=588, formula="(6+1)·84", macs=504)


def test_no_hidden_layer_leads_straight_to_the_classes() -> None:
    found = geometry(CnnConfig(conv=SEED.conv, dense=0), DIGIT, 7)
    assert names(found) == ["input", "conv_0", "conv_1", "flatten", "output"]
    assert found.layers[-1] == Layer("output", (7,), params=16_807, formula="(2400+1)·7", macs=16_800)


def test_dropout_and_activations_have_no_row() -> None:
    model = cnn({"filters": 3, "kernel_size": 5, "dropout": 0.5, "activation": "relu"}, dropout=0.5)
    assert names(geometry(model, DIGIT, 10)) == ["input", "conv_0", "flatten", "dense", "output"]


@pytest.mark.parametrize(
    ("model", "image", "message"),
    [
        (
            cnn({"filters": 3, "kernel_size": 5}, {"kernel_size": 25}),
            (28, 28, 1),
            "model.conv.1.kernel_size=25 does not fit the 24×24×3 feature map that it gets; "
            "expected at most 24, or model.conv.1.padding=same",
        ),
        (
            cnn({"kernel_size": 9}),
            (32, 8, 3),
            "model.conv.0.kernel_size=9 does not fit the 32×8×3 feature map that it gets; "
            "expected at most 8, or model.conv.0.padding=same",
        ),
        (
            cnn({"filters": 6, "kernel_size": 5, "pool": 5}),
            (8, 8, 1),
            "model.conv.0.pool=5 does not fit the 4×4×6 feature map that it gets; "
            "expected at most 4, or model.conv.0.pool=null",
        ),
        (
            cnn({"filters": 6, "kernel_size": 5, "padding": "same", "strides": 4, "pool": 3}),
            (8, 8, 1),
            "model.conv.0.pool=3 does not fit the 2×2×6 feature map that it gets; "
            "expected at most 2, or model.conv.0.pool=null",
        ),
    ],
)
def test_what_does_not_fit_is_named_with_what_would(
    model: CnnConfig, image: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(GeometryError, match=f"^{re.escape(message)}$"):
        geometry(model, image, 10)


def blocks(kernel: int, filters: int) -> st.SearchStrategy[ConvConfig]:
    return st.builds(
        ConvConfig,
        filters=st.integers(1, filters),
        kernel_size=st.integers(1, kernel),
        padding=st.sampled_from(["valid", "same"]),
        strides=st.integers(1, 3),
        pool=st.none() | st.integers(1, 3),
        batch_norm=st.booleans(),
    )


def networks(kernel: int = 6, filters: int = 5) -> st.SearchStrategy[CnnConfig]:
    return st.builds(
        CnnConfig,
        conv=st.lists(blocks(kernel, filters), max_size=3),
        pooling=st.sampled_from([None, "avg", "max"]),
        dense=st.integers(0, 9),
    )


def images(side: int) -> st.SearchStrategy[tuple[int, int, int]]:
    return st.tuples(st.integers(4, side), st.integers(4, side), st.integers(1, 3))


def built_by_keras(model: CnnConfig, image: tuple[int, int, int], n_classes: int) -> Any:
    """Return the network as Keras builds it from its own layers; Keras raises ValueError where one does not fit."""
    import keras

    steps = [keras.Input(image, name="input")]
    for index, block in enumerate(model.layers):
        convolution = keras.layers.Conv2D(
            block.filters,
            block.kernel_size,
            strides=block.strides,
            padding=block.padding,
            kernel_initializer="zeros",
            name=f"conv_{index}",
        )
        steps.append(convolution)
        if block.batch_norm:
            steps.append(keras.layers.BatchNormalization(name=f"batch_norm_{index}"))
        if block.pool is not None:
            steps.append(keras.layers.MaxPooling2D(block.pool, name=f"pool_{index}"))
    flattening = {
        None: keras.layers.Flatten(name="flatten"),
        "avg": keras.layers.GlobalAveragePooling2D(name="global_pool"),
        "max": keras.layers.GlobalMaxPooling2D(name="global_pool"),
    }
    steps.append(flattening[model.pooling])
    if model.dense:
        steps.append(keras.layers.Dense(model.dense, name="dense"))
    steps.append(keras.layers.Dense(n_classes, activation="softmax", name="output"))
    return keras.Sequential(steps)


@pytest.fixture(scope="module")
def keras_ready() -> None:
    """Import Keras once, before Hypothesis starts its clock, in the environment that training processes have."""
    fix_runtime(threads=1)
    import keras  # noqa: F401


@pytest.mark.usefixtures("keras_ready")
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(model=networks(), image=images(20), n_classes=st.integers(2, 12))
def test_every_shape_and_count_is_keras_own(model: CnnConfig, image: tuple[int, int, int], n_classes: int) -> None:
    try:
        found = geometry(model, image, n_classes)
    except GeometryError:
        with pytest.raises(ValueError, match="output size would be zero or negative"):
            built_by_keras(model, image, n_classes)
        return
    built = built_by_keras(model, image, n_classes)
    assert found.n_params == built.count_params()
    assert names(found) == ["input", *(layer.name for layer in built.layers)]
    for row, layer in zip(found.layers[1:], built.layers, strict=True):
        assert row.output_shape == tuple(layer.output.shape[1:])
        assert row.params == layer.count_params()
        if row.filter_shape is not None:
            assert row.filter_shape == tuple(layer.kernel.shape)


def starts(side: int, block: ConvConfig) -> list[int]:
    """Return where windows start along one side, found by trying every place."""
    every = range(0, side, block.strides)
    return [at for at in every if block.padding == "same" or at + block.kernel_size <= side]


def counted_macs(model: CnnConfig, image: tuple[int, int, int], n_classes: int) -> int:
    """Walk through every multiplication of the network, for one image, and count them."""
    height, width, channels = image
    count = 0
    for block in model.layers:
        tops, lefts = starts(height, block), starts(width, block)
        kernel = range(block.kernel_size)
        count += sum(1 for _ in product(tops, lefts, range(block.filters), kernel, kernel, range(channels)))
        pool = block.pool or 1
        height, width, channels = len(tops) // pool, len(lefts) // pool, block.filters
    inputs = channels if model.pooling else height * width * channels
    for units in [model.dense, n_classes] if model.dense else [n_classes]:
        count += sum(1 for _ in product(range(inputs), range(units)))
        inputs = units
    return count


@settings(max_examples=40, deadline=None)
@given(model=networks(kernel=3, filters=3), image=images(6), n_classes=st.integers(2, 4))
def test_macs_are_the_multiplications_counted_one_by_one(
    model: CnnConfig, image: tuple[int, int, int], n_classes: int
) -> None:
    try:
        found = geometry(model, image, n_classes)
    except GeometryError:
        assume(False)
    assert found.n_macs == counted_macs(model, image, n_classes)
