"""Checks of the store's two databases: there, whole, and of the installed versions of Optuna and MLflow."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path

from besom.contained import linked_databases
from besom.databases import HEADER, OF_NOBODY, rules_in
from besom.errors import one_line
from besom.paths import Store
from besom.upkeep.findings import Finding, error
from besom.upkeep.untouched import MAKE_ROOM, NO_ROOM, Untouched

FROM_COPY = "put it back from a copy of the store; 'sqlite3 FILE .recover' shows what is left in it"
REVISION = re.compile(r"^revision(?:\s*:\s*[\w\[\], |]+)?\s*=\s*['\"]([^'\"]+)['\"]", re.M)
BEFORE = re.compile(r"^down_revision(?:\s*:\s*[\w\[\], |]+)?\s*=\s*(.+)$", re.M)


def databases(store: Store, look: Untouched) -> Iterator[Finding]:
    """Check ``mlflow.db`` and ``studies.db``, which a store without a sweep has not."""
    links = list(linked_databases(store))
    if links:
        yield from (error(file.name, link, "put it there in the place of the link") for file, link in links)
        return
    if not store.mlflow_db.is_file():
        yield error(store.mlflow_db.name, f"there is no file {store.mlflow_db}", "put it back from a copy of the store")
    for file, owner, migrations in (
        (store.mlflow_db, "mlflow", "store/db_migrations"),
        (store.studies_db, "optuna", "storages/_rdb/alembic"),
    ):
        if file.is_file():
            yield from _damage(file, look) or _version(file, owner, migrations, look)


def _damage(file: Path, look: Untouched) -> list[Finding]:
    """Return what is wrong with the file itself: its header, its pages and indexes."""
    try:
        begins = look.begin(file, len(HEADER))
        if begins != HEADER:
            told = "is empty" if not begins else f"begins with {begins!r}, which is no SQLite database"
            return [error(file.name, f"{file} {told}", FROM_COPY)]
        with closing(look.connect(file)) as database:
            answers = [str(answer) for (answer,) in database.execute("PRAGMA quick_check(5)")]
            rules = rules_in(database)
        if rules:
            return [error(file.name, f"{file} has {rules[0]}, {OF_NOBODY}", FROM_COPY)]
    except OSError as failure:
        return [error(file.name, f"{file} cannot be read: {one_line(failure)}", "give yourself the right to read it")]
    except sqlite3.Error as failure:
        if not look.has_room(file):  # with what is not in it yet it can be read as a copy only
            return [error(file.name, f"{file} cannot be looked at: {NO_ROOM}: {one_line(failure)}", MAKE_ROOM)]
        return [error(file.name, f"{file} is damaged: {one_line(failure)}", FROM_COPY)]
    return [] if answers == ["ok"] else [error(file.name, f"{file} is damaged: {answers[0]}", FROM_COPY)]


def _version(file: Path, owner: str, migrations: str, look: Untouched) -> list[Finding]:
    """Return whether the tables are of the installed version of the library that makes them."""
    try:
        with closing(look.connect(file)) as database:
            found = [str(number) for (number,) in database.execute("select version_num from alembic_version")]
    except sqlite3.Error as failure:
        mend = f"put it back from a copy of the store, or move it away if it is not {owner}'s"
        return [error(file.name, f"{file} is not of {owner}: {one_line(failure)}", mend)]
    head, known = revisions(owner, migrations)
    if found == [head]:
        return []
    version = importlib.metadata.version(owner)
    if found and set(found) <= known:
        url = f"sqlite:///{file}"
        upgrade = {"mlflow": f"mlflow db upgrade {url}", "optuna": f"optuna storage upgrade --storage {url}"}[owner]
        return [error(file.name, f"{file} is of an older {owner} than {version}", f"after a copy of it: {upgrade}")]
    return [error(file.name, f"{file} is of a newer {owner} than {version}", f"install the {owner} that made it")]


@cache
def revisions(package: str, migrations: str) -> tuple[str, frozenset[str]]:
    """Return the last revision of a package's tables and all of them.

    Out of the text of its migrations: to ask the package itself means to import it, which takes seconds.
    """
    spec = importlib.util.find_spec(package)
    assert spec is not None, "it is among besom's dependencies"
    assert spec.origin is not None, "it is a package with files"
    every, before = set(), ""
    for file in sorted(Path(spec.origin).parent.joinpath(migrations, "versions").glob("*.py")):
        text = file.read_text(encoding="utf-8")
        every.update(REVISION.findall(text))
        before += " ".join(BEFORE.findall(text)) + " "
    [head] = [revision for revision in every if f"'{revision}'" not in before and f'"{revision}"' not in before]
    return head, frozenset(every)
