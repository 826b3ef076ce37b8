"""What the system and SQLite say when a disk, or a file on it, fails: as one line with what, where, how to go on.

Such an error mostly arrives wrapped, by SQLAlchemy, Optuna, MLflow, Keras or Pillow: the chain of its causes is looked
through. Knows nothing of sweeps and imports none of those.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from besom.errors import BesomError, DiskFull, StoreBusy, StoreDamaged, StoreReadOnly, causes

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LITTLE = 64 * 1024
"""Bytes: a disk with less is full, whatever a library made of its error."""


def explain(error: BaseException, file: str = "", places: Iterable[Path] = ()) -> BesomError | None:
    """Return what is told instead of an error that a disk or a file of the store gave; None of any other error.

    Args:
        file: the database that it is about, where that is known.
        places: folders that were written to, of which the free space is told.
    """
    chain = list(causes(error))
    if any(isinstance(cause, BesomError) for cause in chain):
        return next((cause for cause in chain if isinstance(cause, DiskFull)), None)
    for cause in chain:
        if full := _full(cause, file, places):
            written = [Path(name).parent] if (name := _file_of(cause)) else []
            return DiskFull(f"{full}; {_free([*places, *written])}: make room, then the same command goes on")
    for cause in chain:
        if isinstance(cause, sqlite3.Error) and (found := _of_sqlite(cause, file or _owner(chain))):
            return found
        if isinstance(cause, OSError) and cause.errno == errno.EROFS:
            return StoreReadOnly(f"{cause.filename or 'a file'} cannot be written: {cause.strerror}")
    return None


def _full(error: BaseException, file: str, places: Iterable[Path]) -> str | None:
    """Return what says that a disk is full, or that a file may not grow; None where nothing does."""
    if isinstance(error, sqlite3.Error):
        name = getattr(error, "sqlite_errorname", "")
        is_full = name == "SQLITE_FULL" or (name.startswith("SQLITE_IOERR") and _is_full_now(places))
        return f"{os.strerror(errno.ENOSPC)}: {file or 'a database of the store'}" if is_full else None
    if isinstance(error, OSError):
        if error.errno in FULL:
            return _said(error)
        if error.errno is None and _is_full_now(places):  # Pillow's encoders have their own numbers
            return f"{os.strerror(errno.ENOSPC)} ({error})"
    # h5py and `shutil.copytree` hand on the system's words, not its number
    return next((text for code in FULL if (text := os.strerror(code)) in str(error)), None)


def _said(error: OSError) -> str:
    file = _file_of(error)
    return f"{error.strerror}: {file}" if file else str(error.strerror)


def _file_of(error: BaseException) -> str | None:
    """Return the file that an error of the system is about: of a copy, the one that was written."""
    name = getattr(error, "filename2", None) or getattr(error, "filename", None)
    return name if isinstance(name, str) else None


def _is_full_now(places: Iterable[Path]) -> bool:
    return any(free < LITTLE for _, free in _free_in(places))


def _free(places: Iterable[Path]) -> str:
    return "free now: " + ", ".join(f"{free / 1e6:,.1f} MB in {place}" for place, free in _free_in(places))


def _free_in(places: Iterable[Path]) -> Iterator[tuple[Path, int]]:
    """Yield folders with the bytes that are free there, each disk once; temporary files have theirs."""
    seen = set()
    for place in (*places, None):
        try:
            folder = place or Path(tempfile.gettempdir())  # which fails where nothing can be written
            disk, free = folder.stat().st_dev, shutil.disk_usage(folder).free
        except OSError:  # not made yet
            continue
        if disk not in seen:
            seen.add(disk)
            yield folder, free


def _owner(chain: Iterable[BaseException]) -> str:
    """Return whose database an error is about, where its path is not known."""
    of_mlflow = any(type(cause).__module__.startswith("mlflow") for cause in chain)
    return "MLflow's database (mlflow.db in the store)" if of_mlflow else "a database of the store"


def _of_sqlite(error: sqlite3.Error, file: str) -> BesomError | None:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreBusy(f"{file} is locked by another program; end it, then the same command goes on")
    # in write-ahead mode SQLite makes files beside it even to read, so a folder that takes none looks like a lost file
    is_shut = name.startswith("SQLITE_CANTOPEN") and Path(file).exists() and not os.access(Path(file).parent, os.W_OK)
    if name.startswith("SQLITE_READONLY") or is_shut:
        return StoreReadOnly(f"{file} cannot be written: {error}")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_CANTOPEN", "SQLITE_IOERR")):
        return StoreDamaged(f"{file} cannot be read: {error}; put it back from a copy of the store")
    return None
