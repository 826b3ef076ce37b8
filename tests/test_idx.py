"""IDX files: what is read, and what a damaged or hostile one says."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from besom.datasets import idx
from besom.errors import DataError

Array = NDArray[np.uint8]


def idx_bytes(array: Array, shape: tuple[int, ...] | None = None, type_code: int = 8) -> bytes:
    """Return an IDX file; ``shape`` is the one it claims to have."""
    claimed = array.shape if shape is None else shape
    return bytes([0, 0, type_code, len(claimed)]) + struct.pack(f">{len(claimed)}I", *claimed) + array.tobytes()


def images(n: int = 5, side: int = 4) -> Array:
    return np.arange(n * side * side, dtype=np.uint8).reshape(n, side, side)


def labels(n: int = 5) -> Array:
    return np.arange(n, dtype=np.uint8) % 2


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "an-idx-file"


@pytest.fixture(scope="module")
def one_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A path that many examples of one test may use again."""
    return tmp_path_factory.mktemp("idx") / "file"


@settings(deadline=None)
@given(npst.arrays(np.uint8, npst.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)), st.booleans())
def test_what_was_written_is_read_gzipped_or_not(one_file: Path, array: Array, gzipped: bool) -> None:
    content = idx_bytes(array)
    one_file.write_bytes(gzip.compress(content) if gzipped else content)
    found = idx.read(one_file, array.ndim)
    assert (found.dtype, found.shape) == (np.uint8, array.shape)
    assert (found == array).all()


def test_a_file_of_several_pieces_is_read_whole(file: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, 2**21 + 3, dtype=np.uint8)
    for content in (idx_bytes(array), gzip.compress(idx_bytes(array), 1)):
        file.write_bytes(content)
        assert (idx.read(file, 1) == array).all()


def test_a_gzip_file_of_two_members_is_one_file(file: Path) -> None:
    content = idx_bytes(images())
    file.write_bytes(gzip.compress(content[:30]) + gzip.compress(content[30:]))
    assert (idx.read(file, 3) == images()).all()


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


WHOLE = idx_bytes(images())
NOISE = idx_bytes(np.random.default_rng(0).integers(0, 256, (5, 4, 4), dtype=np.uint8))
HUGE = (2**32 - 1, 2**32 - 1, 2**32 - 1)
BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", r"begins with the bytes \(none\); expected 00 00 08 03, an IDX file of unsigned bytes in 3 axes"),
    "text": (b"hello", r"begins with the bytes 68 65 6c 6c; expected 00 00 08 03"),
    "labels where images belong": (idx_bytes(labels()), r"begins with the bytes 00 00 08 01; expected 00 00 08 03"),
    "other numbers": (idx_bytes(images(), type_code=13), r"begins with the bytes 00 00 0d 03; expected 00 00 08 03"),
    "half a header": (WHOLE[:10], r"ends within its header; get the file again"),
    "truncated": (WHOLE[:-1], r"claims 80 values in the shape \(5, 4, 4\), but the file holds 79; get the file again"),
    "too long": (WHOLE + b"\0", r"claims 80 values in the shape \(5, 4, 4\), but the file holds more"),
    "more than it has": (idx_bytes(images(), HUGE), r"claims 79,228,.* but the file cannot hold more than 96; get"),
    "gzipped, more than it has": (
        gzip.compress(idx_bytes(images(), (5, 4, 5))),
        r"claims 100 values in the shape \(5, 4, 5\), but the file holds 80",
    ),
    "gzipped, more than any has": (
        gzip.compress(idx_bytes(images(), HUGE)),
        r".*but the file cannot hold more than 1\d\d,\d{3};",
    ),
    "gzipped, truncated": (gzip.compress(NOISE)[:-30], r"cannot be read \(Compressed file ended before .*\); get"),
    "gzipped, damaged": (flipped(gzip.compress(NOISE), 50), r"cannot be read \(.+\); get the file again"),
    "gzipped, wrong checksum": (flipped(gzip.compress(NOISE), -8), r"cannot be read \(CRC check failed"),
    "gzipped, and rubbish": (gzip.compress(WHOLE) + b"x", r"cannot be read \(Not a gzipped file"),
    "gzipped, empty": (gzip.compress(b""), r"begins with the bytes \(none\)"),
    "two bytes of gzip": (b"\x1f\x8b", r"cannot be read \(Compressed file ended"),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_named_in_one_line(file: Path, content: bytes, message: str) -> None:
    file.write_bytes(content)
    with pytest.raises(DataError, match=rf"an-idx-file {message}") as caught:
        idx.read(file, 3)
    assert "\n" not in str(caught.value)


def test_labels_are_asked_for_in_one_axis(file: Path) -> None:
    file.write_bytes(WHOLE)
    with pytest.raises(DataError, match=r"bytes 00 00 08 03; expected 00 00 08 01, .* unsigned bytes in 1 axis$"):
        idx.read(file, 1)


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: None])
def test_what_is_no_file_cannot_be_read(file: Path, make: Any) -> None:
    make(file)
    with pytest.raises(DataError, match=r"an-idx-file cannot be read \(.+\); get the file again"):
        idx.read(file, 3)


@pytest.mark.parametrize("gzipped", [False, True])
def test_a_header_takes_no_memory_on_its_word(file: Path, gzipped: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 10**5, dtype=np.uint8)
    content = idx_bytes(noise, (9 * 10**7,))
    file.write_bytes(gzip.compress(content, 1) if gzipped else content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"claims 90,000,000 values"):
            idx.read(file, 1)
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


def test_an_array_that_the_free_memory_cannot_hold_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_bytes(WHOLE)
    needed = 80 * 9  # as it is, and as float32 or int64
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=needed))
    assert (idx.read(file, 3) == images()).all()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=needed - 1))
    with pytest.raises(DataError, match=r"the array of shape \(5, 4, 4\) and uint8 needs .* GiB; expected at most"):
        idx.read(file, 3)


# --- a folder of four


def written(folder: Path, gzipped: tuple[str, ...] = ()) -> Path:
    """Write the four files of 5 training and 3 test images into a folder, some of them gzipped."""
    folder.mkdir(exist_ok=True)
    for name, array in zip(idx.FILES, (images(), labels(), images(3), labels(3)), strict=True):
        content = idx_bytes(array)
        if name in gzipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("gzipped", [(), tuple(idx.FILES), tuple(idx.FILES)[1:3]])
def test_a_folder_gives_its_four_arrays_in_order(tmp_path: Path, gzipped: tuple[str, ...]) -> None:
    found = idx.read_folder(written(tmp_path, gzipped))
    for array, expected in zip(found, (images(), labels(), images(3), labels(3)), strict=True):
        assert np.array_equal(array, expected)


def test_a_file_that_was_unpacked_but_still_is_called_gz_is_read(tmp_path: Path) -> None:
    written(tmp_path)
    for name in idx.FILES:
        (tmp_path / name).rename(tmp_path / f"{name}.gz")
    assert len(idx.read_folder(tmp_path)) == 4


@pytest.mark.parametrize("name", idx.FILES)
def test_a_file_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    (written(tmp_path) / name).unlink()
    with pytest.raises(DataError, match=rf"has no file {name} or {name}\.gz; expected the four IDX files train-images"):
        idx.read_folder(tmp_path)
