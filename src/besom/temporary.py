"""A folder for a moment under TMPDIR: gone with its ``with``; what a killed process left goes with the next one.

Each is kept locked (``flock``) by the process that made it, so that whoever can lock one knows that it is nobody's. It
has its name only once it is locked. Where folders cannot be locked, as on some network disks, nothing is ever cleared.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

PATTERN = "besom-????????.tmp"


@contextmanager
def temporary_folder(place: str | None = None) -> Iterator[Path]:
    """Make an empty folder, gone after the ``with``.

    Args:
        place: where; None is TMPDIR.

    Raises:
        OSError: it cannot be made: the place cannot be written.
    """
    place = place or tempfile.gettempdir()
    clear_left(place)
    made = Path(tempfile.mkdtemp(prefix="besom-", suffix=".new", dir=place))
    lock = None
    try:
        lock = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            made = made.rename(made.with_suffix(".tmp"))
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        if lock is not None:
            os.close(lock)


@cache  # once in a process: what is left is left by those before it
def clear_left(place: str) -> None:
    """Remove what killed processes of this user have left in ``place``."""
    for path in Path(place).glob(PATTERN):
        with suppress(OSError):  # somebody else's, or one that goes at this moment
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.getuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
