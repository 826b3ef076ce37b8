"""Whether a store is where its artifacts' addresses say: MLflow keeps them absolute, and a moved folder breaks them.

One look at one table, for every command that opens a store. Imports neither MLflow nor Optuna.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote, unquote

from besom.contained import local_path
from besom.errors import ConfigError
from besom.paths import Store
from besom.upkeep.untouched import Untouched


def former_home(store: Store, look: Untouched | None = None) -> Path | None:
    """Return the folder that a store was moved or copied from, None where it is at home, or there is none.

    A database that cannot be read is no answer: others tell of it.

    Args:
        look: for who may not change a byte; takes longer.
    """
    if not store.exists:
        return None
    if look is not None:
        with suppress(sqlite3.Error), closing(look.connect(store.mlflow_db)) as database:
            return next(iter(former_homes(database, store)), None)
        return None
    for how in ("mode=ro", "mode=ro&immutable=1"):  # the second in a folder that cannot be written
        try:
            uri = f"{store.mlflow_db.as_uri()}?{how}"
            with closing(sqlite3.connect(uri, uri=True, timeout=1.0)) as database:
                return next(iter(former_homes(database, store)), None)
        except sqlite3.Error:
            continue
    return None


def former_homes(database: sqlite3.Connection, store: Store) -> list[Path]:
    """Return every folder that the addresses name where they do not name the store's.

    Args:
        database: MLflow's.
    """
    return list(dict.fromkeys(root_of(old) for old in old_addresses(database, store)))


def old_addresses(database: sqlite3.Connection, store: Store) -> list[str]:
    """Return how the addresses of a store's artifacts begin where that is not their folder: ``file:///OLD/artifacts``.

    A place counts as an old one where the default experiment names it, or an experiment whose folder is in this store
    all the same: others may have been put elsewhere on purpose.

    Args:
        database: MLflow's.
    """
    candidates = list(_candidates(database, store))
    places = {root_of(begin) for begin, is_ours in candidates if is_ours}
    return list(dict.fromkeys(begin for begin, _ in candidates if root_of(begin) in places))


def _candidates(database: sqlite3.Connection, store: Store) -> Iterator[tuple[str, bool]]:
    """Yield how an experiment's address begins, where it is elsewhere, and whether it must be of this store."""
    rows = database.execute("select experiment_id, name, artifact_location from experiments order by experiment_id")
    for number, name, location in rows:
        for last in (str(number), quote(str(name))):
            begin = str(location).removesuffix(f"/{last}")
            if begin != location and _is_elsewhere(begin, store):
                yield begin, number == 0 or (store.artifacts / unquote(last)).is_dir()


def root_of(begin: str) -> Path:
    """Return the folder of the store that an address of its ``artifacts`` names."""
    return Path(local_path(begin) or begin).parent


def _is_elsewhere(begin: str, store: Store) -> bool:
    path = local_path(begin)
    if path is None or not path.is_absolute():
        return False
    return path.name == "artifacts" and not _is_same(path.parent, store.root)


def _is_same(one: Path, other: Path) -> bool:
    """Tell whether two paths are one folder, be it through a link."""
    try:
        return one == other or one.samefile(other)
    except OSError:  # it is gone
        return False


def told(store: Store, former: Path) -> str:
    """Return what is said of a store that was moved."""
    kind = "copied" if former.is_dir() else "moved"
    return f"the store {store.root} was {kind} from {former}, where the addresses of its artifacts still point"


def say_if_moved(store: Store) -> None:
    """Tell in one line on stderr that a store was moved: for who reads studies only, which do not mind."""
    if former := former_home(store):
        sys.stderr.write(f"besom: {told(store, former)}; {relocate_command(store)} mends that\n")


def refuse_moved(store: Store, look: Untouched | None = None) -> None:
    """Raise `ConfigError` where a store was moved: a copy would be written into the original, or read from it.

    Args:
        look: as `former_home`.
    """
    if former := former_home(store, look):
        raise ConfigError(f"{told(store, former)}; expected a store at home: {relocate_command(store)} mends that")


def relocate_command(store: Store) -> str:
    """Return the command that mends a moved store."""
    return f"'besom relocate --store {store.root}'"
