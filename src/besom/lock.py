"""One living parent a sweep: a file that the parent holds locked, with who it is written in it.

The lock is the kernel's, so it ends with its holder, also after ``kill -9``; the text is for people.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from besom.errors import StoreDamaged, SweepLocked
from besom.machine import boot

PATIENCE = (0.02, 0.05, 0.1)
"""Seconds between attempts to lock: `holder_of` holds the lock for a moment too, to see whether it is free."""
SAME_PROCESS = 1.0
"""Seconds by which the start of one process may differ from look to look."""
ENDED = ("Z", "X")
"""How the system names the state of a process that runs no more."""
MOST_BYTES = 10_000
BEGIN = b'{"host": '
"""How the text of a lock begins, and how long it may be."""


class LockUnusable(StoreDamaged, OSError):
    """What stands in a lock's place is no file of besom's; who only looks may take it for one that cannot be read."""


def process_identity() -> dict[str, str | int | float]:
    """Return host, pid, process start and where pids are counted: together they name a process for good.

    ``process_start`` is for people, and moves with the clock of the machine; ``process_boot`` does not.
    """
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "process_start": psutil.Process(pid).create_time(),
        "process_boot": _since_boot(pid),
        "process_namespace": _namespace(),
    }


def _since_boot(pid: int) -> str:
    """Return which boot of the machine a process is of, and its start in clock ticks since then.

    '' where it is not shown, ``ended`` where only its parent has not heard yet that it has.
    """
    try:
        line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    state, *rest = line.rpartition(")")[2].split()  # the name in the brackets may hold anything
    return "ended" if state in ENDED else f"{boot()}/{rest[18]}"


def _namespace() -> str:
    """Return in which namespace this process has its pid: each container has one, maybe under its host's name."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def is_dead(identity: Mapping[str, Any]) -> bool:
    """Tell from `process_identity` whether a process was one of this host and lives no more.

    Of a process of another host or container, and of an identity that is not whole, nobody knows: False.
    """
    try:
        pid, started = int(identity["pid"]), float(identity["process_start"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return False
    if identity.get("host") != socket.gethostname():
        return False
    if is_of_another_boot(identity):
        return True  # the machine was started again since
    known, here = str(identity.get("process_boot") or ""), _namespace()
    if (identity.get("process_namespace") or here) != here:
        return False
    return _is_another(pid, known, started)


def _is_another(pid: int, known: str, started: float) -> bool:
    """Tell whether a pid is no longer that of a process of which ``process_boot`` and ``process_start`` are known."""
    if known:
        now = _since_boot(pid)
        return known != now if now else _is_gone(pid)
    try:  # of a run that an earlier besom made
        return abs(psutil.Process(pid).create_time() - started) > SAME_PROCESS
    except (psutil.Error, OverflowError, ValueError):
        return _is_gone(pid)


def _is_gone(pid: int) -> bool:
    """Tell whether a process that ``/proc`` does not show is none: other users' may be hidden there (``hidepid``)."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return pid < 1  # those are groups, no process


@contextmanager
def parent_lock(path: Path, sweep: str) -> Iterator[None]:
    """Hold a sweep's lock for the length of a ``with``.

    Raises:
        SweepLocked: when a living process holds it, naming that process.
        LockUnusable: in its place is a link, no file, or a file of somebody else's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = open_lock(path, os.O_RDWR | os.O_CREAT)
    try:
        _lock(handle, path, sweep)
        _refuse_text_of_others(handle, path)
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(process_identity()).encode())
        os.fsync(handle)  # so that other machines read it, too
        yield
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def open_lock(path: Path, flags: int) -> int:
    """Open the file of a lock: a store may come from others, and what is in its place may be a link, or a pipe.

    Raises:
        LockUnusable: it is no plain file.
    """
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise _unusable(path, "is no plain file") from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _unusable(path, "is no plain file")
    return handle


def _refuse_text_of_others(handle: int, path: Path) -> None:
    """Raise `LockUnusable` where a file that is about to be emptied holds what no holder has written."""
    text = os.pread(handle, MOST_BYTES, 0)
    begin = text[: len(BEGIN)]
    if text.strip(b"\0") and not BEGIN.startswith(begin):  # NULs: a disk that lost a power cut's last blocks
        raise _unusable(path, f"holds {begin!r} …, which besom has not written")


def _unusable(path: Path, what: str) -> LockUnusable:
    return LockUnusable(f"{path} {what}; expected the lock of a sweep, or nothing: move it away")


def refuse_if_locked(path: Path, sweep: str) -> None:
    """Raise `SweepLocked` when a living process holds the lock; creates nothing."""
    if path.exists():
        handle = open_lock(path, os.O_RDWR)
        try:
            _lock(handle, path, sweep)
        finally:
            os.close(handle)


def is_of_another_boot(identity: Mapping[str, Any]) -> bool:
    """Tell whether a process of `process_identity` runs, or ran, under another kernel than this one.

    That is another machine, or this one before it was started again; containers of one machine share a kernel.
    """
    known = str(identity.get("process_boot") or "")
    return bool(known) and known.partition("/")[0] != boot()


def holder_of(path: Path) -> dict[str, Any] | None:
    """Return the identity of the living process that holds a lock, empty while it writes it; None where none does.

    Only reads: the file is not made and not written.

    Raises:
        OSError: nobody can tell, since it cannot be read; `LockUnusable` where it is no plain file.
    """
    try:
        handle = open_lock(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return identity_in(os.pread(handle, MOST_BYTES, 0))
    finally:
        os.close(handle)
    return None


def identity_in(text: bytes) -> dict[str, Any]:
    """Return what a lock's holder has written, nothing while it does so, or where somebody else has."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
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
    holder = os.pread(handle, MOST_BYTES, 0).decode(errors="replace") or "another process"
    raise SweepLocked(
        f"sweep '{sweep}' is being run by {holder}; wait for it, stop it with Ctrl-C there, or use another --name"
    )
