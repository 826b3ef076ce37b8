"""What a pool hands to each of its lanes: in memory without a name, so that a killed pool leaves no file behind.

Not an argument of the process: one that is killed before it has read its arguments would block its parent for ever, if
they do not fit into a pipe. Knows nothing of what is handed.
"""

from __future__ import annotations

import os
import tempfile
from multiprocessing import reduction
from typing import Any

import cloudpickle


class Handed:
    """Something pickled by value, open in this process; as an argument of a process it is open there too.

    Args:
        handle: a file descriptor, which this object owns.
    """

    def __init__(self, handle: int) -> None:
        self._handle = handle

    @classmethod
    def of(cls, content: Any) -> Handed:
        """Put ``content`` where other processes can take it from."""
        handed = cls(_nameless())
        with os.fdopen(os.dup(handed._handle), "wb") as file:
            file.write(cloudpickle.dumps(content))
        return handed

    def take(self) -> Any:
        """Return what was handed, and let go of it."""
        try:
            return cloudpickle.loads(os.pread(self._handle, os.fstat(self._handle).st_size, 0))
        finally:
            self.close()

    def close(self) -> None:
        """Let go of it; twice is harmless."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (reduction.DupFd(self._handle),)  # works while a process is started, and only then


def _nameless() -> int:
    """Return the descriptor of an empty file without a name; where there is no such memory, as on macOS, on disk."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("besom-handed")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _again(handle: Any) -> Handed:
    return Handed(handle.detach())
