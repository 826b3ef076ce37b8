"""Checks of the store's folder: where it is, who may write, what a kill left, who holds its locks."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import closing, suppress
from pathlib import Path

from besom.files import Unusable, read_bounded
from besom.lock import holder_of
from besom.paths import SWEEP_NAME, Store
from besom.upkeep.books import MOST_BYTES
from besom.upkeep.findings import Finding, error, note, some, warning
from besom.upkeep.leftovers import leftovers, linked_folder, names_on_disk
from besom.upkeep.moved import former_homes, relocate_command, told
from besom.upkeep.untouched import Untouched


def moved(store: Store, look: Untouched) -> Iterator[Finding]:
    """Whether the addresses of artifacts are those of this folder."""
    places = places_before(store, look)
    others = f"; and from {some(places[1:])}" if places[1:] else ""
    if places:
        yield error("store", f"{told(store, places[0])}{others}", relocate_command(store).strip("'"))


def places_before(store: Store, look: Untouched) -> list[Path]:
    """Return where the store was, none where it is at home."""
    with closing(look.connect(store.mlflow_db)) as database:
        return former_homes(database, store)


def rights(store: Store, look: Untouched) -> Iterator[Finding]:
    """Whether this user may read and write what a sweep writes."""
    places = (store.root, store.mlflow_db, store.studies_db, store.artifacts, store.root / "jobs")
    there = [place for place in places if place.exists()]
    unreadable = [place for place in there if not os.access(place, os.R_OK)]
    locked = [place for place in there if place not in unreadable and not os.access(place, os.W_OK)]
    if unreadable:
        yield error("rights", f"you may not read {some(unreadable)}", "chmod, or ask their owner")
    if locked:
        yield warning(
            "rights", f"you may not write {some(locked)}: no sweep can run here", "chmod, or use another store"
        )


def left_behind(store: Store, look: Untouched) -> Iterator[Finding]:
    """Files and folders that a kill left and nobody owns."""
    for one in leftovers(store):
        yield warning(str(one.path.relative_to(store.root)), one.what, "besom repair")


def locks(store: Store, look: Untouched) -> Iterator[Finding]:
    """Locks that nobody holds and that still say who did: a parent was killed. The next one writes over it."""
    folder = store.root / "jobs" / ".locks"
    for lock in sorted(folder.iterdir()) if folder.is_dir() else ():
        with suppress(OSError, Unusable):  # who may not look at one is told of its sweep
            if not SWEEP_NAME.fullmatch(lock.name) or holder_of(lock) is not None:
                continue
            if text := read_bounded(lock, MOST_BYTES).decode(errors="replace"):
                yield _signed_on(lock, text)


def _signed_on(lock: Path, text: str) -> Finding:
    return note(f"sweep {lock.name}", f"its last parent had no time to sign off, and holds nothing: {text}")


def unknown_folders(store: Store, names: Collection[str]) -> Iterator[Finding]:
    """Folders of jobs that belong to no study: a start that was killed before it had one. And links to folders."""
    for name in names_on_disk(store):
        if (link := linked_folder(store, name)) is not None:
            yield warning(f"jobs/{name}", link, "put the folder itself there, or link jobs/ as a whole")
        elif name not in names and store.snapshot(name).is_dir():
            what = "the folder of a sweep that has no study: its start was killed before it had one"
            yield note(f"jobs/{name}", what, f"besom sweep {name} takes it; else remove it")
