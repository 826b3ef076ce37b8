"""Which server a study is in, and who may lead a user there."""

from __future__ import annotations

from pathlib import Path

import pytest

from besom.database_server import with_password
from besom.errors import ConfigError
from besom.paths import Store
from besom.whereabouts import keep_storage, storage_of

MINE = "postgresql+psycopg://me@db.example.org:5432/optuna"
WITH_PASSWORD = MINE.replace("me@", "me:secret@")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with the folder of a sweep, outside any project."""
    monkeypatch.chdir(tmp_path)
    made = Store(tmp_path / "mlruns")
    made.sweep("x").mkdir(parents=True)
    return made


@pytest.mark.parametrize(
    "kept",
    [
        "postgresql+psycopg://me@other.example.org:5432/optuna",
        "postgresql+psycopg://me@db.example.org:5433/optuna",
        f"{MINE}?host=evil.example.org",
        f"{MINE}?hostaddr=192.0.2.1",
        f"{MINE}?port=99",
        f"{MINE}?service=evil",
        f"{MINE}?sslmode=disable",
        "postgresql+psycopg:///optuna?host=evil.example.org",
        "postgresql+psycopg://127.0.0.1/optuna?host=evil.example.org",
    ],
)
def test_a_server_that_only_the_store_names_is_not_asked(store: Store, kept: str) -> None:
    keep_storage(store, "x", kept)
    for environ in ({"BESOM_STORAGE": WITH_PASSWORD}, {"PGPASSWORD": "secret"}):
        with pytest.raises(ConfigError, match="if that is your server, say so"):
            storage_of(store, "x", environ)
    assert with_password(kept, {"BESOM_STORAGE": WITH_PASSWORD}).password is None


def test_the_one_that_is_given_is_asked_and_gets_its_password(store: Store) -> None:
    keep_storage(store, "x", MINE)
    assert storage_of(store, "x", {"BESOM_STORAGE": WITH_PASSWORD}) == MINE
    assert with_password(MINE, {"BESOM_STORAGE": WITH_PASSWORD}).password == "secret"


@pytest.mark.parametrize("query", ["?host=evil.example.org", "?service=evil"])
def test_without_a_password_only_this_machine_is_believed(store: Store, query: str) -> None:
    keep_storage(store, "x", "postgresql+psycopg://127.0.0.1/optuna")
    assert storage_of(store, "x", {}) == "postgresql+psycopg://127.0.0.1/optuna"
    keep_storage(store, "x", f"postgresql+psycopg://127.0.0.1/optuna{query}")
    with pytest.raises(ConfigError, match="if that is your server, say so"):
        storage_of(store, "x", {})
