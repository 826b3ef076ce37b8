"""One living parent a sweep: a file that the parent holds locked, with who it is written in it.

The lock is the kernel's, so it ends with its holder, also after ``kill -9``; the text is for people.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from besom.errors import SweepLocked

PATIENCE = (0.02, 0.05, 0.1)
"""Seconds between attempts to lock: `holder_of` holds the lock for a moment too, to see whether it is free."""


def process_identity() -> dict[str, str | int | float]:
    """Return host, pid and process start: together they name a process for good."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "process_start": psutil.Process(pid).create_time()}


@contextmanager
def parent_lock(path: Path, sweep: str) -> Iterator[None]:
    """Hold a sweep's lock for the length of a ``with``.

    Raises:
        SweepLocked: when a living process holds it, naming that process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(handle, path, sweep)
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(process_identity()).encode())
        yield
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def refuse_if_locked(path: Path, sweep: str) -> None:
    """Raise `SweepLocked` when a living process holds the lock; creates nothing."""
    if path.exists():
        handle = os.open(path, os.O_RDWR)
        try:
            _lock(handle, path, sweep)
        finally:
            os.close(handle)


def holder_of(path: Path) -> dict[str, Any] | None:
    """Return the identity of the living process that holds a lock, empty while it writes it; None where none does.

    Only reads: the file is not made and not written.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = path.read_text(encoding="utf-8")
        return dict(json.loads(text)) if text.endswith("}") else {}
    finally:
        os.close(handle)
    return None


def _lock(handle: int, path: Path, sweep: str) -> None:
    for pause in (*PATIENCE, None):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if pause is not None:
                time.sleep(pause)
    holder = path.read_text(encoding="utf-8") or "another process"
    raise SweepLocked(
        f"sweep '{sweep}' is being run by {holder}; wait for it, stop it with Ctrl-C there, or use another --name"
    )
