"""Whether a ``.keras`` file is of the size that its network needs, before anything in it is unpacked.

A zip file, and HDF5 in it, may hold little and say that it is more than fits into memory: of chunks, which may be
compressed, one is read whole for a single number of it. Keras writes none. Knows nothing of models.
"""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path
from typing import Any

from besom.errors import BesomError

WEIGHTS = "model.weights.h5"
MEMBERS = ("config.json", "metadata.json", WEIGHTS)
COPIES = 8
"""So many times the weights may be in the file: an optimizer keeps up to three more of each."""
SLACK = 16 * 1024 * 1024
"""Bytes for what is beside the weights: the config, names, the tables of HDF5."""


def refuse_bomb(file: Path, n_params: int) -> None:
    """Refuse a file that unpacks to more than a network of so many parameters has.

    Raises:
        BesomError: saying what there is too much of; nothing was unpacked.
        OSError, ValueError, zipfile.BadZipFile: it is no such file at all.
    """
    most = COPIES * 8 * n_params + SLACK
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.filename not in MEMBERS:
                raise BesomError(f"{file.name} has {member.filename!r} in it; expected {', '.join(MEMBERS)}")
            _refuse_more(f"{member.filename} in {file.name}", member.file_size, most)
        _refuse_large_arrays(archive.read(WEIGHTS), most)


def _refuse_large_arrays(content: bytes, most: int) -> None:
    import h5py  # type: ignore[import-untyped]  # it has no types

    total = 0

    def add(name: str, found: Any) -> None:
        nonlocal total
        if isinstance(found, h5py.Group):
            refuse_links(found)
        elif isinstance(found, h5py.Dataset):
            if found.chunks is not None or found.external or found.is_virtual:
                raise BesomError(f"{name[:80]!r} in {WEIGHTS} is kept in chunks or elsewhere; expected a plain array")
            total += math.prod(found.shape or ()) * found.dtype.itemsize

    def refuse_links(group: Any) -> None:
        for name in group:  # visititems passes over them, who reads does not
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise BesomError(f"{name[:80]!r} in {WEIGHTS} is a link; expected a plain array")

    with h5py.File(io.BytesIO(content), "r") as weights:
        refuse_links(weights)
        weights.visititems(add)
    _refuse_more(f"the arrays in {WEIGHTS}", total, most)


def _refuse_more(what: str, n_bytes: int, most: int) -> None:
    if n_bytes > most:
        raise BesomError(f"{what}: {n_bytes:,} bytes; expected at most {most:,} of this network")
