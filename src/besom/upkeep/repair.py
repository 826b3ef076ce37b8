"""`besom repair`: closes what died, brings MLflow after the study, removes what a kill left. Never touches what lives.

Every step can be taken twice, and each leaves the store whole: killed, the same call goes on. Knows nothing of how the
deeds are shown.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from besom.errors import NotFound, SweepLocked, did_you_mean, one_line
from besom.lock import parent_lock
from besom.paths import Store
from besom.tracking import uri_of
from besom.upkeep import mend_runs, mend_spool, mend_trials
from besom.upkeep.books import Books, holder_of_sweep, last_parent_of, open_books, storage_of, sweep_names
from besom.upkeep.check_databases import databases
from besom.upkeep.leftovers import Leftover, of_store, of_sweep, sweep_folders
from besom.upkeep.run_records import RunRecord, experiments_in, in_database
from besom.upkeep.steps import ALONE, LEFT, Deed, Step, taken
from besom.upkeep.untouched import Untouched


def repair(store: Store, sweep: str | None = None, *, dry_run: bool = False) -> Iterator[Deed]:
    """Yield what is done, as it is done.

    Args:
        sweep: this one only, with its folder.
        dry_run: yield what would be done; a dry run changes nothing, not a byte.

    Raises:
        NotFound: there is no store, or no such sweep in it.
    """
    if not store.exists and not store.studies_db.exists():
        from besom.compare.catalog import no_store

        raise no_store(store)
    with _look() as look:
        damage = [Deed(LEFT, one.where, f"{one.what}; {one.mend}") for one in databases(store, look)]
        names = [] if damage else sweep_names(storage_of(store, look))
    if damage:  # nothing is written into a store of which half cannot be read
        yield from damage
        return
    if sweep is not None and sweep not in names:
        there = f"there is {', '.join(names)}" if names else "there is none yet"
        raise NotFound(f"no sweep '{sweep}' in {store.root}; {there}{did_you_mean(sweep, names)}")
    folders = [folder.name for folder in sweep_folders(store)]
    for name in [sweep] if sweep is not None else sorted({*names, *folders}):
        yield from _of_sweep(store, name, has_study=name in names, dry_run=dry_run)
    if sweep is None:
        yield from taken(list(mend_spool.of_none(store, uri_of(store, None))), dry_run=dry_run)
        yield from taken(_of_others(store, names), dry_run=dry_run)
        yield from taken(_removals(of_store(store)), dry_run=dry_run)


@contextmanager
def _look() -> Iterator[Untouched]:
    """Give a new look at the databases, as they are now."""
    with TemporaryDirectory(prefix="besom-") as folder:
        yield Untouched(Path(folder))


def _of_sweep(store: Store, name: str, *, has_study: bool, dry_run: bool) -> Iterator[Deed]:
    if (holder := holder_of_sweep(store, name)) is not None:
        who = f"process {holder['pid']} of {holder['host']}" if holder else "a process"
        yield Deed(ALONE, f"sweep {name}", f"{who} works on it: it is left alone")
        return
    parent = last_parent_of(store, name)
    with ExitStack() as locks:
        if not dry_run:
            try:
                _lock(locks, store, name)
            except (SweepLocked, OSError) as error:
                yield Deed(LEFT, f"sweep {name}", f"its lock cannot be taken: {one_line(error)}")
                return
        if has_study:
            yield from _of_books(store, name, parent, dry_run=dry_run)
        yield from taken(_removals(of_sweep(store, store.sweep(name))), dry_run=dry_run)


def _lock(locks: ExitStack, store: Store, name: str) -> None:
    locks.enter_context(parent_lock(store.lock(name), name))
    inner = store.sweep(name) / "parent.lock"
    if inner.is_file():
        locks.enter_context(parent_lock(inner, name))


def _of_books(store: Store, name: str, parent: dict[str, Any], *, dry_run: bool) -> Iterator[Deed]:
    """Mend the study, tell MLflow what waits on disk, then bring its runs after the study."""
    for steps in (mend_trials.steps, mend_spool.steps, mend_runs.steps):
        with _look() as look:
            books = _books(store, name, look, parent)
            yield from taken(list(steps(books)), dry_run=dry_run)


def _books(store: Store, name: str, look: Untouched, parent: dict[str, Any]) -> Books:
    storage = storage_of(store, look)
    assert storage is not None, "it has the sweep"
    return open_books(store, name, storage, look, last_parent=parent)


def _of_others(store: Store, names: Iterable[str]) -> list[Step]:
    found: list[RunRecord] = []
    with _look() as look, closing(look.connect(store.mlflow_db)) as database:
        for experiment in sorted(set(experiments_in(database)) - set(names)):
            found += in_database(database, experiment)
    return list(mend_runs.of_others(store.mlflow_uri, found))


def _removals(found: Iterable[Leftover]) -> Iterator[Step]:
    for one in found:
        yield Step(str(one.path), f"remove {one.what}", partial(_remove, one.path))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
