"""Sources, rescaling and the locked test part; what a broken file, loader or network says."""

from __future__ import annotations

import io
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Mapping
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from omegaconf import OmegaConf

from besom import data
from besom.configs.schema import DataConfig
from besom.datasets import download
from besom.errors import ConfigError, DataError

Array = NDArray[Any]

MNIST_5K = {"_target_": "besom.data.mnist_5k"}


@pytest.fixture
def mnist_npz() -> str:
    path = os.environ.get("BESOM_MNIST_NPZ")
    if not path:
        pytest.skip("BESOM_MNIST_NPZ does not name an mnist.npz with the whole MNIST")
    return path


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def images(n: int = 40, shape: tuple[int, ...] = (6, 5), dtype: Any = np.uint8) -> Array:
    return np.random.default_rng(0).integers(0, 256, (n, *shape)).astype(dtype)


def labels(n: int = 40, k: int = 4) -> Array:
    return np.arange(n) % k


def npz(**arrays: Any) -> dict[str, Any]:
    """Write ``mine.npz`` into the working directory and return the ``data`` group that names it."""
    np.savez_compressed("mine.npz", **arrays)
    return {"_target_": "besom.data.npz", "path": "mine.npz"}


# --- the sources


def test_mnist_5k_is_500_of_each_digit() -> None:
    arrays = data.mnist_5k()
    assert (arrays.x.shape, arrays.x.dtype) == ((5000, 28, 28, 1), np.uint8)
    assert np.bincount(arrays.y).tolist() == [500] * 10


def test_mnist_5k_is_split_4000_500_500_by_its_config_and_evenly() -> None:
    config = {**MNIST_5K, "n_train": 4000, "n_val": 500, "n_test": 500}
    dataset = data.load(config)
    assert (dataset.name, dataset.input_shape, dataset.n_classes) == ("mnist_5k", (28, 28, 1), 10)
    assert (dataset.x_train.shape, dataset.x_train.dtype) == ((4000, 28, 28, 1), np.float32)
    assert np.bincount(dataset.y_train).tolist() == [400] * 10
    assert np.bincount(dataset.y_val).tolist() == [50] * 10
    assert dataset.x_train.max() == 255.0


def test_mnist_has_the_shapes_and_the_first_labels_that_everybody_knows(mnist_npz: str) -> None:
    arrays = data.mnist(mnist_npz)
    assert arrays.x.shape == (60000, 28, 28, 1)
    assert arrays.x_test is not None
    assert arrays.x_test.shape == (10000, 28, 28, 1)
    assert arrays.y[:5].tolist() == [5, 0, 4, 1, 9]
    one_hot = data.one_hot(arrays.y, arrays.n_classes)
    assert one_hot.shape == (60000, 10)
    assert one_hot[:5].argmax(axis=1).tolist() == [5, 0, 4, 1, 9]


def test_mnist_is_trained_and_validated_on_its_60000_and_tested_on_its_own_10000(mnist_npz: str) -> None:
    config = {"_target_": "besom.data.mnist", "path": mnist_npz, "n_train": 50000, "n_val": 10000, "n_test": 10000}
    dataset = data.load(config)
    assert (len(dataset.x_train), len(dataset.x_val)) == (50000, 10000)
    x_test, y_test = data.load_test(config)
    assert x_test.shape == (10000, 28, 28, 1)
    assert np.bincount(y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_mnist_is_taken_from_the_cache_of_keras_without_importing_keras(mnist_npz: str, tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "mnist.npz").symlink_to(mnist_npz)
    code = "import sys; from besom import data; assert len(data.mnist().y) == 60000; print(*sys.modules)"
    environment = {**os.environ, "KERAS_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert not {"keras", "tensorflow"} & set(done.stdout.split())


def test_other_images_in_the_layout_of_mnist_are_not_called_mnist() -> None:
    config = npz(x_train=images(), y_train=labels(), x_test=images(8), y_test=labels(8))
    with pytest.raises(DataError, match=r"mine\.npz holds other images than MNIST's: SHA-256 .*; use data=npz"):
        data.load({**config, "_target_": "besom.data.mnist"})


LAYOUTS = [
    ((6, 5), np.uint8, (6, 5, 1), np.uint8),
    ((6, 5, 3), np.uint8, (6, 5, 3), np.uint8),
    ((6, 5), np.float64, (6, 5, 1), np.float32),
    ((6, 5, 2), np.int16, (6, 5, 2), np.float32),
    ((1, 1), np.float32, (1, 1, 1), np.float32),
]


@pytest.mark.parametrize(("shape", "dtype", "expected_shape", "expected_dtype"), LAYOUTS)
def test_npz_gives_images_with_channels_as_uint8_or_float32(
    shape: tuple[int, ...], dtype: Any, expected_shape: tuple[int, ...], expected_dtype: Any
) -> None:
    config = npz(x=images(shape=shape, dtype=dtype), y=labels().astype(np.uint8))
    arrays = data.npz("mine.npz")
    assert (arrays.input_shape, arrays.x.dtype, arrays.y.dtype) == (expected_shape, expected_dtype, np.int64)
    assert (arrays.x.reshape(-1) == images(shape=shape, dtype=dtype).reshape(-1)).all()
    assert data.peek(config) == (expected_shape, 4)
    assert data.load(config).name == "mine"


@settings(deadline=None)
@given(
    x=npst.arrays(np.uint8, st.tuples(st.just(12), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2))),
    fortran=st.booleans(),
)
def test_npz_gives_back_what_was_saved(x: Array, fortran: bool) -> None:
    npz(x=np.asfortranarray(x) if fortran else x, y=labels(12, 3))
    arrays = data.npz("mine.npz")
    assert (arrays.x == x).all()
    assert arrays.y.tolist() == labels(12, 3).tolist()


def test_npz_with_its_own_test_part_keeps_it_apart() -> None:
    config = npz(x_train=images(), y_train=labels(), x_test=np.full((8, 6, 5), 7), y_test=labels(8))
    with pytest.raises(DataError, match=r"x_test has images of \(6, 5, 1\) float32; expected \(6, 5, 1\) uint8"):
        data.load(config)
    config = npz(x_train=images() // 2, y_train=labels(), x_test=np.full((8, 6, 5), 255, np.uint8), y_test=labels(8))
    other = {**config, "split_seed": 1}  # not the config that failed above
    dataset = data.load(other)
    assert len(dataset.x_train) + len(dataset.x_val) == 40
    assert max(dataset.x_train.max(), dataset.x_val.max()) < 255
    assert (data.load_test(other)[0] == 255).all()


# --- digests, cache, test part


def test_the_digest_is_of_the_decoded_arrays_before_the_split() -> None:
    base = npz(x=images(), y=labels())
    digests = {
        data.load({**base, **more}).digest for more in ({}, {"n_train": 8}, {"split_seed": 5}, {"rescale": "unit"})
    }
    assert digests == {data.npz("mine.npz").digest}
    changed = images()
    changed[39, 0, 0] ^= 1
    npz(x=changed, y=labels())
    assert data.npz("mine.npz").digest not in digests


def test_the_digest_tells_shapes_and_types_of_the_same_bytes_apart() -> None:
    bytes_of = images(shape=(2, 6))
    digests = set()
    for x in (bytes_of, bytes_of.reshape(40, 6, 2), bytes_of.reshape(40, 2, 3, 2), bytes_of.astype(np.float32)):
        npz(x=x, y=labels())
        digests.add(data.npz("mine.npz").digest)
    assert len(digests) == 4


def test_the_test_part_is_never_in_the_dataset() -> None:
    x = np.arange(200, dtype=np.float32).reshape(200, 1, 1)  # every image is known by its one value
    config = npz(x=x, y=labels(200))
    dataset = data.load(config)
    x_test, y_test = data.load_test(config)
    seen = set(dataset.x_train.ravel()) | set(dataset.x_val.ravel())
    assert len(x_test) == 20
    assert not seen & set(x_test.ravel())
    assert seen | set(x_test.ravel()) == set(range(200))
    assert (y_test == x_test.ravel() % 4).all()
    assert (dataset.y_train == dataset.x_train.ravel() % 4).all()


def test_an_empty_test_part_cannot_be_loaded() -> None:
    config = {**npz(x=images(), y=labels()), "n_test": 0}
    assert len(data.load(config).x_train) == 36
    with pytest.raises(DataError, match=r"data\.n_test=0 leaves no test images; expected at least 1"):
        data.load_test(config)


def test_a_warm_process_decodes_a_config_once_and_nobody_can_spoil_its_arrays() -> None:
    config = npz(x=images(), y=labels())
    dataset = data.load(config)
    assert data.load(dict(config)) is dataset
    assert data.load(OmegaConf.create(config)) is dataset
    with pytest.raises(ValueError, match="read-only"):
        dataset.x_train[0] = 0


def test_the_same_relative_path_in_another_folder_is_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = data.load(npz(x=images(), y=labels()))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert data.load(npz(x=images() // 2, y=labels())).digest != first.digest


def test_a_typed_config_and_its_plain_form_give_the_same_images() -> None:
    typed = data.load(DataConfig(n_train=100, n_val=100))
    plain = data.load({**MNIST_5K, "n_train": 100, "n_val": 100})
    assert (typed.digest, typed.split_digest) == (plain.digest, plain.split_digest)
    assert (typed.x_train == plain.x_train).all()


# --- rescaling


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_rescale_none_leaves_the_values_as_they_are(dtype: Any) -> None:
    dataset = data.load(npz(x=images(dtype=dtype), y=labels()))
    assert dataset.x_train.dtype == np.float32
    assert set(dataset.x_train.ravel()) <= set(images().ravel().astype(np.float32))


def test_rescale_unit_divides_bytes_by_255_even_where_none_is_that_bright() -> None:
    config = {**npz(x=np.minimum(images(), 51), y=labels()), "rescale": "unit"}
    dataset = data.load(config)
    assert dataset.x_train.max() == np.float32(51) / np.float32(255)
    assert data.load_test(config)[0].max() == dataset.x_train.max()


def test_rescale_unit_divides_floats_by_the_largest_training_value() -> None:
    config = {**npz(x=images(dtype=np.float32) * 3, y=labels()), "rescale": "unit"}
    dataset = data.load(config)
    assert dataset.x_train.max() == 1.0
    assert dataset.scaling.divisor == data.load({**config, "rescale": "none"}).x_train.max()


def test_rescale_standardize_takes_mean_and_deviation_from_training_images_only() -> None:
    x = images(3000, dtype=np.float32)
    config = {**npz(x=x, y=labels(3000)), "n_train": 2000, "n_val": 500, "n_test": 500}
    raw = data.load(config)
    dataset = data.load({**config, "rescale": "standardize"})
    assert dataset.scaling.offset == pytest.approx(raw.x_train.mean(dtype=np.float64))
    assert dataset.scaling.divisor == pytest.approx(raw.x_train.std(dtype=np.float64))
    assert dataset.x_train.mean(dtype=np.float64) == pytest.approx(0, abs=1e-6)
    assert dataset.x_train.std(dtype=np.float64) == pytest.approx(1)
    assert (dataset.x_val == dataset.scaling.apply(raw.x_val)).all()


RANGELESS = [
    ("unit", np.full((40, 2, 2), -1.0), r"data\.rescale=unit divides by the largest training value, which is -1"),
    ("standardize", np.full((40, 2, 2), 9), r"data\.rescale=standardize divides by the deviation .* all are 9"),
]


@pytest.mark.parametrize(("rescale", "x", "message"), RANGELESS)
def test_images_without_a_range_cannot_be_rescaled(rescale: str, x: Array, message: str) -> None:
    with pytest.raises(DataError, match=message):
        data.load({**npz(x=x, y=labels()), "rescale": rescale})


# --- peek and one_hot


@pytest.mark.parametrize("target", ["besom.data.mnist_5k", "besom.data.mnist"])
def test_peek_knows_mnist_without_reading_it(target: str) -> None:
    assert data.peek({"_target_": target}) == ((28, 28, 1), 10)


def test_peek_reads_only_the_header_of_the_images() -> None:
    config = npz(x=images(shape=(30, 30)), y=labels())
    damage("x.npy")
    assert data.peek(config) == ((30, 30, 1), 4)
    with pytest.raises(DataError, match=r"mine\.npz: 'x' cannot be read"):
        data.load(config)


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=30))
def test_one_hot_has_a_column_for_every_class_also_for_those_that_are_absent(y: list[int]) -> None:
    rows = data.one_hot(np.array(y), 7)
    assert (rows.shape, rows.dtype) == ((len(y), 7), np.float32)
    assert rows.argmax(axis=1).tolist() == y
    assert (rows.sum(axis=1) == 1).all()


# --- broken files


def damage(member: str, at: float = 0.7) -> None:
    """Flip a byte of what is stored for a member of ``mine.npz``."""
    with zipfile.ZipFile("mine.npz") as file:
        info = file.getinfo(member)
        name_and_extra = struct.unpack("<HH", Path("mine.npz").read_bytes()[info.header_offset + 26 :][:4])
    content = bytearray(Path("mine.npz").read_bytes())
    content[info.header_offset + 30 + sum(name_and_extra) + int(info.compress_size * at)] ^= 0xFF
    Path("mine.npz").write_bytes(content)


def npy(array: Array, shape: tuple[int, ...] | None = None, **save: Any) -> bytes:
    """Return an npy file; ``shape`` is the one it claims to have."""
    buffer = io.BytesIO()
    if shape is None:
        np.save(buffer, array, **save)
    else:
        header = {"descr": array.dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(buffer, header)
        buffer.write(array.tobytes())
    return buffer.getvalue()


def zipped(**members: bytes) -> None:
    with zipfile.ZipFile("mine.npz", "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)


def damaged(member: str) -> None:
    np.savez("mine.npz", x=images(), y=labels())
    damage(member)


def truncated() -> None:
    np.savez("mine.npz", x=images(), y=labels())
    Path("mine.npz").write_bytes(Path("mine.npz").read_bytes()[:700])


BROKEN_FILES: list[tuple[Callable[[], object], str]] = [
    (lambda: None, r"there is no file 'mine\.npz' \(looked in .+\); expected an npz file"),
    (lambda: Path("mine.npz").mkdir(), r"mine\.npz is not an npz file"),
    (lambda: Path("mine.npz").write_bytes(b""), r"mine\.npz is not an npz file"),
    (
        lambda: Path("mine.npz").write_text("hello\n"),
        r"mine\.npz is not an npz file .*; expected one made by numpy\.savez",
    ),
    (lambda: Path("mine.npz").write_bytes(npy(images())), r"mine\.npz is not an npz file"),
    (truncated, r"mine\.npz is not an npz file"),
    (lambda: damaged("x.npy"), r"mine\.npz: 'x' cannot be read \(Bad CRC-32 .*\); .*write the file again"),
    (lambda: damaged("y.npy"), r"mine\.npz: 'y' cannot be read \(Bad CRC-32 "),
    (lambda: zipped(x=b"not an array", y=npy(labels())), r"'x' cannot be read \(the magic string is not correct"),
    (
        lambda: zipped(x=npy(np.array([[{}]]), allow_pickle=True), y=npy(labels())),
        r"'x' holds Python objects, which are never unpickled; expected numbers",
    ),
    (
        lambda: zipped(x=npy(images(), (10**6, 1000, 1000)), y=npy(labels())),
        r"'x' claims shape \(1000000, 1000, 1000\) of uint8, but 1200 bytes are stored for it",
    ),
    (lambda: zipped(x=npy(images(), (2**62, 4, 1)), y=npy(labels())), r"'x' claims shape .*, but 1200 bytes"),
    (lambda: zipped(x=npy(images(), (-40, 6, -5)), y=npy(labels())), r"'x' claims shape \(-40, 6, -5\)"),
    (lambda: zipped(x=npy(images(), (39, 6, 5)), y=npy(labels())), r"'x' claims shape \(39, 6, 5\)"),
]


@pytest.mark.parametrize(("make", "message"), BROKEN_FILES)
def test_a_broken_file_is_named_in_one_line(make: Callable[[], object], message: str) -> None:
    make()
    with pytest.raises(DataError, match=message) as caught:
        data.load({"_target_": "besom.data.npz", "path": "mine.npz"})
    assert "\n" not in str(caught.value)


def test_a_zip_bomb_is_refused_before_it_takes_memory() -> None:
    import psutil

    size = psutil.virtual_memory().total // 2  # as float32 it would need more than there is
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (size // 10**6, 1000, 1000)}
    )
    total = header.tell() + size // 10**6 * 10**6
    zipped(x=header.getvalue(), y=npy(labels()))
    # a directory that claims what the header does: only the claim is tested, writing it out would take minutes
    content = Path("mine.npz").read_bytes()
    entry = content.index(b"PK\x01\x02")
    extra = struct.pack("<HHQ", 1, 8, total)
    name_length = len("x.npy")
    patched = bytearray(content)
    patched[entry + 24 : entry + 28] = b"\xff\xff\xff\xff"
    patched[entry + 30 : entry + 32] = struct.pack("<H", len(extra))
    patched[entry + 46 + name_length : entry + 46 + name_length] = extra
    end = patched.index(b"PK\x05\x06")
    directory_size = struct.unpack("<L", patched[end + 12 : end + 16])[0]
    patched[end + 12 : end + 16] = struct.pack("<L", directory_size + len(extra))
    Path("mine.npz").write_bytes(patched)
    started = time.monotonic()
    with pytest.raises(
        DataError, match=r"'x' claims [\d,]+ bytes, more than the \d+ bytes of the file can hold; expected fewer"
    ):
        data.load({"_target_": "besom.data.npz", "path": "mine.npz"})
    assert time.monotonic() - started < 5


BROKEN_ARRAYS: list[tuple[dict[str, Any], str]] = [
    (
        {"a": images(), "b": labels()},
        r"holds the arrays a, b; expected x and y, or x_train, y_train, x_test and y_test",
    ),
    ({"x": images()}, r"holds the arrays x; expected x and y"),
    ({"x": images(shape=(30,)), "y": labels()}, r"x has the shape \(40, 30\); expected \(n, h, w\) or \(n, h, w, c\)"),
    ({"x": images(shape=(1, 2, 3, 5)), "y": labels()}, r"x has the shape \(40, 1, 2, 3, 5\)"),
    ({"x": images(0), "y": labels(0)}, r"x has the shape \(0, 6, 5\); expected .* with nothing empty"),
    ({"x": images(shape=(6, 0)), "y": labels()}, r"x has the shape \(40, 6, 0\)"),
    ({"x": images(), "y": labels(39)}, r"y has the shape \(39,\); expected \(40,\), one label for each image"),
    ({"x": images(), "y": labels().reshape(40, 1)}, r"y has the shape \(40, 1\); expected \(40,\)"),
    ({"x": images(), "y": labels() * 1.0}, r"y is of type float64; expected integer labels"),
    ({"x": images(), "y": labels().astype(str)}, r"y is of type <U\d+; expected integer labels"),
    ({"x": images(), "y": labels() - 1}, r"y has labels from -1 to 2 but no 0; .* number the classes without gaps"),
    ({"x": images(), "y": labels() + 1}, r"y has labels from 1 to 4 but no 0"),
    ({"x": images(), "y": labels() * 2}, r"y has labels from 0 to 6 but no 1"),
    ({"x": images(), "y": labels(k=1)}, r"y has the label 0 only; expected at least 2 classes"),
    ({"x": images().astype(complex), "y": labels()}, r"x is of type complex128; expected uint8 or float32"),
    ({"x": images() > 9, "y": labels()}, r"x is of type bool; expected uint8 or float32"),
    ({"x": np.full((40, 2, 2), np.nan), "y": labels()}, r"x has values that are nan or infinite as float32"),
    ({"x": np.full((40, 2, 2), 1e300), "y": labels()}, r"x has values that are nan or infinite as float32"),
    (
        {"x_train": images(), "y_train": labels(), "x_test": images(8, (5, 5)), "y_test": labels(8)},
        r"x_test has images of \(5, 5, 1\) uint8; expected \(6, 5, 1\) uint8 as in x_train",
    ),
    (
        {"x_train": images(), "y_train": labels(), "x_test": images(8), "y_test": labels(8, 5)},
        r"y_test has the label 4; expected 0 to 3 as in y_train",
    ),
    (
        {"x_train": images(), "y_train": labels(), "x_test": images(8), "y_test": labels(7)},
        r"y_test has the shape \(7,\); expected \(8,\)",
    ),
]


@pytest.mark.parametrize(("arrays", "message"), BROKEN_ARRAYS)
def test_arrays_that_are_no_images_with_labels_are_named_in_one_line(arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"mine\.npz:? {message}") as caught:
        data.load(npz(**arrays))
    assert "\n" not in str(caught.value)


# --- keys


BAD_KEYS: list[tuple[dict[str, Any], str]] = [
    (
        {"_target_": "besom.data.minst"},
        r"data\._target_='besom\.data\.minst' is not known; .* did you mean 'besom\.data\.mnist'",
    ),
    ({**MNIST_5K, "n_trian": 5}, r"data\.n_trian: Key 'n_trian' not in 'DataConfig'"),
    ({**MNIST_5K, "n_train": "many"}, r"data\.n_train: Value 'many' .* could not be converted to Integer"),
    ({**MNIST_5K, "n_train": 0}, r"data\.n_train=0 is too small; expected at least 1"),
    ({**MNIST_5K, "rescale": "units"}, r"data\.rescale='units' is not known; .* did you mean 'unit'"),
    (
        {**MNIST_5K, "path": "a.npz"},
        r"data\.path='a\.npz' is not read by data=mnist_5k; expected data=npz, data=mnist or data=fashion_mnist",
    ),
]


@pytest.mark.parametrize(("config", "message"), BAD_KEYS)
def test_a_wrong_key_or_value_is_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        data.load(config)


def test_npz_without_a_path_asks_for_one() -> None:
    with pytest.raises(DataError, match=r"data=npz needs a file; expected data\.path=mine\.npz"):
        data.load({"_target_": "besom.data.npz"})


# --- a user's own loader

LOADERS = """
import numpy as np

CALLS = []

def images(n=40, side=4, k=4):
    CALLS.append(n)
    return np.zeros((n, side, side), np.uint8), np.arange(n) % k

def classes(n_classes, input_shape):
    return np.zeros((40, *input_shape), np.uint8), np.arange(40) % n_classes

def four():
    return *images(), *images(8)

def fails():
    raise RuntimeError("the disk\\nis on fire")

def lists():
    return [[[[0]], [[1]], [[2, 3]]], [0, 1, 2]]

def nothing():
    return None

def nested():
    return images(), images(8), 1

number = 3
"""


@pytest.fixture
def loaders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an importable module of a user's own loaders, a new one for each test."""
    name = f"loaders_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(LOADERS)
    (tmp_path / f"{name}_broken.py").write_text("import no_such_thing")
    (tmp_path / f"{name}_typo.py").write_text("def load(:")
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_an_own_loader_gets_the_keys_that_are_not_the_splits(loaders: str) -> None:
    dataset = data.load({"_target_": f"{loaders}.images", "side": 7, "n": 60, "n_val": 6, "rescale": "unit"})
    assert dataset.name == f"{loaders}.images"
    assert dataset.input_shape == (7, 7, 1)
    assert (len(dataset.x_train), len(dataset.x_val)) == (48, 6)


def test_an_own_loader_may_bring_its_own_test_part(loaders: str) -> None:
    config = {"_target_": f"{loaders}.four"}
    assert len(data.load(config).x_train) == 36
    assert len(data.load_test(config)[0]) == 8


def test_peek_calls_an_own_loader_only_where_its_config_does_not_tell(loaders: str) -> None:
    calls = __import__(loaders).CALLS
    target = {"_target_": f"{loaders}.images"}
    assert data.peek({**target, "input_shape": [4, 4, 1], "n_classes": 4}) == ((4, 4, 1), 4)
    assert calls == []
    assert data.peek(target) == ((4, 4, 1), 4)
    assert calls == [40]


def test_declarations_reach_a_loader_that_has_parameters_for_them(loaders: str) -> None:
    dataset = data.load({"_target_": f"{loaders}.classes", "n_classes": 5, "input_shape": [3, 2, 1]})
    assert (dataset.input_shape, dataset.n_classes) == ((3, 2, 1), 5)


BAD_LOADERS: list[tuple[Mapping[str, Any], type[Exception], str]] = [
    (
        {"_target_": "no_such_package.load"},
        ConfigError,
        r"'no_such_package\.load' cannot be imported \(ModuleNotFoundError",
    ),
    ({"_target_": "load"}, ConfigError, r"data\._target_='load' cannot be imported .*; expected package\.function"),
    ({"_target_": "LOADERS.imges"}, ConfigError, r"has no function 'imges'; did you mean 'images'\?"),
    ({"_target_": "LOADERS.number"}, ConfigError, r"has no function 'number'"),
    ({"_target_": "LOADERS_broken.load"}, ConfigError, r"cannot be imported .*No module named 'no_such_thing'"),
    ({"_target_": "LOADERS_typo.load"}, ConfigError, r"cannot be imported \(SyntaxError"),
    ({"_target_": "LOADERS.fails"}, DataError, r"raised RuntimeError: the disk is on fire"),
    (
        {"_target_": "LOADERS.images", "sides": 3},
        DataError,
        r"raised TypeError: .* unexpected keyword argument 'sides'",
    ),
    ({"_target_": "LOADERS.nothing"}, DataError, r"returned NoneType; expected the arrays \(x, y\) or \(x_train"),
    ({"_target_": "LOADERS.nested"}, DataError, r"returned 3 values; expected the arrays \(x, y\)"),
    ({"_target_": "LOADERS.lists"}, DataError, r"x is no array of one shape"),
    ({"_target_": "LOADERS.images", "k": 1}, DataError, r"y has the label 0 only"),
    (
        {"_target_": "LOADERS.images", "n_classes": 5},
        DataError,
        r"data\.n_classes=5 is declared, but the loader gave 4",
    ),
    (
        {"_target_": "LOADERS.images", "input_shape": [4, 4, 3]},
        DataError,
        r"data\.input_shape=\[4, 4, 3\] is declared, but the loader gave \[4, 4, 1\]",
    ),
]


@pytest.mark.parametrize(("config", "error", "message"), BAD_LOADERS)
def test_an_own_loader_that_is_not_one_is_named(
    config: Mapping[str, Any], error: type[Exception], message: str, loaders: str
) -> None:
    named = {**config, "_target_": config["_target_"].replace("LOADERS", loaders)}
    with pytest.raises(error, match=message) as caught:
        data.load(named)
    assert "\n" not in str(caught.value)


BAD_DECLARATIONS = [
    (
        {"input_shape": 4, "n_classes": 4},
        r"data\.input_shape=4 is no image shape; expected \[height, width, channels\]",
    ),
    ({"input_shape": [4, 4], "n_classes": 4}, r"data\.input_shape=\[4, 4\] is no image shape"),
    ({"input_shape": [4, 4, 0], "n_classes": 4}, r"data\.input_shape=\[4, 4, 0\] is no image shape"),
    ({"input_shape": [4, 4, 1], "n_classes": "x"}, r"data\.n_classes='x' is no number of classes"),
]


@pytest.mark.parametrize(("declared", "message"), BAD_DECLARATIONS)
def test_declarations_that_are_no_shape_or_number_are_named(declared: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        data.peek({"_target_": "anything.load", **declared})


# --- no network


def closed_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Give Keras an empty cache, and send every https request of this process to a port of this machine."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_without_network_mnist_names_both_ways_out_within_ten_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreachable(tmp_path, monkeypatch, closed_port())
    started = time.monotonic()
    with pytest.raises(
        DataError, match=r"cannot be reached; give the file with data\.path=mnist\.npz .* data=mnist_5k"
    ):
        data.load({"_target_": "besom.data.mnist"})
    assert time.monotonic() - started < 10


def test_a_network_that_swallows_everything_is_given_up_within_ten_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as silent:  # accepts, never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        unreachable(tmp_path, monkeypatch, silent.getsockname()[1])
        started = time.monotonic()
        with pytest.raises(DataError, match=r"cannot be reached"):
            data.load({"_target_": "besom.data.mnist"})
        assert time.monotonic() - started < 10


class Quiet(SimpleHTTPRequestHandler):
    """Serves the working directory without writing to the terminal."""

    def log_message(self, format: str, *args: Any) -> None:
        return None


@pytest.mark.service  # for the time that it takes
def test_a_download_that_keras_cannot_make_names_its_reason_and_both_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreachable(tmp_path, monkeypatch, closed_port())
    (tmp_path / "mnist.npz").touch()
    with HTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        # the question whether there is a network is answered here, Keras' own download still meets the closed port
        monkeypatch.setattr(download, "BASE_URL", f"http://127.0.0.1:{server.server_port}/")
        with pytest.raises(
            DataError, match=r"Keras could not download MNIST \(.*URL fetch failure.*\); give the file"
        ) as caught:
            data.load({"_target_": "besom.data.mnist"})
        server.shutdown()
    assert "\n" not in str(caught.value)


def test_a_damaged_file_in_the_cache_of_keras_is_to_be_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "mnist.npz").write_bytes(b"half a download")
    with pytest.raises(DataError, match=r"mnist\.npz is not an npz file .*; delete it, and Keras downloads it again"):
        data.load({"_target_": "besom.data.mnist"})


def test_importing_data_imports_nothing_heavy() -> None:
    code = "import sys, besom.data; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"tensorflow", "keras", "pandas", "mlxtend", "optuna", "mlflow"} & set(shown.stdout.split())
