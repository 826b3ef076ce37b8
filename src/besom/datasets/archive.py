"""Reading an npz file that may be damaged or hostile: no pickle, and no memory taken on a header's word.

Every member's header is compared with the size of its zip entry and with the free memory before its
array is made. Knows nothing of images, labels or MNIST.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from besom.datasets.memory import check_memory
from besom.errors import MOST_QUOTED, DataError, one_line, quoted
from besom.files import expanded, kind_of, refuse_all_but_plain

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What numpy.savez and numpy.savez_compressed write."""
MOST_HEADER = 12_000
"""Bytes; NumPy itself takes 10,000 and what says how many."""
_MOST_PER_BYTE = 1032
"""How many bytes one byte of a deflated entry can become, at most (zlib's technical details)."""


@dataclass(frozen=True)
class Header:
    """What a member says of its array, and how many bytes its zip entry has for it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stored_bytes: int

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class Archive:
    """An open npz file; use `opened`."""

    def __init__(self, path: str, file: zipfile.ZipFile, n_bytes: int) -> None:
        self.path = path
        self._zip = file
        self._n_bytes = n_bytes

    @property
    def names(self) -> list[str]:
        """The keys of the arrays, in the order of the file."""
        return [name.removesuffix(".npy") for name in self._zip.namelist() if name.endswith(".npy")]

    def header(self, name: str) -> Header:
        """Return what the member ``name`` claims to be, without reading its array.

        Raises:
            DataError: when it is no array of plain values or its size is not that of its zip entry.
        """
        with self._member(name) as file:
            shape, dtype, n_header = _read_header(file)
            entry = self._zip.getinfo(f"{name}.npy")
            stored = entry.file_size - n_header
        header = Header(shape, dtype, stored)
        if dtype.hasobject:
            raise DataError(f"{self.path}: '{name}' holds Python objects, which are never unpickled; expected numbers")
        if min(shape, default=0) < 0 or header.n_bytes != stored:
            raise DataError(
                f"{self.path}: '{name}' claims shape {shape} of {dtype}, but {stored} bytes are stored for it; "
                "expected as many, the file is damaged or not to be trusted"
            )
        if entry.file_size > min(entry.compress_size, self._n_bytes) * _MOST_PER_BYTE:
            raise DataError(
                f"{self.path}: '{name}' claims {entry.file_size:,} bytes, more than the {self._n_bytes:,} bytes of the "
                "file can hold; expected fewer, it is damaged or not to be trusted"
            )
        return header

    def read(self, name: str) -> NDArray[Any]:
        """Return the array ``name``, checked against its CRC.

        Raises:
            DataError: as `header`, or when it is damaged or does not fit into the free memory.
        """
        header = self.header(name)
        check_memory(f"{self.path}: '{name}'", header.shape, header.dtype)
        with self._member(name) as file:
            array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
            file.read(1)  # the CRC is compared at the end of the entry
        return array

    @contextmanager
    def _member(self, name: str) -> Iterator[IO[bytes]]:
        try:
            if self._zip.getinfo(f"{name}.npy").compress_type not in METHODS:
                raise ValueError("it is packed in a way of its own")
            with self._zip.open(f"{name}.npy") as file:
                yield file
        except DataError:
            raise
        except Exception as error:  # hostile bytes make zipfile, zlib and NumPy raise nearly anything
            raise DataError(
                f"{self.path}: '{name}' cannot be read ({one_line(error)}); expected one of numpy.savez; "
                "write the file again"
            ) from error


@contextmanager
def opened(path: str) -> Iterator[Archive]:
    """Open an npz file; a relative ``path`` is taken from the working directory.

    Raises:
        DataError: when there is no such file or it is no zip file.
    """
    file = expanded(path)
    try:
        kind = kind_of(file)
        if kind == "missing":
            folder = file.parent.absolute()
            raise DataError(f"there is no file {quoted(path)} (looked in {folder}); expected an npz file")
        refuse_all_but_plain(file)
        n_bytes = file.stat().st_size
        archive = zipfile.ZipFile(file)
    except DataError:
        raise
    except Exception as error:  # as in Archive._member
        reason = one_line(error)
        raise DataError(
            f"{path[:MOST_QUOTED]} is not an npz file ({reason}); expected one made by numpy.savez"
        ) from error
    with archive:
        yield Archive(path, archive, n_bytes)


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return shape, type and the length of the header itself, of which no more is read than one can have."""
    start = io.BytesIO(file.read(MOST_HEADER))
    version = np.lib.format.read_magic(start)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version} of the npy format is for records only")
    shape, _, dtype = readers[version](start)
    return shape, dtype, start.tell()
