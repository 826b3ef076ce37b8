"""The studies of a store as `besom doctor` and `besom repair` see them: in its own file, and in servers.

A file is read as a copy, see `besom.upkeep.untouched`; a server is asked, and neither copied nor written into. One that
cannot be asked keeps nobody from the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.storages import RDBStorage

from besom.errors import UserError, shown
from besom.paths import Store
from besom.storage import read_storage
from besom.sweep.ownership import OWNER
from besom.upkeep.untouched import Untouched
from besom.whereabouts import names_in_servers, storage_of

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Found:
    """A study of a store.

    Args:
        url: of its storage; empty where that is not known.
        storage: to be read; None where it cannot be, and ``unread`` says why.
        attributes: the study's; some may be none of besom's, see `besom.upkeep.books.why_no_sweep`.
    """

    url: str
    storage: RDBStorage | None
    attributes: Mapping[str, Any]
    unread: str | None = None


def studies_of(store: Store, look: Untouched) -> dict[str, Found]:
    """Return the studies of a store by name, those that cannot be read too.

    Raises:
        Exception: SQLAlchemy's or Optuna's; the database in the store is damaged.
    """
    found = _in_file(store, look)
    servers: dict[str, RDBStorage | str | None] = {}  # one that is away is waited for once
    for name in names_in_servers(store):
        found.pop(name, None)
        if (study := _in_server(store, name, servers)) is not None:
            found[name] = study
    return dict(sorted(found.items()))


def study_of(store: Store, name: str, look: Untouched) -> Found | None:
    """Return one study of a store, None where there is none.

    Raises: as `studies_of`.
    """
    return _in_server(store, name, {}) if name in names_in_servers(store) else _in_file(store, look).get(name)


def _in_file(store: Store, look: Untouched) -> dict[str, Found]:
    """Return the studies in the store's own file, of another version of Optuna too."""
    if not store.studies_db.is_file():
        return {}
    how = {"creator": lambda: look.connect(store.studies_db)}
    storage = RDBStorage("sqlite://", engine_kwargs=how, skip_table_creation=True)
    return {one.study_name: Found(store.studies_uri, storage, one.user_attrs) for one in storage.get_all_studies()}


def _in_server(store: Store, name: str, servers: dict[str, RDBStorage | str | None]) -> Found | None:
    """Return a study in a server; None of a sweep whose start was killed before it had one.

    Args:
        servers: that were asked already, by URL: their storage, or why there is none.
    """
    try:
        url = storage_of(store, name)
    except UserError as error:
        return Found("", None, {}, shown(error))
    try:
        if url not in servers:
            servers[url] = read_storage(url)
        storage = servers[url]
        if isinstance(storage, str):
            return Found(url, None, {}, storage)
        if storage is not None:
            return Found(url, storage, storage.get_study_user_attrs(storage.get_study_id_from_name(name)))
    except KeyError:  # it has no such study
        pass
    except Exception as error:  # besom's, or SQLAlchemy's of any kind: no rights to its tables
        servers[url] = shown(error)
        return Found(url, None, {}, shown(error))
    has_had_one = (store.sweep(name) / OWNER).is_file()
    return Found(url, None, {}, f"{url} has no study '{name}' any more") if has_had_one else None
