"""What a kill leaves on a store's disk and nobody needs: drafts of files, half a store, decoded images.

Told from what a living process works on by the locks that it holds, drafts by their age. Knows nothing of databases.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from besom.lock import holder_of
from besom.paths import SWEEP_NAME, Store
from besom.upkeep.books import holder_of_sweep

DRAFT = re.compile(r"\..+\.[0-9a-f]{12}")
"""What `besom.paths.write_atomically` writes into until the file is whole."""
HALF_IMAGES = re.compile(r"tmp[a-z0-9_]{8}")
"""What `besom.datasets.shared` writes into, likewise."""
COPIES = ("mlflow.db.before-relocate", "studies.db.before-relocate")
OLD_SECONDS = 60.0
"""A draft that nobody has written into for so long nobody will."""


@dataclass(frozen=True)
class Leftover:
    """A file or folder that can go."""

    path: Path
    what: str


def leftovers(store: Store) -> Iterator[Leftover]:
    """Yield what was left in a store; nothing of a sweep that somebody works on."""
    yield from of_store(store)
    for folder in sweep_folders(store):
        if holder_of_sweep(store, folder.name) is None:
            yield from of_sweep(store, folder)


def sweep_folders(store: Store) -> list[Path]:
    """Return the folders of sweeps, those without a study too."""
    jobs = store.root / "jobs"
    there = sorted(jobs.iterdir()) if jobs.is_dir() else []
    return [folder for folder in there if folder.is_dir() and SWEEP_NAME.fullmatch(folder.name)]


def of_store(store: Store) -> Iterator[Leftover]:
    """Yield what was left outside the folders of sweeps."""
    half = store.root / ".creating"
    if half.is_dir() and holder_of(store.root / ".creating.lock") is None:
        yield Leftover(half, "half a store, of a start that was killed")
    for name in COPIES:
        if (store.root / name).is_file():
            yield Leftover(store.root / name, "a copy of before 'besom relocate', which was killed")
    for folder in (store.root, store.reports):
        yield from _drafts(folder.iterdir() if folder.is_dir() else ())


def of_sweep(store: Store, folder: Path) -> Iterator[Leftover]:
    """Yield what was left in the folder of a sweep that nobody else works on."""
    if not folder.is_dir():
        return
    images = store.images(folder.name)
    if images.is_dir():
        yield Leftover(images, "decoded images, of a sweep that was killed")
    for one in sorted(folder.iterdir()):
        if one.is_dir() and HALF_IMAGES.fullmatch(one.name) and all(_is_array(part) for part in one.iterdir()):
            yield Leftover(one, "half of the decoded images, of a sweep that was killed")
    yield from _drafts(folder.iterdir())
    for job in sorted(folder.iterdir()):
        if job.is_dir() and job.name.isdecimal():
            yield from _drafts(job.iterdir())


def _is_array(file: Path) -> bool:
    return file.name == "about.json" or file.suffix == ".npy"


def _drafts(paths: Iterator[Path] | tuple[()]) -> Iterator[Leftover]:
    for path in sorted(paths):
        if DRAFT.fullmatch(path.name) and path.is_file() and _is_old(path):
            yield Leftover(path, "a draft of a file, of a process that was killed")


def _is_old(path: Path) -> bool:
    return abs(time.time() - path.stat().st_mtime) > OLD_SECONDS
