"""The data sets that besom knows by name, and the folders and packages that they come from."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import BesomCommand
from numpy.typing import NDArray

from besom import data
from besom.datasets import idx, pinned
from besom.errors import ConfigError, DataError
from besom.retrain.trust import refuse_foreign_targets

Array = NDArray[Any]

ROOT = Path(__file__).parents[1]
PACKAGE = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""

SMALL = ("model.conv.0.kernel_size=3", "model.conv.1.kernel_size=3", "train.epochs=1")


@pytest.fixture
def fashion_folder() -> Path:
    folder = Path(os.environ.get("BESOM_FASHION_MNIST", PACKAGE))
    if not folder.is_dir():
        pytest.skip("Debian's dataset-fashion-mnist is not installed, and BESOM_FASHION_MNIST names no such folder")
    return folder


def write_idx(path: Path, array: Array) -> None:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def clothes(folder: Path, n_labels: int = 20) -> Path:
    """Write a folder in the layout of Fashion-MNIST, with images that nobody ever saw."""
    folder.mkdir(parents=True, exist_ok=True)
    x = np.random.default_rng(0).integers(0, 256, (20, 28, 28))
    y = np.arange(20) % 10
    for name, array in zip(idx.FILES, (x, y[:n_labels], x[:10], y[:10]), strict=True):
        write_idx(folder / name, array)
    return folder


# --- digits


def test_digits_are_those_of_load_digits_as_floats_from_0_to_16() -> None:
    from sklearn.datasets import load_digits

    arrays, theirs = data.digits(), load_digits()
    assert (arrays.x.shape, arrays.x.dtype) == ((1797, 8, 8, 1), np.float32)
    assert (arrays.x[..., 0] == theirs.images).all()
    assert (arrays.y == theirs.target).all()
    assert (arrays.x.min(), arrays.x.max(), arrays.n_classes) == (0, 16, 10)


def test_digits_are_read_without_importing_scikit_learn() -> None:
    code = "import sys; from besom import data; assert len(data.digits().y) == 1797; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"sklearn", "scipy", "tensorflow", "pandas"} & set(shown.stdout.split())


def option(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "conf" / "data" / f"{name}.yaml").read_text(encoding="utf-8"))
    return {key: value for key, value in content.items() if key != "defaults"}


def test_digits_are_split_without_a_rest_and_unit_makes_them_0_to_1() -> None:
    config = {**option("digits"), "rescale": "unit"}
    dataset = data.load(config)
    assert (dataset.name, dataset.input_shape, dataset.n_classes) == ("digits", (8, 8, 1), 10)
    assert len(dataset.x_train) + len(dataset.x_val) + len(data.load_test(config)[0]) == 1797
    assert (dataset.scaling.divisor, dataset.x_train.max()) == (16.0, 1.0)
    assert data.peek(config) == (dataset.input_shape, dataset.n_classes)


def other_digits(file: Path) -> None:
    lines = [",".join(["3"] * 64 + [str(label)]) for label in range(10)]
    file.write_bytes(gzip.compress("\n".join(lines).encode()))


def half_a_file(file: Path) -> None:
    other_digits(file)
    file.write_bytes(file.read_bytes()[:-20])


BROKEN_PACKAGES: list[tuple[Callable[[Path], object], str]] = [
    (other_digits, r"holds other images than those of scikit-learn 1\.7: SHA-256 .*; install scikit-learn 1\.7"),
    (half_a_file, r"cannot be read \(Compressed file ended .*\); install scikit-learn 1\.7"),
    (lambda file: file.write_bytes(gzip.compress(b"1,2\n3,4")), r"cannot be read \(cannot reshape .*\); install"),
    (lambda file: None, r"cannot be read \(.*not found.*\); install scikit-learn 1\.7"),
]


@pytest.mark.parametrize(("make", "message"), BROKEN_PACKAGES)
def test_a_package_that_ships_something_else_is_to_be_installed_again(
    make: Callable[[Path], object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sklearn" / "datasets" / "data").mkdir(parents=True)
    (tmp_path / "sklearn" / "__init__.py").touch()
    make(tmp_path / "sklearn" / "datasets" / "data" / "digits.csv.gz")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "sklearn", raising=False)  # an earlier test may have imported the real one
    with pytest.raises(DataError, match=rf"scikit-learn's digits\.csv\.gz {message}") as caught:
        data.digits()
    assert "\n" not in str(caught.value)


# --- Fashion-MNIST


def test_fashion_mnist_has_the_shapes_and_the_first_labels_that_everybody_knows(fashion_folder: Path) -> None:
    arrays = data.fashion_mnist(str(fashion_folder))
    assert (arrays.x.shape, arrays.x.dtype) == ((60000, 28, 28, 1), np.uint8)
    assert arrays.x_test is not None
    assert arrays.y_test is not None
    assert arrays.x_test.shape == (10000, 28, 28, 1)
    assert arrays.y[:5].tolist() == [9, 0, 0, 3, 0]
    assert arrays.y_test[:5].tolist() == [9, 2, 1, 1, 6]
    assert np.bincount(arrays.y).tolist() == [6000] * 10


def test_fashion_mnist_is_split_as_mnist_is_and_the_same_from_an_npz(fashion_folder: Path, tmp_path: Path) -> None:
    config = {**option("fashion_mnist"), "path": str(fashion_folder)}
    dataset = data.load(config)
    assert (dataset.name, len(dataset.x_train), len(dataset.x_val)) == ("fashion_mnist", 50000, 10000)
    assert len(data.load_test(config)[0]) == 10000
    names = ("x_train", "y_train", "x_test", "y_test")
    np.savez(tmp_path / "fashion.npz", **dict(zip(names, idx.read_folder(fashion_folder), strict=True)))
    assert data.fashion_mnist(str(tmp_path / "fashion.npz")).digest == dataset.digest


def test_fashion_mnist_is_taken_from_the_cache_of_keras_without_importing_keras(
    fashion_folder: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "datasets" / "fashion-mnist"
    cache.mkdir(parents=True)
    for name in idx.FILES:
        shutil.copy(fashion_folder / f"{name}.gz", cache)
    code = "import sys; from besom import data; assert len(data.fashion_mnist().y) == 60000; print(*sys.modules)"
    environment = {**os.environ, "KERAS_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert not {"keras", "tensorflow"} & set(done.stdout.split())


def test_the_files_of_keras_are_those_that_its_loader_asks_for() -> None:
    """Keras' loader would download what lies under other names a second time."""
    import inspect

    from keras.datasets import fashion_mnist

    from besom.datasets.download import BASE_URL, FASHION_MNIST

    source = inspect.getsource(fashion_mnist.load_data)
    assert set(re.findall(r'"([\w-]+\.gz)"', source)) == set(FASHION_MNIST.files)
    assert f'"{FASHION_MNIST.folder}"' in source
    assert f'"{BASE_URL}"' in source


def npz_of_others(folder: Path) -> Path:
    x = np.zeros((20, 28, 28), np.uint8)
    np.savez(folder / "other.npz", x_train=x, y_train=np.arange(20) % 10, x_test=x[:10], y_test=np.arange(10))
    return folder / "other.npz"


def without_a_file(folder: Path) -> Path:
    (clothes(folder) / "t10k-labels-idx1-ubyte").unlink()
    return folder


BAD_PATHS: list[tuple[Callable[[Path], Path], str]] = [
    (clothes, r"holds other images than Fashion-MNIST's: SHA-256 .*; use data=npz for images of your own"),
    (npz_of_others, r"other\.npz holds other images than Fashion-MNIST's: SHA-256 "),
    (without_a_file, r"has no file t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte\.gz; expected the four IDX files"),
    (lambda folder: clothes(folder, n_labels=19), r"y_train has the shape \(19,\); expected \(20,\), one label"),
    (lambda folder: folder / "none", r"there is no file or folder '.*none' .*; expected an npz file, or a folder with"),
    (lambda folder: Path(__file__), r"test_sources\.py is not an npz file"),
]


@pytest.mark.parametrize(("make", "message"), BAD_PATHS)
def test_a_path_without_fashion_mnist_is_named_in_one_line(
    make: Callable[[Path], Path], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        data.load({"_target_": "besom.data.fashion_mnist", "path": str(make(tmp_path))})
    assert "\n" not in str(caught.value)


def test_a_folder_may_be_given_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    clothes(tmp_path / "clothes")
    with pytest.raises(DataError, match=r"^~/clothes holds other images than Fashion-MNIST's"):
        data.fashion_mnist("~/clothes")


def test_mnist_too_is_read_from_the_four_files_that_it_is_published_in(tmp_path: Path) -> None:
    path = os.environ.get("BESOM_MNIST_NPZ")
    if not path:
        pytest.skip("BESOM_MNIST_NPZ does not name an mnist.npz with the whole MNIST")
    with np.load(path) as arrays:
        for name, key in zip(idx.FILES, ("x_train", "y_train", "x_test", "y_test"), strict=True):
            write_idx(tmp_path / name, arrays[key])
    assert data.mnist(str(tmp_path)).digest == pinned.MNIST_SHA256


# --- Keras' cache, and no network


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Send every https request of this process to a port where nobody listens; return Keras' empty cache."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "datasets" / "fashion-mnist"


@pytest.mark.parametrize("n_files", [0, 3])
def test_without_network_fashion_mnist_names_the_files_to_give(no_network: Path, n_files: int) -> None:
    no_network.mkdir(parents=True)
    for name in list(idx.FILES)[:n_files]:
        (no_network / f"{name}.gz").touch()
    with pytest.raises(
        DataError,
        match=r"Fashion-MNIST is not in Keras' cache and .*train-images-idx3-ubyte\.gz cannot be reached; "
        r"give a folder with the files train-images.* with data\.path=FOLDER .*, or use data=mnist_5k or data=digits",
    ):
        data.load({"_target_": "besom.data.fashion_mnist"})


def test_a_damaged_file_in_the_cache_of_keras_is_to_be_deleted(no_network: Path) -> None:
    no_network.mkdir(parents=True)
    for name in idx.FILES:
        (no_network / f"{name}.gz").write_bytes(b"half a download")
    with pytest.raises(DataError, match=r"ubyte\.gz begins with the bytes .*; delete it, and Keras downloads it again"):
        data.load({"_target_": "besom.data.fashion_mnist"})


def test_other_files_in_the_cache_of_keras_are_to_be_deleted(no_network: Path) -> None:
    for file in clothes(no_network).iterdir():
        file.rename(f"{file}.gz")
    with pytest.raises(DataError, match=r"holds other images than Fashion-MNIST's: .*; delete it, and Keras downloads"):
        data.load({"_target_": "besom.data.fashion_mnist"})


# --- what all have in common


@pytest.mark.parametrize("name", ["mnist_5k", "digits"])
def test_a_path_that_is_not_read_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.path='a' is not read by data={name}; expected data=npz, data=mnist"):
        data.load({"_target_": f"besom.data.{name}", "path": "a"})


@pytest.mark.parametrize("target", data.OWN_SOURCES)
def test_each_source_has_its_option_and_a_stored_run_may_name_it(target: str) -> None:
    assert option(target.removeprefix("besom.data."))["_target_"] == target
    refuse_foreign_targets({"data": {"_target_": target}}, allow=[])


@pytest.mark.parametrize(("name", "shape"), [("fashion_mnist", (28, 28, 1)), ("digits", (8, 8, 1))])
def test_peek_knows_the_shape_without_reading(name: str, shape: tuple[int, int, int]) -> None:
    assert data.peek({"_target_": f"besom.data.{name}"}) == (shape, 10)


# --- the command line


def command_in(option_file: str) -> list[str]:
    """Return the arguments of the command that an option's header shows."""
    header = (ROOT / "conf" / "data" / option_file).read_text(encoding="utf-8")
    (command,) = re.findall(r"^# +besom (train data=[^(\n]*)", header, flags=re.MULTILINE)
    return [str(word) for word in command.split()]


def test_the_command_in_the_header_of_digits_trains(project: Path, besom_command: BesomCommand) -> None:
    shown = besom_command(*command_in("digits.yaml"), "train.epochs=1", cwd=project)
    assert shown.returncode == 0, shown.stderr


def test_the_default_kernels_do_not_fit_digits_and_the_error_says_what_does(
    project: Path, besom_command: BesomCommand
) -> None:
    shown = besom_command("train", "data=digits", cwd=project)
    assert shown.returncode == 2
    assert re.search(r"conv\.1\.kernel_size=5 does not fit the 4.4.3 feature map .*; expected at most 4", shown.stderr)
    assert len(shown.stderr.strip().splitlines()) == 1
    assert not list(project.iterdir())


@pytest.mark.service  # for the time that it takes
def test_fashion_mnist_is_trained_on_from_a_folder(
    project: Path, besom_command: BesomCommand, fashion_folder: Path
) -> None:
    few = ("data.n_train=300", "data.n_val=100", "data.n_test=0")
    shown = besom_command("train", "data=fashion_mnist", f"data.path={fashion_folder}", *few, *SMALL, cwd=project)
    assert shown.returncode == 0, shown.stderr


def test_a_folder_without_fashion_mnist_ends_with_one_line_and_exit_2(
    project: Path, besom_command: BesomCommand
) -> None:
    clothes(project / "clothes")
    shown = besom_command("train", "data=fashion_mnist", "data.path=clothes", *SMALL, cwd=project)
    assert shown.returncode == 2
    assert "clothes holds other images than Fashion-MNIST's" in shown.stderr
    assert len(shown.stderr.strip().splitlines()) == 1
    assert [path.name for path in project.iterdir()] == ["clothes"]
