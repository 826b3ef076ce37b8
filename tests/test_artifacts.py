"""The files of a trial: tables that parse to what was measured, pictures that are there to be looked at."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from besom.configs.schema import CnnConfig, ConvConfig
from besom.data import Dataset
from besom.datasets.scaling import Scaling
from besom.geometry import Geometry, geometry
from besom.trial import artifacts
from besom.trial.convolutions import Convolution, Opened
from besom.trial.outcome import Fit, Outcome
from besom.trial.pictures import confusion_matrix_picture, learning_curve_picture

LABELS = np.array([2, 0, 1, 2, 0, 0])
PROBABILITIES = np.array(
    [[0.004, 0.006, 0.99], [0.5, 0.3, 0.2], [0.125, 0.75, 0.125], [0.6, 0.1, 0.3], [0.9, 0.1, 0], [1, 0, 0]],
    np.float32,
)
CONFIG = {"data": {"rescale": "none"}, "model": {"conv": [{"filters": 3, "activation": None}]}, "train": {"seed": 1}}
FIT = Fit(
    history={
        "train_loss": [2.0, 0.5, 0.3],
        "train_accuracy": [0.4, 0.8, 0.9],
        "val_loss": [1.5, 0.6, 0.7],
        "val_accuracy": [0.5, 0.8, 0.75],
    },
    best_epoch=1,
    objective=0.8,
    fit_seconds=1.5,
)


FINGERPRINT = {"threads": 1, "packages": {"keras": "3"}, "cpu": "é"}


def outcome(probabilities: NDArray[np.float32] = PROBABILITIES, labels: NDArray[np.int64] = LABELS) -> Outcome:
    """An outcome as training gives it; no model, because no artifact looks at it."""
    x = np.zeros((len(labels), 4, 4, 1), np.float32)
    n_classes = probabilities.shape[1]
    dataset = Dataset("toy", x, labels, x, labels, n_classes, "a" * 64, "b" * 64, Scaling("none"))
    no_model: Any = None
    return Outcome(no_model, FIT, dataset, probabilities, 7, {}, FINGERPRINT, 0.5)


SEED = CnnConfig(conv=[ConvConfig(filters=3, kernel_size=5), ConvConfig(filters=6, kernel_size=5)])
GEOMETRY = geometry(SEED, (28, 28, 1), 10)
COMPLETE: dict[str, Any] = {"outcome": outcome(), "fit": FIT, "fingerprint": FINGERPRINT}
SEED_SIZES = [((28, 28, 1), (24, 24, 3)), ((24, 24, 3), (20, 20, 6))]


def opened(sizes: Sequence[tuple[tuple[int, int, int], tuple[int, int, int]]]) -> Opened:
    """A model opened, each convolution of 5x5 taking and giving numbers of so many pixels and channels."""
    rng = np.random.default_rng(0)
    layers = [
        Convolution(
            name=f"conv_{number}",
            kernel=rng.normal(size=(5, 5, inputs[2], maps[2])).astype(np.float32),
            bias=np.zeros(maps[2], np.float32),
            has_bias=True,
            padding="valid",
            strides=(1, 1),
            inputs=rng.normal(size=inputs).astype(np.float32),
            maps=rng.normal(size=maps).astype(np.float32),
        )
        for number, (inputs, maps) in enumerate(sizes)
    ]
    return Opened(layers[0].inputs, 2, 1, layers)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a whole trial leaves."""
    made = tmp_path_factory.mktemp("trial") / "new"
    artifacts.write(made, config=CONFIG, **COMPLETE, geometry=GEOMETRY, opened=opened(SEED_SIZES))
    return made


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        image.load()
        return image.size


WHOLE = {
    "config.yaml",
    "layers.csv",
    "learning_curve.png",
    "confusion_matrix.csv",
    "confusion_matrix.png",
    "predictions.csv",
    "mistakes.csv",
    "mistakes.png",
    "fingerprint.json",
}
PICTURES = {
    *("filters/conv_0.png", "filters/conv_1.png"),
    *("feature_maps/conv_0.png", "feature_maps/conv_1.png", "feature_maps/maps.npz"),
}
STOPPED = {"config.yaml", "layers.csv", "fingerprint.json"}


@pytest.mark.parametrize(
    ("what", "files"),
    [
        ({**COMPLETE, "geometry": GEOMETRY, "opened": opened(SEED_SIZES)}, WHOLE | PICTURES),
        ({**COMPLETE, "geometry": None}, WHOLE - {"layers.csv"}),
        ({"geometry": GEOMETRY, "fit": FIT, "fingerprint": FINGERPRINT}, STOPPED | {"learning_curve.png"}),
        ({"geometry": GEOMETRY, "fingerprint": FINGERPRINT}, STOPPED),
        ({"geometry": GEOMETRY, "fingerprint": {}}, {"config.yaml", "layers.csv"}),
        ({"geometry": None}, {"config.yaml"}),
    ],
    ids=["whole", "own model", "pruned", "failed", "failed without data", "failed with an own model"],
)
def test_a_trial_leaves_what_there_is(tmp_path: Path, what: dict[str, Any], files: set[str]) -> None:
    artifacts.write(tmp_path, config=CONFIG, **what)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")} == files


def test_the_config_comes_back_as_it_was(folder: Path) -> None:
    assert yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")) == CONFIG


def test_the_fingerprint_comes_back_as_it_was(folder: Path) -> None:
    assert json.loads((folder / "fingerprint.json").read_text(encoding="utf-8")) == FINGERPRINT


def test_the_layers_are_the_seeds(folder: Path) -> None:
    rows = table(folder / "layers.csv")
    assert [row["name"] for row in rows] == ["input", "conv_0", "conv_1", "flatten", "dense", "output"]
    assert rows[2] == {
        "name": "conv_1",
        "output_shape": "20x20x6",
        "filter_shape": "5x5x3x6",
        "params": "456",
        "formula": "(5·5·3+1)·6",
        "macs": "180000",
    }
    assert rows[3]["filter_shape"] == ""
    assert sum(int(row["params"]) for row in rows) == 203_068


def test_the_predictions_are_the_first_five_rounded_beside_the_truth(folder: Path) -> None:
    rows = table(folder / "predictions.csv")
    assert list(rows[0]) == ["p0", "p1", "p2", "t0", "t1", "t2", "predicted", "truth"]
    assert [list(row.values()) for row in rows] == [
        ["0.00", "0.01", "0.99", "0", "0", "1", "2", "2"],
        ["0.50", "0.30", "0.20", "1", "0", "0", "0", "0"],
        ["0.12", "0.75", "0.12", "0", "1", "0", "1", "1"],
        ["0.60", "0.10", "0.30", "0", "0", "1", "0", "2"],
        ["0.90", "0.10", "0.00", "1", "0", "0", "0", "0"],
    ]


def test_fewer_images_than_five_are_all_shown(tmp_path: Path) -> None:
    artifacts.write(tmp_path, config={}, geometry=Geometry(()), outcome=outcome(PROBABILITIES[:2], LABELS[:2]))
    assert len(table(tmp_path / "predictions.csv")) == 2


def test_the_feature_maps_are_kept_as_numbers(folder: Path) -> None:
    given = opened(SEED_SIZES)
    with np.load(folder / "feature_maps" / "maps.npz") as kept:
        assert set(kept) == {"image", "conv_0", "conv_1"}
        np.testing.assert_array_equal(kept["image"], given.image)
        np.testing.assert_array_equal(kept["conv_1"], given.convolutions[1].maps)


def test_of_large_feature_maps_the_first_ones_are_kept(tmp_path: Path) -> None:
    sizes = [((100, 100, 1), (96, 96, 9)), ((96, 96, 9), (92, 92, 2)), ((400, 400, 2), (396, 396, 1))]
    artifacts.write(tmp_path, config={}, geometry=None, opened=opened(sizes))
    with np.load(tmp_path / "feature_maps" / "maps.npz") as kept:
        assert {name: kept[name].shape for name in kept} == {
            "image": (100, 100, 1), "conv_0": (96, 96, 1), "conv_1": (92, 92, 1)
        }  # fmt: skip
    assert (tmp_path / "feature_maps" / "maps.npz").stat().st_size < 200_000 + 100 * 100 * 4


def test_the_confusion_matrix_has_the_truth_in_its_rows(folder: Path) -> None:
    rows = table(folder / "confusion_matrix.csv")
    assert [list(row.values()) for row in rows] == [["0", "3", "0", "0"], ["1", "0", "1", "0"], ["2", "1", "0", "1"]]
    assert list(rows[0]) == ["truth", "predicted_0", "predicted_1", "predicted_2"]


@given(
    arrays(np.float32, (20, 4), elements=st.floats(0, 1, width=32)),
    arrays(np.int64, 20, elements=st.integers(0, 3)),
)
def test_every_image_is_counted_once_in_the_row_of_its_class(
    probabilities: NDArray[np.float32], truth: NDArray[np.int64]
) -> None:
    counts = artifacts.confusion_matrix(probabilities, truth)
    assert counts.shape == (4, 4)
    np.testing.assert_array_equal(counts.sum(axis=1), np.bincount(truth, minlength=4))
    assert np.trace(counts) == (probabilities.argmax(axis=1) == truth).sum()


def test_the_pictures_have_their_sizes_and_more_than_one_colour(folder: Path) -> None:
    assert size_of(folder / "learning_curve.png") == (1000, 440)
    assert size_of(folder / "confusion_matrix.png") == (740, 740)
    for name in ("learning_curve.png", "confusion_matrix.png"):
        with Image.open(folder / name) as image:
            assert len(image.convert("RGB").getcolors(1_000_000)) > 100


@pytest.mark.parametrize(
    "history",
    [
        {name: values[:1] for name, values in FIT.history.items()},
        {name: [*values, float("nan"), float("inf")] for name, values in FIT.history.items()},
        {name: [100.0, 1.0, 0.001] for name in FIT.history},
        {name: [0.0, 0.0, 0.0] for name in FIT.history},
    ],
    ids=["one epoch", "not finite", "over decades", "all zero"],
)
def test_any_history_is_drawn(tmp_path: Path, history: dict[str, list[float]]) -> None:
    learning_curve_picture(tmp_path / "curve.png", replace(FIT, history=history, best_epoch=0))
    assert size_of(tmp_path / "curve.png") == (1000, 440)


@pytest.mark.parametrize(
    "counts",
    [np.diag([12_000, 9]), np.array([[0, 5], [5, 0]]), np.eye(21, dtype=np.int64)],
    ids=["no mistake", "all mistakes", "many classes"],
)
def test_any_counts_are_drawn(tmp_path: Path, counts: NDArray[np.int64]) -> None:
    confusion_matrix_picture(tmp_path / "matrix.png", counts)
    assert size_of(tmp_path / "matrix.png") == (740, 740)


def test_no_figure_library_is_loaded_where_trials_are_trained() -> None:
    code = "import besom.trial.pictures, besom.trial.filter_pictures, sys; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
