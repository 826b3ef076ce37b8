"""One living parent a sweep: a file that the parent holds locked, with who it is written in it.

The lock is the kernel's, so it ends with its holder, also after ``kill -9``; the text is for people.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from besom.errors import SweepLocked

PATIENCE = (0.02, 0.05, 0.1)
"""Seconds between attempts to lock: `holder_of` holds the lock for a moment too, to see whether it is free."""
SAME_PROCESS = 1.0
"""Seconds by which the start of one process may differ from look to look."""


def process_identity() -> dict[str, str | int | float]:
    """Return host, pid and process start: together they name a process for good.

    ``process_start`` is for people, and moves with the clock of the machine; ``process_boot`` does not.
    """
    pid = os.getpid()
    start = psutil.Process(pid).create_time()
    return {"host": socket.gethostname(), "pid": pid, "process_start": start, "process_boot": _since_boot(pid)}


def _since_boot(pid: int) -> str:
    """Return which boot of the machine a process is of, and its start in clock ticks since then; '' if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
    return f"{boot}/{stat.rpartition(')')[2].split()[19]}"  # the name in the brackets may hold anything


def is_dead(identity: Mapping[str, Any]) -> bool:
    """Tell from `process_identity` whether a process was one of this host and lives no more.

    Of a process of another host, and of an identity that is not whole, nobody knows: False.
    """
    try:
        pid, started = int(identity["pid"]), float(identity["process_start"])
    except (KeyError, ValueError):
        return False
    if identity.get("host") != socket.gethostname():
        return False
    if known := identity.get("process_boot"):
        return bool(known != _since_boot(pid))
    try:  # of a run that an earlier besom made
        return abs(psutil.Process(pid).create_time() - started) > SAME_PROCESS
    except (psutil.NoSuchProcess, OverflowError, ValueError):
        return True


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
        return _identity_in(path)
    finally:
        os.close(handle)
    return None


def _identity_in(path: Path) -> dict[str, Any]:
    """Return what a lock's holder has written, nothing while it does so, or where somebody else has."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _lock(handle: int, path: Path, sweep: str) -> None:
    for pause in (*PATIENCE, None):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if pause is not None:
                time.sleep(pause)
    holder = path.read_text(encoding="utf-8", errors="replace") or "another process"
    raise SweepLocked(
        f"sweep '{sweep}' is being run by {holder}; wait for it, stop it with Ctrl-C there, or use another --name"
    )
