"""What an epoch costs on one thread: besom's, with and without folding, Keras' `fit` on arrays, the kernels alone.

For the seed's CNN, then for other numbers of filters, kernel sizes and image sizes: CPU microseconds an image of the
training part of an epoch (the first, which traces, is left out), the ratio to TensorFlow's kernels each timed by
itself (kernels.py), and the same for `model.fit` on arrays. The digits are real, doubled or halved in size where said.

    python benchmarks/epoch.py                                the 4,000 digits that ship in a package
    python benchmarks/epoch.py --data mnist.npz --images 50000 --epochs 3
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from machine import about_machine
from summary import spread

from besom.seeding import fix_runtime

fix_runtime(1)  # before TensorFlow is imported

import keras  # noqa: E402
import numpy as np  # noqa: E402
from kernels import seconds_a_step  # noqa: E402

from besom import data  # noqa: E402
from besom.configs.schema import CnnConfig, ConvConfig, DataConfig, TrainConfig  # noqa: E402
from besom.data import Dataset  # noqa: E402
from besom.model import build  # noqa: E402
from besom.paths import write_atomically  # noqa: E402
from besom.trial import training  # noqa: E402

HERE = Path(__file__).resolve().parent
BATCH = 32
KERNEL_STEPS = 300
"""How often each kernel runs; more gives the same figures."""


@dataclass(frozen=True)
class Case:
    """One network and image size."""

    filters: tuple[int, int] = (3, 6)
    kernel_size: int = 5
    pixels: int = 28

    def config(self) -> CnnConfig:
        """Return the network."""
        conv = [ConvConfig(filters=count, kernel_size=self.kernel_size) for count in self.filters]
        return CnnConfig(conv=conv, dense=84, activation="swish")


SEED = Case()
CASES = (
    SEED,
    Case(filters=(8, 16)),
    Case(filters=(16, 32)),
    Case(kernel_size=3),
    Case(kernel_size=7),
    Case(pixels=14),
    Case(pixels=56),
)


class Clock(keras.callbacks.Callback):
    """Notes the CPU seconds of the training part of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self.accuracy = 0.0
        self._start = self._stop = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start the epoch's clock."""
        self._start = time.process_time()

    def on_test_begin(self, logs: Any = None) -> None:
        """Stop it: what follows is validation."""
        self._stop = time.process_time()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Keep its seconds and how well the network does."""
        self.seconds.append(self._stop - self._start)
        self.accuracy = logs["val_accuracy"]


def main() -> None:
    """Measure every case, every way in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data",
        default=os.environ.get("BESOM_MNIST_NPZ"),
        help="mnist.npz; without it the digits that ship in a package (default: BESOM_MNIST_NPZ)",
    )
    parser.add_argument("--images", type=int, help="training images; default: 4,000, of MNIST 50,000")
    parser.add_argument("--epochs", type=int, default=4, help="of which the first does not count")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only-seed", action="store_true", help="the seed's CNN alone")
    parser.add_argument("--out", type=Path, default=HERE / "epoch.json", help="default: %(default)s")
    given = parser.parse_args()
    images = digits(given.data, given.images)
    training.prepare_process(1)
    report = {**about_machine(), "images": len(images.x_train), "batch_size": BATCH, "cases": []}
    for case in (SEED,) if given.only_seed else CASES:
        report["cases"].append({**asdict(case), "runs": list(measured(case, images, given.epochs, given.repeats))})
        write_atomically(given.out, json.dumps(report, indent=1) + "\n")
        print(line(report["cases"][-1]))


def digits(path: str | None, images: int | None) -> Dataset:
    """Return the digits that are trained on."""
    if path is None:
        return data.load(DataConfig("besom.data.mnist_5k", None, images or 4000, 500, 500))
    return data.load(DataConfig("besom.data.mnist", path, images or 50_000, 10_000, 10_000))


def measured(case: Case, images: Dataset, epochs: int, repeats: int) -> Iterator[dict[str, float]]:
    """Yield one run's microseconds an image: besom's, `model.fit`'s and the kernels'."""
    dataset = resized(images, case.pixels)
    for _ in range(repeats):
        run = {}
        for name, fit in (("besom", fit_besom), ("unfolded", fit_unfolded), ("keras", fit_keras)):
            clock = Clock()
            fit(case, dataset, epochs, clock)
            run[name] = statistics.median(clock.seconds[1:]) / len(dataset.x_train) * 1e6
            run[f"{name}_accuracy"] = clock.accuracy
        shape = dataset.x_train.shape[1:]
        run["kernels"] = seconds_a_step(case.config(), shape, dataset.n_classes, BATCH, KERNEL_STEPS) / BATCH * 1e6
        yield run


def fit_besom(case: Case, dataset: Dataset, epochs: int, clock: Clock, *, fold: bool = True) -> None:
    """Train as a trial does."""
    train = TrainConfig(epochs=epochs, batch_size=BATCH, fold=fold)
    training.start_trial(train)
    training.fit(build(case.config(), dataset.x_train.shape[1:], dataset.n_classes), dataset, train, [clock])


def fit_unfolded(case: Case, dataset: Dataset, epochs: int, clock: Clock) -> None:
    """Train as a trial does whose convolutions are Keras' as they are."""
    fit_besom(case, dataset, epochs, clock, fold=False)


def fit_keras(case: Case, dataset: Dataset, epochs: int, clock: Clock) -> None:
    """Train by `model.fit` on arrays."""
    training.start_trial(TrainConfig())
    model = build(case.config(), dataset.x_train.shape[1:], dataset.n_classes)
    model.compile(
        optimizer=keras.optimizers.RMSprop(0.001), loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    validation = (dataset.x_val, dataset.y_val)
    model.fit(
        dataset.x_train, dataset.y_train, batch_size=BATCH, epochs=epochs, validation_data=validation,
        callbacks=[clock], verbose=0,
    )  # fmt: skip


def resized(images: Dataset, pixels: int) -> Dataset:
    """Return the images with so many pixels a side: every second one left out, or each one doubled."""
    if pixels == images.x_train.shape[1]:
        return images
    x_train, x_val = (_resized(x, pixels) for x in (images.x_train, images.x_val))
    return replace(images, x_train=x_train, x_val=x_val)


def _resized(x: np.ndarray, pixels: int) -> np.ndarray:
    factor = pixels / x.shape[1]
    if factor < 1:
        step = round(1 / factor)
        return np.ascontiguousarray(x[:, ::step, ::step])
    return x.repeat(round(factor), axis=1).repeat(round(factor), axis=2)


def line(case: dict[str, Any]) -> str:
    """Return a case as a line of text."""
    runs = case["runs"]
    label = f"{case['filters'][0]}, {case['filters'][1]} filters of {case['kernel_size']}, {case['pixels']} pixels"
    cells = [f"{name} {spread([run[name] for run in runs])} us" for name in ("kernels", "besom", "unfolded", "keras")]
    ratios = [
        f"{name} {spread([run[name] / run['kernels'] for run in runs], 2)}x the kernels"
        for name in ("besom", "unfolded", "keras")
    ]
    return f"{label}: {', '.join(cells)}; {', '.join(ratios)}"


if __name__ == "__main__":
    main()
