"""What a config costs, told before anything is trained and without Keras."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from besom.configs.schema import CnnConfig, ConvConfig
from besom.errors import ConfigError, DataError, GeometryError
from besom.geometry import geometry
from besom.search.constraints import parse_constraints
from besom.trial.measure import measure, sized

MNIST_5K = {"_target_": "besom.data.mnist_5k", "n_train": 4000, "n_val": 500, "n_test": 500}
SEED_BLOCKS = ({"filters": 3, "kernel_size": 5}, {"filters": 6, "kernel_size": 5})


def config(data: dict[str, Any] = MNIST_5K, conv: tuple[dict[str, Any], ...] = SEED_BLOCKS, **model: Any) -> Any:
    return {"data": data, "model": {"_target_": "besom.model.cnn", "conv": list(conv), **model}, "train": {}}


@pytest.fixture
def small_photos(tmp_path: Path) -> dict[str, Any]:
    """A data config of 60 colour images, 12 high and 9 wide, of 4 kinds."""
    rng = np.random.default_rng(0)
    path = tmp_path / "photos.npz"
    np.savez(path, x=rng.integers(0, 256, (60, 12, 9, 3), dtype=np.uint8), y=np.arange(60) % 4)
    return {"_target_": "besom.data.npz", "path": str(path)}


def test_the_seed_network_on_the_digits_costs_what_the_seed_says() -> None:
    assert measure(config()) == {"n_params": 203_068, "n_macs": 425_640}


def test_sized_is_the_geometry_that_measure_counts() -> None:
    expected = geometry(CnnConfig(conv=[ConvConfig(**block) for block in SEED_BLOCKS]), (28, 28, 1), 10)
    assert sized(config()) == expected


def test_image_size_channels_and_classes_come_from_the_data(small_photos: dict[str, Any]) -> None:
    found = sized(config(small_photos, ({"filters": 5, "kernel_size": 3},), dense=0))
    assert found is not None
    assert [layer.output_shape for layer in found.layers] == [(12, 9, 3), (10, 7, 5), (350,), (4,)]
    assert found.n_params == (3 * 3 * 3 + 1) * 5 + (350 + 1) * 4


def test_the_measures_decide_constraints() -> None:
    (limit,) = parse_constraints(["n_params <= 200000"])
    assert limit.broken_by(measure(config())) == "n_params <= 200000 broken: n_params is 203068"
    assert limit.broken_by(measure(config(dense=10))) is None


def test_a_model_builder_of_ones_own_is_not_measured() -> None:
    own = {**config(), "model": {"_target_": "mypackage.build", "width": 3}}
    assert sized(own) is None
    assert measure(own) == {}


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (config(conv=({"kernel_size": 29},)), GeometryError, r"^model\.conv\.0\.kernel_size=29 .* at most 28"),
        (config(conv=({"filters": 0},)), ConfigError, r"^model\.conv\.0\.filters=0 is too small"),
        (config({"_target_": "besom.data.npz", "path": "nowhere.npz"}), DataError, r"nowhere\.npz"),
    ],
)
def test_what_is_wrong_is_said_as_everywhere_else(wrong: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        measure(wrong)


def test_measuring_loads_neither_keras_nor_tensorflow(small_photos: dict[str, Any]) -> None:
    asked = config(small_photos, dense=0)
    code = f"import sys; from besom.trial.measure import measure; measure({asked!r}); print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert shown.returncode == 0, shown.stderr
    assert not {"keras", "tensorflow", "optuna", "mlflow"} & set(shown.stdout.split())
