"""Reading IDX files, the format that MNIST and its kin are published in: gzipped or not, damaged or hostile.

Four bytes say what follows (0, 0, the type, the number of axes), then the length of each axis as a
big-endian number of 32 bits, then the values. No memory is taken on a header's word: it is compared with
what the file can hold, and with the free memory. Knows nothing of what the arrays are.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from besom.datasets.memory import check_memory
from besom.errors import DataError, one_line
from besom.files import Unusable, refuse_all_but_plain

FILES = {
    "train-images-idx3-ubyte": 3,
    "train-labels-idx1-ubyte": 1,
    "t10k-images-idx3-ubyte": 3,
    "t10k-labels-idx1-ubyte": 1,
}
"""What the four files of a folder are called, as on MNIST's own page, and how many axes the array in each has."""

_GZIPPED = b"\x1f\x8b"
_UNSIGNED_BYTES = 8
_MOST_PER_BYTE = 1032
"""How many bytes one byte of a gzip file can become, at most (zlib's technical details)."""
_CHUNK = 2**20


def read_folder(folder: Path) -> list[NDArray[np.uint8]]:
    """Return the arrays of the four `FILES` of a folder, in their order; each may be gzipped, called ``.gz`` or not.

    Raises:
        DataError: as `read`, or when one of them is not there.
    """
    return [read(_member(folder, name), n_axes) for name, n_axes in FILES.items()]


def read(path: Path, n_axes: int) -> NDArray[np.uint8]:
    """Return the array of one IDX file, gzipped or not, whatever its name.

    Raises:
        DataError: when it holds something else than unsigned bytes in ``n_axes`` axes, or more or less of
            them than its header says, or is damaged.
    """
    try:
        refuse_all_but_plain(path)
        with path.open("rb") as raw:
            gzipped = raw.read(2) == _GZIPPED
        n_bytes = path.stat().st_size * (_MOST_PER_BYTE if gzipped else 1)
        with gzip.open(path) if gzipped else path.open("rb") as file:
            return _array(path, file, n_axes, n_bytes)
    except (OSError, EOFError, zlib.error, Unusable) as error:
        raise DataError(f"{path} cannot be read ({one_line(error)}); get the file again") from error


def _member(folder: Path, name: str) -> Path:
    files = (folder / name, folder / f"{name}.gz")
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise DataError(f"{folder} has no file {name} or {name}.gz; expected the four IDX files {', '.join(FILES)}")
    return found


def _array(path: Path, file: IO[bytes] | gzip.GzipFile, n_axes: int, n_bytes: int) -> NDArray[np.uint8]:
    """Return the array of an open file that has at most ``n_bytes``."""
    shape = _shape(path, file, n_axes)
    size = math.prod(shape)
    if size > n_bytes:
        raise DataError(f"{_claim(path, shape)}, but the file cannot hold more than {n_bytes:,}; get the file again")
    check_memory(f"{path}: the array", shape, np.dtype(np.uint8))
    content = _content(file, size)
    if len(content) != size:
        held = "more" if len(content) > size else f"{len(content):,}"
        raise DataError(f"{_claim(path, shape)}, but the file holds {held}; get the file again")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _shape(path: Path, file: Any, n_axes: int) -> tuple[int, ...]:
    magic, expected = file.read(4), bytes([0, 0, _UNSIGNED_BYTES, n_axes])
    if magic != expected:
        raise DataError(
            f"{path} begins with the bytes {magic.hex(' ') or '(none)'}; expected {expected.hex(' ')}, "
            f"an IDX file of unsigned bytes in {n_axes} {'axis' if n_axes == 1 else 'axes'}"
        )
    lengths = file.read(4 * n_axes)
    if len(lengths) != 4 * n_axes:
        raise DataError(f"{path} ends within its header; get the file again")
    return struct.unpack(f">{n_axes}I", lengths)


def _content(file: Any, size: int) -> bytearray:
    """Read ``size`` bytes and try for one more, which tells a longer file and lets gzip compare its checksum."""
    content = bytearray()
    while len(content) <= size and (chunk := file.read(min(_CHUNK, size + 1 - len(content)))):
        content += chunk
    return content


def _claim(path: Path, shape: tuple[int, ...]) -> str:
    return f"{path} claims {math.prod(shape):,} values in the shape {shape}"
