"""What a kill leaves on a store's disk and nobody needs: drafts of files, half a store, decoded images.

Told from what a living process works on by the locks that it holds, drafts by their age. Knows nothing of databases.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from besom.errors import ConfigError
from besom.lock import holder_of
from besom.paths import DRAFT, OUTSIDE_SWEEPS, SWEEP_NAME, Store
from besom.upkeep.books import holder_of_sweep

HALF_CONFIGS = re.compile(r"\..+\.[a-z0-9_]{8}")
"""What `besom.configs.frozen` copies configs into until they are whole."""
HALF_IMAGES = re.compile(r"tmp[a-z0-9_]{8}")
"""What `besom.datasets.shared` writes into, likewise."""
COPIES = ("mlflow.db.before-relocate", "studies.db.before-relocate")
"""An earlier besom made them."""
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
    for name in names_on_disk(store):
        if not _may_be_worked_on(store, name):
            yield from of_sweep(store, name)


def _may_be_worked_on(store: Store, name: str) -> bool:
    try:
        return holder_of_sweep(store, name) is not None
    except OSError:
        return True


def names_on_disk(store: Store) -> list[str]:
    """Return the names of the sweeps that have a folder in the store, those without a study too."""
    folders = (*_in(store.root / "jobs"), *_in(store.spools))
    return sorted({folder.name for folder in folders if folder.is_dir() and SWEEP_NAME.fullmatch(folder.name)})


def linked_folder(store: Store, name: str) -> str | None:
    """Return what is said of a sweep whose folder is a link: nothing is changed or removed through one."""
    folder = store.sweep(name)
    return f"its folder {folder} is a link to {folder.resolve()}: it is left alone" if folder.is_symlink() else None


def refuse_through_link(store: Store, path: Path) -> None:
    """Raise `ConfigError` where a path leads through a link, but for ``jobs`` at the top of the store.

    That one people make to use a larger disk.
    """
    if not is_own(store, path):
        raise ConfigError(f"{path} leads through a link; expected what is in {store.root} itself")


def is_own(store: Store, path: Path) -> bool:
    """Tell whether a path below the store leads through no link but its ``jobs``."""
    top, *rest = path.relative_to(store.root).parts
    home = (store.root / top).resolve() if top == "jobs" and rest else store.root.resolve() / top
    return path.resolve() == home.joinpath(*rest)


def _in(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def of_store(store: Store) -> Iterator[Leftover]:
    """Yield what was left outside the folders of sweeps."""
    yield from (one for one in _of_store(store) if is_own(store, one.path))


def _of_store(store: Store) -> Iterator[Leftover]:
    half = store.root / ".creating"
    if half.is_dir() and holder_of(store.root / ".creating.lock") is None:
        yield Leftover(half, "half a store, of a start that was killed")
    for name in COPIES:
        if (store.root / name).is_file():
            yield Leftover(store.root / name, "a copy of before 'besom relocate', which was killed")
    for folder in (store.root, store.reports):
        yield from _drafts(_in(folder))
    yield from _half_journals(store.spool(OUTSIDE_SWEEPS))


def of_sweep(store: Store, name: str) -> Iterator[Leftover]:
    """Yield what was left in the folders of a sweep that nobody else works on."""
    yield from (one for one in _of_sweep(store, name) if is_own(store, one.path))


def _of_sweep(store: Store, name: str) -> Iterator[Leftover]:
    folder, images = store.sweep(name), store.images(name)
    if _has_only_arrays(images):
        yield Leftover(images, "decoded images, of a sweep that was killed")
    for one in _in(folder):
        if HALF_IMAGES.fullmatch(one.name) and _has_only_arrays(one):
            yield Leftover(one, "half of the decoded images, of a sweep that was killed")
    for one in _in(store.snapshot(name)):
        if one.is_dir() and HALF_CONFIGS.fullmatch(one.name) and _is_old(one):
            yield Leftover(one, "half a copy of configs, of a start that was killed")
    yield from _drafts(_in(folder))
    for job in _in(folder):
        if job.is_dir() and job.name.isdecimal():
            yield from _drafts(_in(job))
    yield from _half_journals(store.spool(name))


def _half_journals(spool: Path) -> Iterator[Leftover]:
    for one in _in(spool):
        if one.is_dir() and not (one / "operations.jsonl").exists() and _is_old(one):
            yield Leftover(one, "the rest of what waited for MLflow and was told it, or was never begun")


def _has_only_arrays(folder: Path) -> bool:
    return folder.is_dir() and all(file.name == "about.json" or file.suffix == ".npy" for file in folder.iterdir())


def _drafts(paths: Iterable[Path]) -> Iterator[Leftover]:
    for path in paths:
        if DRAFT.fullmatch(path.name) and path.is_file() and _is_old(path):
            yield Leftover(path, "a draft of a file, of a process that was killed")


def _is_old(path: Path) -> bool:
    return abs(time.time() - path.stat().st_mtime) > OLD_SECONDS
