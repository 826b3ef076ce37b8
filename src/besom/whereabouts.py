"""Where the study of a sweep is: in the store's own file, or in the server that the sweep was started with.

A sweep in a server keeps its URL in the store, without a password; whoever reads it later is led there, unless that
server is only the store's word, which may come from others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from besom.database_server import GIVEN, server_of
from besom.databases import is_there
from besom.errors import ConfigError, StoreDamaged, one_line
from besom.files import Unusable, read_bounded
from besom.paths import SWEEP_NAME, Store, write_atomically
from besom.storage import database_file, has_storage, read_storage, study_names
from besom.uris import LOOPBACK, check_no_password
from besom.withheld import without_password

MOST_BYTES = 10_000
"""Of the file in which a sweep keeps its storage."""
PASSWORDS = (GIVEN, "PGPASSWORD", "PGPASSFILE", "PGSERVICE")
"""Variables with what a server would be sent."""


def given_storage(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the URL in ``BESOM_STORAGE`` without its password, None where it is not set.

    Raises:
        ConfigError: it is no database URL, or one of a file, which needs no variable.
    """
    given = environ.get(GIVEN)
    if not given:
        return None
    try:
        url = make_url(given)
    except ArgumentError as error:
        raise ConfigError(
            f"{GIVEN}={without_password(given)!r} is no database URL; expected such as postgresql://USER@HOST/DATABASE"
        ) from error
    # `set` takes None for "as it is"
    bare = URL.create(url.drivername, url.username, None, url.host, url.port, url.database, url.query)
    return bare.render_as_string(hide_password=False)


def storage_of(store: Store, sweep: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return the URL of the storage with a sweep's study: what it was started with, else the store's own file.

    Where the store knows nothing of the sweep, it is ``BESOM_STORAGE`` if that is set: a sweep may have been started
    on another machine.

    Raises:
        ConfigError: that is a server which only the store names.
        StoreDamaged: the store's file says nothing that can be used.
    """
    kept = store.storage(sweep)
    if is_there(kept):
        try:
            found = read_bounded(kept, MOST_BYTES).decode()
            check_no_password(found, "hydra.sweeper.storage")
            database_file(found)
        except (Unusable, ValueError, ConfigError) as error:
            raise StoreDamaged(
                f"{kept} holds no hydra.sweeper.storage: {one_line(error)}; put it back from a copy"
            ) from error
        _refuse_unasked(found, sweep, environ)
        return found
    if not store.sweep(sweep).is_dir() and (given := given_storage(environ)) is not None:
        return given
    return store.studies_uri


def place_of(store: Store, url: str) -> str:
    """Return where a study is kept, as words: the store's own file, or a server."""
    return str(store.studies_db) if url == store.studies_uri else without_password(url)


def keep_storage(store: Store, sweep: str, url: str) -> None:
    """Store where a sweep's study is, if it is in a server, for those who read it later."""
    if url == store.studies_uri:
        store.storage(sweep).unlink(missing_ok=True)
    else:
        write_atomically(store.storage(sweep), url)


def names_in_servers(store: Store) -> list[str]:
    """Return the names of the sweeps of a store whose studies are said to be in servers."""
    names = (file.parent.name for file in store.root.glob("jobs/*/storage"))
    return sorted(name for name in names if SWEEP_NAME.fullmatch(name))  # not .locks, which a sweep may be named in


def all_study_names(store: Store, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the names of the studies that a store has, in its file and in servers, and those in ``BESOM_STORAGE``."""
    names = set(study_names(store.studies_uri)) if has_storage(store.studies_uri) else set()
    names |= set(names_in_servers(store))
    given = given_storage(environ)
    if given is not None and (storage := read_storage(given)) is not None:
        names |= {study.study_name for study in storage.get_all_studies() if "id" in study.user_attrs}
    return sorted(names)


def _refuse_unasked(url: str, sweep: str, environ: Mapping[str, str]) -> None:
    """Refuse a server that only the store names: it would get the user's password, and be believed."""
    file = database_file(url)
    if file is not None:
        raise StoreDamaged(f"sweep '{sweep}' of the store says that its study is in {file}; expected a server, or none")
    host, _, query = server_of(url)
    is_here = host in (*LOOPBACK, None) and not query and not any(environ.get(name) for name in PASSWORDS)
    if is_here or any(server_of(url) == server_of(one) for one in _given_here(sweep, environ)):
        return
    raise ConfigError(
        f"the store's sweep '{sweep}' says that its study is at {url!r}, which would get your password; if that is "
        f"your server, say so: {GIVEN}={url} besom …"
    )


def _given_here(sweep: str, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the URLs that somebody here has given: by environment, or in the project around this folder."""
    if (given := given_storage(environ)) is not None:
        yield given
    from besom.configs.compose import composed_here

    config = composed_here(sweep)
    if config is not None and config.hydra.sweeper.storage:
        yield str(config.hydra.sweeper.storage)
