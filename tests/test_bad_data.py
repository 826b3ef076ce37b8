"""A file of images may be anything: the right arrays come of it, or one line that names it, and no memory on its word.

Bits flipped, cut off at every byte, headers that promise more than there is on earth, objects of Python, zip bombs.
"""

from __future__ import annotations

import gzip
import io
import os
import random
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import TIMES, examples, told
from hypothesis import given
from hypothesis import strategies as st

from besom import data
from besom.datasets import idx
from besom.datasets.arrays import Arrays
from besom.datasets.sources import npz, npz_or_folder, own
from besom.errors import ConfigError, DataError

X = np.arange(12 * 4 * 4, dtype=np.uint8).reshape(12, 4, 4)
Y = np.arange(12) % 2


def npz_bytes(*, packed: bool = False, **arrays: Any) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(file, **(arrays or {"x": X, "y": Y}))
    return file.getvalue()


def idx_bytes(*shape: int, values: int | None = None) -> bytes:
    header = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
    return header + bytes(int(np.prod(shape)) if values is None else values)


def mutated(content: bytes, seed: int) -> bytes:
    """Return bytes of which one to four are others: a flipped bit, all or none of them set, anything."""
    chance, changed = random.Random(seed), bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 4])):
        place = chance.randrange(len(changed))
        changed[place] = chance.choice([0, 255, changed[place] ^ 1 << chance.randrange(8), chance.randrange(256)])
    return bytes(changed)


def arrays_or_line(read: Callable[[], Arrays], file: Path) -> Arrays | None:
    try:
        return read()
    except DataError as error:
        told(error, str(file)) if "get the file again" not in str(error) else None
        return None


def npz_or_line(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    found = arrays_or_line(lambda: npz(str(file)), file)
    if found is not None:
        assert found.x.shape[1:] == found.input_shape
        assert found.x.dtype in (np.uint8, np.float32)
        assert len(found.x) == len(found.y)
        assert set(found.y.tolist()) == set(range(found.n_classes))
    data._peek.cache_clear()
    try:
        data.peek({"_target_": "besom.data.npz", "path": str(file)})
    except DataError as error:
        told(error, str(file))


def assert_tells_how_to_mend(error: DataError, file: Path) -> None:
    assert str(file) in str(error)
    assert "expected" in str(error) or "get the file again" in str(error)


SEEDS = range(150 * TIMES)


@pytest.mark.parametrize("packed", [False, True])
def test_an_npz_with_a_few_bytes_changed_gives_its_arrays_or_one_line(packed: bool, tmp_path: Path) -> None:
    whole = npz_bytes(packed=packed)
    for seed in SEEDS:
        npz_or_line(tmp_path / "a.npz", mutated(whole, seed))


@pytest.mark.parametrize("packed", [False, True])
def test_an_npz_that_is_cut_off_anywhere_is_one_line(packed: bool, tmp_path: Path) -> None:
    file, whole = tmp_path / "a.npz", npz_bytes(packed=packed)
    for length in range(0, len(whole), 1 if TIMES > 1 else 7):
        file.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"a\.npz is not an npz file \(.*\); expected one made by numpy.savez"):
            npz(str(file))


@pytest.mark.parametrize("packed", [False, True])
def test_an_idx_file_with_a_few_bytes_changed_gives_its_array_or_one_line(packed: bool, tmp_path: Path) -> None:
    file, whole = tmp_path / "a", gzip.compress(idx_bytes(5, 4, 4)) if packed else idx_bytes(5, 4, 4)
    for seed in SEEDS:
        file.write_bytes(mutated(whole, seed))
        try:
            assert idx.read(file, 3).ndim == 3
        except DataError as error:
            assert_tells_how_to_mend(error, file)


@pytest.mark.parametrize("packed", [False, True])
def test_an_idx_file_that_is_cut_off_anywhere_is_one_line(packed: bool, tmp_path: Path) -> None:
    file, whole = tmp_path / "a", gzip.compress(idx_bytes(5, 4, 4)) if packed else idx_bytes(5, 4, 4)
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"a .*(expected|get the file again)"):
            idx.read(file, 3)


@examples(60)
@given(st.binary(max_size=100))
def test_any_bytes_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.npz"
    file.write_bytes(content)
    for prefix in (b"", b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b\x08"):
        file.write_bytes(prefix + content)
        with pytest.raises(DataError, match=r"a\.npz"):
            npz(str(file))


def member(name: str, content: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip file with an entry of so many bytes and good labels."""
    file, labels = io.BytesIO(), io.BytesIO()
    np.save(labels, Y)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content, method)
        archive.writestr("y.npy", labels.getvalue())
    return file.getvalue()


def npy(header: str, version: int = 1, values: bytes = b"", padding: int = 0) -> bytes:
    text = header.encode("latin-1") + b" " * padding + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + values


def of_shape(shape: str, kind: str = "|u1") -> str:
    return f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"


def claiming(size: int, content: bytes) -> bytes:
    """Return a zip file whose directory says that its first entry has so many bytes, fewer than 2**32."""
    whole = bytearray(member("x.npy", content))
    place = whole.index(b"PK\x01\x02") + 24
    whole[place : place + 4] = struct.pack("<I", size)
    return bytes(whole)


ZEROS = npy(of_shape("(50000, 80, 50)"), padding=55)

LIES = {
    "a terabyte": (member("x.npy", npy(of_shape("(1099511627776, 1, 1)"))), "claims shape"),
    "2**60 elements": (member("x.npy", npy(of_shape("(1152921504606846976, 28, 28)"))), "claims shape"),
    "a negative length": (member("x.npy", npy(of_shape("(-1, 28, 28)"))), "claims shape"),
    "lengths whose product is the stored one": (
        member("x.npy", npy(of_shape("(-4, -1, 1)"), values=bytes(4))),
        "claims shape",
    ),
    "an endless header": (member("x.npy", npy(of_shape("(1, 2, 2)"), 2, padding=40_000_000)), "cannot be read"),
    "a header of brackets": (member("x.npy", npy("(" * 9_000)), "cannot be read"),
    "objects": (
        npz_bytes(x=np.array([{"a": 1}], dtype=object), y=Y),
        "holds Python objects, which are never unpickled",
    ),
    "a size in the directory that is not so": (
        claiming(2**32 - 2, npy(of_shape("(4294967168, 1, 1)"))),
        "cannot|claims",
    ),
    "a bomb of zeros": (
        claiming(200_000_000 + len(ZEROS), ZEROS),
        "claims 200,000,1.. bytes, more than the .* bytes of the file can hold",
    ),
    "another way of packing": (
        member("x.npy", npy(of_shape("(12, 2, 2)"), values=bytes(48)), zipfile.ZIP_LZMA),
        "is packed in a way of its own.; expected one of numpy.savez",
    ),
    "a member outside": (member("../x.npy", npy(of_shape("(12, 2, 2)"), values=bytes(48))), "expected x and y"),
    "an absolute member": (member("/tmp/x.npy", npy(of_shape("(12, 2, 2)"), values=bytes(48))), "expected x and y"),
    "a hundred thousand characters as a name": (member("x" * 60_000 + ".npy", b""), "expected x and y"),
    "no labels": (npz_bytes(x=X), "holds the arrays x; expected x and y"),
    "no array": (member("x.npy", b"hello"), "'x' cannot be read"),
    "no images": (npz_bytes(x=X[:0], y=Y[:0]), "with nothing empty"),
    "images of one axis": (npz_bytes(x=X[:, 0, 0], y=Y), r"expected \(n, h, w\)"),
    "a number for images": (npz_bytes(x=np.array(1), y=Y), r"expected \(n, h, w\)"),
    "images of text": (npz_bytes(x=np.full((12, 2, 2), "a"), y=Y), "expected uint8 or float32"),
    "images of fields": (npz_bytes(x=np.zeros((12, 2, 2), "i4,f4"), y=Y), "expected uint8 or float32"),
    "complex images": (npz_bytes(x=X * 1j, y=Y), "expected uint8 or float32"),
    "images of nan": (npz_bytes(x=X * np.float32("nan"), y=Y), "nan or infinite"),
    "images beyond float32": (npz_bytes(x=X.astype(float) + 1e300, y=Y), "nan or infinite"),
    "labels of fractions": (npz_bytes(x=X, y=Y * 0.5), "expected integer labels"),
    "too few labels": (npz_bytes(x=X, y=Y[:3]), r"expected \(12,\), one label for each image"),
    "labels with a gap": (npz_bytes(x=X, y=Y * 2), "number the classes without gaps"),
    "labels below 0": (npz_bytes(x=X, y=Y - 1), "number the classes without gaps"),
    "labels beyond 2**63": (npz_bytes(x=X, y=Y.astype(np.uint64) * 2**63), "number the classes without gaps"),
    "one class": (npz_bytes(x=X, y=Y * 0), "expected at least 2 classes"),
}


@pytest.mark.parametrize("what", LIES)
def test_an_npz_that_lies_is_named_in_one_line_before_it_takes_memory(what: str, tmp_path: Path) -> None:
    content, message = LIES[what]
    file = tmp_path / "a.npz"
    file.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message) as refused:
            npz(str(file))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(file) in str(refused.value)
    assert len(str(refused.value)) < 1000
    assert peak < 3_000_000 + len(content)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_within_200_megabytes_of_memory_a_small_file_that_promises_a_terabyte_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(LIES["a terabyte"][0])
    (tmp_path / "b.npz").write_bytes(LIES["a bomb of zeros"][0])
    (tmp_path / "c.npz").write_bytes(LIES["an endless header"][0])
    (tmp_path / "d").write_bytes(idx_bytes(2**20, 2**20, 1, values=0))
    (tmp_path / "e").write_bytes(gzip.compress(idx_bytes(2**20, 2**20, 1, values=0)))
    (tmp_path / "f").write_bytes(gzip.compress(idx_bytes(500, 1000, 1000, values=0) + bytes(1000)))
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < 50_000
    done = subprocess.run(
        [sys.executable, "-c", READER, *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["DataError"] * 6


READER = """
import resource, sys
from pathlib import Path
from besom.datasets import idx
from besom.datasets.sources import npz
from besom.errors import DataError
import psutil
now = psutil.Process().memory_info().vms
resource.setrlimit(resource.RLIMIT_AS, (now + 200_000_000,) * 2)
for file in sys.argv[1:]:
    try:
        npz(file) if file.endswith(".npz") else idx.read(Path(file), 3)
    except DataError as error:
        print("DataError")
"""


def a_pipe(file: Path) -> None:
    os.mkfifo(file)


NO_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "nothing": (lambda file: None, "there is no file or folder '.*' .looked in .*; expected an npz file"),
    "a pipe": (a_pipe, "it is no plain file"),
    "a device": (lambda file: file.symlink_to("/dev/zero"), "it is no plain file"),
    "a link to itself": (lambda file: file.symlink_to(file.name), "cannot be read .Too many levels"),
    "an empty folder": (Path.mkdir, "expected the four IDX files"),
}


@pytest.mark.parametrize("what", NO_FILES)
def test_what_is_no_file_is_named_and_not_waited_for(what: str, tmp_path: Path) -> None:
    make, message = NO_FILES[what]
    make(tmp_path / "a.npz")
    with pytest.raises(DataError, match=message) as refused:
        npz_or_folder(str(tmp_path / "a.npz"))
    told(refused.value, "a.npz")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "~nobody-of-this-name/x", "a\nb\x1b[31m", "", "/dev/full/x"])
def test_a_path_that_cannot_be_is_named_in_one_line(name: str) -> None:
    for read in (npz, npz_or_folder):
        with pytest.raises(DataError) as refused:
            read(name)
        assert len(told(refused.value)) < 2000


class Hostile:
    """What a user's loader may return in the place of an array."""

    def __array__(self, *args: object, **kwargs: object) -> Any:
        raise RuntimeError("not today")


def loader(what: str) -> Any:
    returned: dict[str, Any] = {
        "hostile": (Hostile(), Y),
        "ragged": ([[1], [1, 2]], Y),
        "three": (1, 2, 3),
        "none": None,
    }
    return returned[what]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("hostile", "x is no array of one shape .not today.; expected a numpy array"),
        ("ragged", "x is no array of one shape"),
        ("three", r"returned 3 values; expected the arrays \(x, y\)"),
        ("none", "returned NoneType; expected the arrays"),
        ("unknown", "raised KeyError: 'unknown'"),
    ],
)
def test_an_own_loader_that_gives_something_else_is_named(what: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        own(f"{__name__}.loader", {"what": what})


@pytest.mark.parametrize(
    "target", ["", ".", "..", "os", "os.", ".x", "no.such", "os.nope", "a\0.b", "x" * 5000, "os.sep"]
)
def test_a_target_that_cannot_be_imported_is_named_in_one_line(target: str) -> None:
    with pytest.raises(ConfigError, match="_target_="):
        own(target, {})
