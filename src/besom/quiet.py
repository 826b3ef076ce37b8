"""TensorFlow's C++ talks while it is imported, when no log level reaches it yet, and it means nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def native_stderr_hushed() -> Iterator[None]:
    """Send what is written to file descriptor 2 nowhere: a library's C++, and Python's own ``sys.stderr``."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
