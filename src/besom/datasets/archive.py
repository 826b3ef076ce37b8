"""Reading an npz file that may be damaged or hostile: no pickle, and no memory taken on a header's word.

Every member's header is compared with the size of its zip entry and with the free memory before its
array is made. Knows nothing of images, labels or MNIST.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from besom.datasets.memory import check_memory
from besom.errors import DataError, one_line


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

    def __init__(self, path: str, file: zipfile.ZipFile) -> None:
        self.path = path
        self._zip = file

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
            shape, dtype = _read_header(file)
            stored = self._zip.getinfo(f"{name}.npy").file_size - file.tell()
        header = Header(shape, dtype, stored)
        if dtype.hasobject:
            raise DataError(f"{self.path}: '{name}' holds Python objects, which are never unpickled; expected numbers")
        if min(shape, default=0) < 0 or header.n_bytes != stored:
            raise DataError(
                f"{self.path}: '{name}' claims shape {shape} of {dtype}, but {stored} bytes are stored for it; "
                "the file is damaged or not to be trusted"
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
            with self._zip.open(f"{name}.npy") as file:
                yield file
        except DataError:
            raise
        except Exception as error:  # hostile bytes make zipfile, zlib and NumPy raise nearly anything
            raise DataError(
                f"{self.path}: '{name}' cannot be read ({one_line(error)}); write the file again"
            ) from error


@contextmanager
def opened(path: str) -> Iterator[Archive]:
    """Open an npz file; a relative ``path`` is taken from the working directory.

    Raises:
        DataError: when there is no such file or it is no zip file.
    """
    file = Path(path).expanduser()
    if not file.exists():
        raise DataError(f"there is no file {path!r} (looked in {file.parent.absolute()}); expected an npz file")
    try:
        archive = zipfile.ZipFile(file)
    except Exception as error:  # as in Archive._member
        raise DataError(f"{path} is not an npz file ({one_line(error)}); expected one made by numpy.savez") from error
    with archive:
        yield Archive(path, archive)


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version} of the npy format is for records only")
    shape, _, dtype = readers[version](file)
    return shape, dtype
