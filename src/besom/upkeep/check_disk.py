"""Checks of the disk that a store is on: room for more trials, and a file system that keeps what it is told."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from besom.paths import Store
from besom.upkeep.findings import Finding, note, warning

MOUNTS = Path("/proc/mounts")
NETWORK = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "lustre",
    "glusterfs",
    "fuse.sshfs",
    "fuse.s3fs",
)
"""Kinds of file systems on which SQLite's write-ahead mode cannot be relied on, nor locks be seen by other hosts."""
FEW = 50
"""A disk on which fewer trials than this fit is nearly full."""
A_TRIAL = 4_000_000
"""Bytes that a trial takes as long as none has shown it."""


def room(store: Store, n_trials: int) -> Iterator[Finding]:
    """How many more trials fit, by what those so far have taken."""
    yield room_for(shutil.disk_usage(store.root).free, bytes_in(store.root) // n_trials if n_trials else A_TRIAL)


def room_for(free: int, each: int) -> Finding:
    """Return how many more trials fit on a disk; ``each`` takes so many bytes."""
    fit = free // max(each, 1)
    what = f"{free / 1e9:,.1f} GB are free: room for about {fit:,} more trials of {each / 1e6:,.1f} MB"
    return warning("disk", what, "make room, or move the store (paths.store)") if fit < FEW else note("disk", what)


def bytes_in(folder: Path) -> int:
    """Return how much of the disk the files below a folder take."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_blocks * 512  # noqa: PTH118
            except OSError:  # it went meanwhile
                continue
    return total


def file_system(store: Store, mounts: Path = MOUNTS) -> Iterator[Finding]:
    """Whether the store is on a network's file system."""
    kind = kind_of(store.root, mounts)
    if kind in NETWORK:
        yield warning(
            "disk",
            f"the store is on a network's file system ({kind}): SQLite cannot rely on its locks, nor other hosts on "
            "besom's",
            "a store on a local disk; for several machines a PostgreSQL and an MLflow server",
        )


def kind_of(folder: Path, mounts: Path) -> str:
    """Return the kind of file system that a folder is on, empty where the system does not tell."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return ""
    found = {_unescaped(fields[1]): fields[2] for fields in (line.split() for line in lines) if len(fields) > 2}
    resolved = folder.resolve()
    return next((found[str(place)] for place in (resolved, *resolved.parents) if str(place) in found), "")


def _unescaped(text: str) -> str:
    return text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
