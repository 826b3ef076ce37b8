"""`besom doctor`: every check, and what they found. Only reads: not a byte of the store changes.

Each check is a small function of its own module, and stands in one of the tables here. Knows nothing of how the
findings are shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing

from besom.database_server import GIVEN
from besom.errors import ConfigError, NotFound, did_you_mean, one_line, shown
from besom.paths import Store
from besom.upkeep import (
    check_databases,
    check_disk,
    check_environment,
    check_files,
    check_runs,
    check_spool,
    check_store,
    check_trials,
)
from besom.upkeep.books import Books, open_books, why_no_sweep
from besom.upkeep.findings import Finding, by_level, error, note
from besom.upkeep.run_records import experiments_in, in_database
from besom.upkeep.studies import Found, studies_of
from besom.upkeep.untouched import Untouched, looking

STORE_CHECKS: tuple[Callable[[Store, Untouched], Iterator[Finding]], ...] = (
    check_store.moved,
    check_store.rights,
    check_store.left_behind,
    check_store.locks,
)
SWEEP_CHECKS: tuple[Callable[[Books], Iterator[Finding]], ...] = (
    check_trials.held,
    check_trials.elsewhere,
    check_trials.left,
    check_trials.trained_twice,
    check_trials.folder,
    check_trials.results,
    check_spool.waiting,
    check_runs.readable,
    check_runs.lost,
    check_runs.ends,
    check_runs.numbers,
    check_runs.dead,
    check_runs.parent,
    check_runs.unknown,
    check_files.artifacts,
)


def examine(store: Store, sweep: str | None = None, environ: Mapping[str, str] = os.environ) -> list[Finding]:
    """Return what is found in a store, the worst first.

    Args:
        sweep: check this one's books only; the store and the machine are checked all the same.

    Raises:
        NotFound: there is no store, or no such sweep in it.
    """
    if not store.exists and not store.studies_db.exists():
        from besom.compare.catalog import no_store

        raise no_store(store)
    with looking() as look:
        found = [finding for check in check_environment.CHECKS for finding in _made(check.__name__, check(environ))]
        found += _made("file_system", check_disk.file_system(store))
        damage = list(_made("databases", check_databases.databases(store, look)))
        if not damage:
            found += _of_whole(store, sweep, look)
    return by_level([*damage, *found])


def _of_whole(store: Store, sweep: str | None, look: Untouched) -> Iterator[Finding]:
    """Yield what is found in a store whose databases can be read."""
    names = studies_of(store, look)
    if sweep is not None and sweep not in names:
        there = f"there is {', '.join(names)}" if names else "there is none yet"
        raise NotFound(f"no sweep '{sweep}' in {store.root}; {there}{did_you_mean(sweep, names)}")
    for check in STORE_CHECKS:
        yield from _made(check.__name__, check(store, look))
    yield from _made("unknown_folders", check_store.unknown_folders(store, names))
    is_moved, n_trials = bool(check_store.places_before(store, look)), 0
    for name, found in names.items():
        if found.storage is not None and (why := why_no_sweep(name, found.attributes)):
            yield note(f"sweep {name}", why)
            continue
        if found.url == store.studies_uri and found.storage is not None:
            n_trials += found.storage.get_n_trials(found.storage.get_study_id_from_name(name))
        if sweep in (None, name):
            yield from _made(f"sweep {name}", _of_sweep(store, name, found, look, is_moved=is_moved))
    if sweep is None:
        yield from _made("other_runs", _other_runs(store, names, look))
        yield from _made("waiting", check_spool.of_none(store))
    yield from _made("room", check_disk.room(store, n_trials))


def _of_sweep(store: Store, name: str, found: Found, look: Untouched, *, is_moved: bool) -> Iterator[Finding]:
    if found.unread is not None:
        yield _unread(name, found.unread)
        return
    try:
        books = open_books(store, name, found, look)
    except ConfigError as failure:
        yield _unread(name, shown(failure))
        return
    except OSError as failure:
        what = f"nobody can tell whether somebody works on it: {one_line(failure)}"
        yield error(f"sweep {name}", what, "give yourself the right to read that, or ask its owner")
        return
    for check in SWEEP_CHECKS:
        if not (is_moved and check is check_files.artifacts):  # that every file is missing is told already
            yield from _made(check.__name__, check(books))


def _unread(name: str, why: str) -> Finding:
    mend = f"start that server, or give it with {GIVEN}; a study that is gone comes back with a copy of its database"
    return error(f"sweep {name}", f"its study cannot be read: {why}", mend)


def _other_runs(store: Store, names: Iterable[str], look: Untouched) -> Iterator[Finding]:
    """Yield the runs of no sweep, such as those of ``besom train``, that are RUNNING and whose process is dead."""
    with closing(look.connect(store.mlflow_db)) as database:
        for experiment in sorted(set(experiments_in(database)) - set(names)):
            for run in in_database(database, experiment):
                if run.status == "RUNNING" and run.kind:
                    yield check_runs.dead_run(run, "besom repair")


def _made(name: str, check: Iterable[Finding]) -> Iterator[Finding]:
    """Yield what a check finds; one that fails itself keeps nobody from the others."""
    try:
        yield from check
    except Exception as failure:  # of a kind that nobody foresaw: that is a finding, too
        text = f"the check '{name}' could not be made: {type(failure).__name__}: {one_line(failure)}"
        yield error("besom doctor", text, "tell the maintainers, with --debug's output of 'besom status'")
