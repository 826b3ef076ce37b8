"""What a network looks like before anything is built: each layer's output, filters, parameters and cost.

Pure arithmetic from a config, by the rules of Keras' Conv2D, MaxPooling2D, BatchNormalization and Dense
(biases included). It serves `besom summary`, validation and constraints; it knows nothing of Keras
itself, of data or of training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from besom.configs.schema import CnnConfig, ConvConfig
from besom.errors import GeometryError

TIMES = "\N{MULTIPLICATION SIGN}"
DOT = "\N{MIDDLE DOT}"
HEADER = ("layer", "output", "filter tensor", "parameters", "formula", "MACs")
NUMBERS = ("parameters", "MACs")
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """One row of the geometry.

    Args:
        name: the Keras layer's name: ``input``, ``conv_N``, ``batch_norm_N``, ``pool_N`` (N as in
            ``model.conv.N``, from 0), ``flatten`` or ``global_pool``, ``dense``, ``output``.
        output_shape: (height, width, channels), or (units,) from the flattening on; no batch axis.
        filter_shape: the 4-D tensor that the filters of a convolution are together, in the layout of
            Keras' kernel: (height, width, channels of the input, number of filters). Each filter is a
            3-D block as deep as the input has channels, and makes one feature map from all of them.
            None for other layers.
        params: number of weights, biases and moving statistics included (Keras' ``count_params``).
        formula: how ``params`` is computed, empty where there are none.
        macs: multiply-accumulates for one image, those on zero padding included; 0 for layers that
            are not convolutions or dense.
    """

    name: str
    output_shape: Shape
    filter_shape: Shape | None = None
    params: int = 0
    formula: str = ""
    macs: int = 0


@dataclass(frozen=True)
class Geometry:
    """The layers of a network, from the image to the class probabilities."""

    layers: tuple[Layer, ...]

    @property
    def n_params(self) -> int:
        return sum(layer.params for layer in self.layers)

    @property
    def n_macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """Return ``{layers: [{name, output_shape, filter_shape, params, formula, macs}], n_params, n_macs}``."""
        rows = [
            {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(layer).items()}
            for layer in self.layers
        ]
        return {"layers": rows, "n_params": self.n_params, "n_macs": self.n_macs}

    def table(self) -> str:
        """Return the layers as an aligned table for people, a total in its last line."""
        total = ("total", "", "", f"{self.n_params:,}", "", f"{self.n_macs:,}")
        return _aligned([HEADER, *(_row(layer) for layer in self.layers), total])


def geometry(model: CnnConfig, input_shape: tuple[int, int, int], n_classes: int) -> Geometry:
    """Return the geometry of a network on images of one size.

    Args:
        model: the network; only its first ``depth`` convolution blocks count.
        input_shape: (height, width, channels) of an image, each at least 1.
        n_classes: number of units of the softmax at the end, at least 1.

    Raises:
        GeometryError: a kernel or a pool is larger than the feature map it is given.
    """
    layers = [Layer("input", tuple(input_shape))]
    for index, block in enumerate(model.layers):
        layers.extend(_block(index, block, layers[-1].output_shape))
    layers.extend(_head(model, layers[-1].output_shape, n_classes))
    return Geometry(tuple(layers))


def _block(index: int, block: ConvConfig, shape: Shape) -> Iterator[Layer]:
    convolution = _conv(index, block, shape)
    yield convolution
    if block.batch_norm:
        # gamma, beta, moving mean, moving variance
        yield Layer(
            f"batch_norm_{index}", convolution.output_shape, params=4 * block.filters, formula=f"4{DOT}{block.filters}"
        )
    if block.pool is not None:
        yield _pool(index, block.pool, convolution.output_shape)


def _conv(index: int, block: ConvConfig, shape: Shape) -> Layer:
    *sides, channels = shape
    size, filters = block.kernel_size, block.filters
    if block.padding == "same":  # the map is padded until every pixel can be a window's centre
        sides = [_placements(side, 1, block.strides) for side in sides]
    else:
        _must_fit(f"model.conv.{index}.kernel_size", size, shape, f"model.conv.{index}.padding=same")
        sides = [_placements(side, size, block.strides) for side in sides]
    return Layer(
        f"conv_{index}",
        output_shape=(*sides, filters),
        filter_shape=(size, size, channels, filters),
        params=(size * size * channels + 1) * filters,
        formula=f"({size}{DOT}{size}{DOT}{channels}+1){DOT}{filters}",
        macs=math.prod(sides) * filters * size * size * channels,
    )


def _pool(index: int, size: int, shape: Shape) -> Layer:
    *sides, channels = shape
    _must_fit(f"model.conv.{index}.pool", size, shape, f"model.conv.{index}.pool=null")
    return Layer(f"pool_{index}", (*(_placements(side, size, size) for side in sides), channels))


def _head(model: CnnConfig, shape: Shape, n_classes: int) -> Iterator[Layer]:
    units = math.prod(shape) if model.pooling is None else shape[-1]
    yield Layer("flatten" if model.pooling is None else "global_pool", (units,))
    if model.dense:
        yield _dense("dense", units, model.dense)
        units = model.dense
    yield _dense("output", units, n_classes)


def _dense(name: str, inputs: int, units: int) -> Layer:
    return Layer(name, (units,), params=(inputs + 1) * units, formula=f"({inputs}+1){DOT}{units}", macs=inputs * units)


def _placements(side: int, window: int, stride: int) -> int:
    """Return in how many places a window lies on a side when it moves by ``stride`` and never sticks out."""
    return (side - window) // stride + 1


def _must_fit(key: str, size: int, shape: Shape, remedy: str) -> None:
    largest = min(shape[:-1])
    if size > largest:
        raise GeometryError(
            f"{key}={size} does not fit the {_by(shape)} feature map that it gets; "
            f"expected at most {largest}, or {remedy}"
        )


def _by(shape: Sequence[int]) -> str:
    return TIMES.join(map(str, shape))


def _row(layer: Layer) -> tuple[str, ...]:
    filters = ""
    if layer.filter_shape is not None:
        *block, count = layer.filter_shape
        filters = f"{count} {'filter' if count == 1 else 'filters'} of {_by(block)}"
    return (layer.name, _by(layer.output_shape), filters, f"{layer.params:,}", layer.formula, f"{layer.macs:,}")


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines, columns two spaces apart, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    columns = list(zip(HEADER, widths, strict=True))
    lines = (
        "  ".join(
            cell.rjust(width) if title in NUMBERS else cell.ljust(width)
            for cell, (title, width) in zip(row, columns, strict=True)
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
