"""`besom repair`: closes what died, brings MLflow after the study, removes what a kill left. Never touches what lives.

Every step can be taken twice, and each leaves the store whole: killed, the same call goes on. Knows nothing of how the
deeds are shown.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from besom.errors import ConfigError, NotFound, UserError, did_you_mean, one_line, shown
from besom.lock import parent_lock
from besom.paths import Store
from besom.study_lock import study_lock
from besom.tracking import uri_of
from besom.upkeep import mend_runs, mend_spool, mend_trials
from besom.upkeep.books import (
    HOME,
    MARKS,
    Books,
    holder_of_sweep,
    last_parent_of,
    named,
    open_books,
    studies_lock,
    why_no_sweep,
)
from besom.upkeep.check_databases import databases
from besom.upkeep.left import why_alone
from besom.upkeep.leftovers import Leftover, linked_folder, names_on_disk, of_store, of_sweep, refuse_through_link
from besom.upkeep.run_records import RunRecord, experiments_in, in_database
from besom.upkeep.steps import ALONE, LEFT, Deed, Step, taken
from besom.upkeep.studies import Found, studies_of, study_of
from besom.upkeep.untouched import MAKE_ROOM, NO_ROOM, Untouched, looking


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
    with looking() as look:
        damage = [Deed(LEFT, one.where, f"{one.what}; {one.mend}") for one in databases(store, look)]
        files = [file for file in (store.mlflow_db, store.studies_db) if file.is_file()]
        full = [] if damage else [file.name for file in files if not look.has_room(file)]
        damage += [Deed(LEFT, name, f"{NO_ROOM}; {MAKE_ROOM}") for name in full]
        names = {} if damage else studies_of(store, look)
    if damage:  # nothing is written into a store of which half cannot be read
        yield from damage
        return
    if sweep is not None and sweep not in names:
        there = f"there is {', '.join(names)}" if names else "there is none yet"
        raise NotFound(f"no sweep '{sweep}' in {store.root}; {there}{did_you_mean(sweep, names)}")
    for name in [sweep] if sweep is not None else sorted({*names, *names_on_disk(store)}):
        try:
            yield from _of_sweep(store, name, names.get(name), dry_run=dry_run)
        except ConfigError as error:  # the study's server went away
            yield Deed(LEFT, f"sweep {name}", shown(error))
    if sweep is None:
        yield from taken(list(mend_spool.of_none(store, uri_of(store, None))), dry_run=dry_run)
        yield from taken(_of_others(store, names), dry_run=dry_run)
        yield from taken(_removals(store, of_store(store)), dry_run=dry_run)


def _of_sweep(store: Store, name: str, study: Found | None, *, dry_run: bool) -> Iterator[Deed]:
    """Mend one sweep, with its folder.

    Args:
        study: None where it has none.
    """
    where = f"sweep {name}"
    if study is not None and study.unread is not None:
        yield Deed(LEFT, where, f"its study cannot be read: {study.unread}")
        return
    if (deed := _not_to_be_touched(store, name, study, where)) is not None:
        yield deed
        return
    parent = last_parent_of(store, name)
    with ExitStack() as locks:
        if not dry_run:
            try:
                _lock(locks, store, name, study)
            except (UserError, OSError) as error:
                yield Deed(LEFT, where, f"its lock cannot be taken: {one_line(error)}")
                return
        if study is not None:
            yield from _of_books(store, name, parent, dry_run=dry_run)
        yield from taken(_removals(store, of_sweep(store, name)), dry_run=dry_run)


def _not_to_be_touched(store: Store, name: str, study: Found | None, where: str) -> Deed | None:
    """Return why a sweep's lock is not even taken, None where it is to be mended."""
    if study is not None and (why := why_no_sweep(name, study.attributes)):
        return Deed(LEFT if MARKS & set(study.attributes) else ALONE, where, why)
    try:
        holder = holder_of_sweep(store, name, study)
    except (UserError, OSError) as error:
        return Deed(LEFT, where, f"nobody can tell whether somebody works on it: {one_line(error)}")
    if holder is not None:
        return Deed(ALONE, where, f"{named(holder)} works on it: it is left alone")
    if link := linked_folder(store, name):
        return Deed(LEFT, where, link)
    # who takes the lock writes over who may live, and the next call would close what is his
    if study is not None and (alone := why_alone(last_parent_of(store, name))) and _has_running(store, name):
        return Deed(ALONE, where, f"it has trials that are RUNNING, and {alone}: it is left alone")
    return None


def _has_running(store: Store, name: str) -> bool:
    with looking() as look:
        storage = _study(store, name, look).storage
        assert storage is not None, "it can be read"
        return bool(storage.get_n_trials(storage.get_study_id_from_name(name), TrialState.RUNNING))


def _lock(locks: ExitStack, store: Store, name: str, study: Found | None) -> None:
    """Take the locks of a sweep; of another app's that of its study, which each of its starts takes."""
    is_of_another_app = study is not None and HOME in study.attributes
    locks.enter_context(parent_lock(store.lock(name), name))
    inner, outer = store.sweep(name) / "parent.lock", studies_lock(store, name)
    if inner.is_file():
        locks.enter_context(parent_lock(inner, name))
    if is_of_another_app or outer.is_file():
        locks.enter_context(parent_lock(outer, name))
    if study is not None:
        locks.enter_context(study_lock(study.url, name))


def _of_books(store: Store, name: str, parent: dict[str, Any], *, dry_run: bool) -> Iterator[Deed]:
    """Mend the study, tell MLflow what waits on disk, then bring its runs after the study."""
    for steps in (mend_trials.steps, mend_spool.steps, mend_runs.steps):
        with looking() as look:
            books = _books(store, name, look, parent)
            yield from taken(list(steps(books)), dry_run=dry_run)


def _books(store: Store, name: str, look: Untouched, parent: dict[str, Any]) -> Books:
    return open_books(store, name, _study(store, name, look), look, last_parent=parent)


def _study(store: Store, name: str, look: Untouched) -> Found:
    """Return a sweep's study as it is now.

    Raises:
        ConfigError: its server went away meanwhile, or somebody deleted it.
    """
    study = study_of(store, name, look)
    if study is None or study.storage is None:
        raise ConfigError(f"its study cannot be read: {study.unread if study is not None else 'it is gone'}")
    return study


def _of_others(store: Store, names: Iterable[str]) -> list[Step]:
    found: list[RunRecord] = []
    with looking() as look, closing(look.connect(store.mlflow_db)) as database:
        for experiment in sorted(set(experiments_in(database)) - set(names)):
            found += in_database(database, experiment)
    return list(mend_runs.of_others(store.mlflow_uri, found))


def _removals(store: Store, found: Iterable[Leftover]) -> Iterator[Step]:
    for one in found:
        yield Step(str(one.path), f"remove {one.what}", partial(_remove, store, one.path))


def _remove(store: Store, path: Path) -> None:
    refuse_through_link(store, path)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
