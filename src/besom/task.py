"""What Hydra runs as besom's task, in a lane or in this process.

The trial world is imported when a trial starts, so a parent that only sweeps never loads TensorFlow.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from omegaconf import DictConfig


def task(config: DictConfig) -> float:
    """Train one configuration and return its objective."""
    with _native_stderr_hushed():
        from besom.trial import run

    return run(config)


@contextmanager
def _native_stderr_hushed() -> Iterator[None]:
    """Swallow what TensorFlow's C++ says while it is imported: no log level reaches it yet, and it means nothing."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
