"""Up to how many channels folding a convolution pays: forward and backward, plain against folded, on one thread.

    python benchmarks/folding.py

The ratio is folded / plain; below 1 folding is faster. the limits in `besom.trial.folding` are read off this table.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import product
from typing import Any

from besom.seeding import fix_runtime

fix_runtime(1)  # before TensorFlow is imported

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from besom.trial import folding, training  # noqa: E402

BATCH, STEPS, REPEATS = 32, 40, 3
CHANNELS, FILTERS, KERNELS = (1, 3, 4, 6, 8, 12, 16), (3, 6, 8, 12, 16, 32), ((5, 24), (3, 26))
Convolution = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


def plain(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Return a convolution as Keras computes it."""
    return tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "VALID"), bias)


def folded(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Return it folded."""
    return folding.convolution(x, kernel, bias, "valid")


def milliseconds(convolution: Convolution, size: int, channels: int, filters: int, pixels: int) -> Callable[[], float]:
    """Return what times a forward and a backward pass; images have no gradient where they are the first layer's."""
    rng = np.random.default_rng(0)

    def variable(*shape: int) -> tf.Variable:
        return tf.Variable(rng.normal(size=shape).astype(np.float32))

    x, kernel, bias = (
        variable(BATCH, pixels, pixels, channels),
        variable(size, size, channels, filters),
        variable(filters),
    )
    sources = [kernel, bias] if channels == 1 else [x, kernel, bias]
    kept = [variable(*source.shape) for source in sources]
    inside = pixels - size + 1
    gradient = variable(BATCH, inside, inside, filters)

    def step(number: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            y = convolution(tf.convert_to_tensor(x), tf.convert_to_tensor(kernel), tf.convert_to_tensor(bias))
        found: Any = tape.gradient(y, sources, output_gradients=tf.convert_to_tensor(gradient))
        for variable, value in zip(kept, found, strict=True):
            variable.assign(value)
        return [number + 1]

    run = tf.function(lambda n: tf.while_loop(lambda i: i < n, step, [0], parallel_iterations=1), autograph=False)
    run(tf.constant(2))

    def clock() -> float:
        start = time.process_time()
        run(tf.constant(STEPS))
        return (time.process_time() - start) / STEPS * 1000

    return clock


def main() -> None:
    """Print a table for each kernel size."""
    training.prepare_process(1)
    for size, pixels in KERNELS:
        print(f"{size}x{size} on {pixels}x{pixels} pixels; channels down, filters across: {FILTERS}")
        cells = {}
        for channels, filters in product(CHANNELS, FILTERS):
            ways = [milliseconds(way, size, channels, filters, pixels) for way in (folded, plain)]
            pairs = [(ways[0](), ways[1]()) for _ in range(REPEATS)]
            cells[channels, filters] = statistics.median(one / other for one, other in pairs)
        for channels in CHANNELS:
            print(f"{channels:>4}  {'  '.join(f'{cells[channels, filters]:.2f}' for filters in FILTERS)}")


if __name__ == "__main__":
    main()
