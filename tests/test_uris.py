"""URIs that users give: passwords are refused and never shown, SQLite paths become absolute."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from besom.configs.config import typed
from besom.errors import ConfigError, StoreDamaged
from besom.paths import Store
from besom.tracking import tracking_uri, uri_of
from besom.uris import absolute_uri, check_no_password, is_same_server, refuse_remote_artifacts, refuse_unasked_server
from besom.withheld import without_password

WITH_PASSWORD = [
    ("http://me:s3cret@host:5000", "tracking.uri", "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
    ("https://:s3cret@host/path", "tracking.uri", "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
    ("postgresql://me:s3cret@host/mlflow", "tracking.uri", "MLFLOW_TRACKING_URI"),
    ("postgresql+psycopg2://me:s3cret/with@slash@host/mlflow", "tracking.uri", "MLFLOW_TRACKING_URI"),
    ("postgresql://host/mlflow?user=me&password=s3cret", "tracking.uri", "MLFLOW_TRACKING_URI"),
    ("postgresql://me:s3cret@host/optuna", "hydra.sweeper.storage", "BESOM_STORAGE"),
]


@pytest.mark.parametrize("location", ["https://evil.test/x", "HTTP://me:s3cret@evil.test/x"])
@pytest.mark.parametrize("uri", ["sqlite:////store/mlflow.db", "postgresql://host/mlflow"])
def test_a_database_sends_nobody_to_a_web_server(uri: str, location: str) -> None:
    with pytest.raises(ConfigError, match=r"the artifacts are at .*, as a database says; expected files") as refused:
        refuse_remote_artifacts(uri, location)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "location",
    [
        "https://evil.test/x",
        "http://server:5001/x",
        "https://server:5000/x",
        "http://server:5000@evil.test/x",
        "mlflow-artifacts://evil.test/1",
        "mlflow-artifacts://server:5001/1",
        "ftp://server:5000/1",
        "sftp://evil.test/1",
    ],
)
def test_a_server_sends_nobody_to_another_one(location: str) -> None:
    with pytest.raises(ConfigError, match=r"the artifacts are at .*, as http://server:5000 says; expected files"):
        refuse_remote_artifacts("http://server:5000", location)


@pytest.mark.parametrize(
    ("uri", "environ"),
    [
        ("http://evil.test", {}),
        ("https://127.0.0.1.evil.test", {}),
        ("http://127.0.0.1@evil.test:5000", {}),
        ("postgresql://evil.test/mlflow", {}),
        ("databricks://evil", {}),
        ("http://localhost:5000", {"MLFLOW_TRACKING_TOKEN": "x"}),
        ("http://127.0.0.1:5000", {"MLFLOW_TRACKING_PASSWORD": "x"}),
        ("https://server", {}),
        ("http://server:5001", {}),
    ],
)
def test_a_server_that_only_a_store_names_is_not_asked(uri: str, environ: dict[str, str]) -> None:
    expected = (
        r"^the store's sweep 'q' says that its runs are at .*; if that is your server.*MLFLOW_TRACKING_URI=.* besom"
    )
    with pytest.raises(ConfigError, match=expected):
        refuse_unasked_server(uri, ["", "http://server"], "the store's sweep 'q'", environ)


@pytest.mark.parametrize(
    ("uri", "given", "environ"),
    [
        ("http://server", "http://SERVER:80/", {"MLFLOW_TRACKING_TOKEN": "x"}),
        ("http://server:5000", "http://me:s3cret@server:5000", {"MLFLOW_TRACKING_TOKEN": "x"}),
        ("postgresql://host/mlflow", "postgresql://me:s3cret@host/mlflow", {}),
        ("databricks", "databricks", {"MLFLOW_TRACKING_TOKEN": "x"}),
        ("http://127.0.0.1:5000", "", {}),
        ("http://[::1]:5000", "", {}),
        ("sqlite:////elsewhere/mlflow.db", "", {"MLFLOW_TRACKING_TOKEN": "x"}),
    ],
)
def test_a_server_that_somebody_here_has_given_is_used(uri: str, given: str, environ: dict[str, str]) -> None:
    refuse_unasked_server(uri, [given], "the store's sweep 'q'", environ)


@pytest.mark.parametrize(
    ("uri", "location"),
    [
        ("sqlite:////store/mlflow.db", "file:///store/artifacts/1"),
        ("sqlite:////store/mlflow.db", "/store/artifacts/1"),
        ("postgresql://host/mlflow", "s3://bucket/1"),
        ("http://server:5000", "mlflow-artifacts:/1"),
        ("http://server:5000", "http://server:5000/1"),
        ("http://server:5000", "mlflow-artifacts://server:5000/1"),
        ("https://server", "https://server:443/1"),
    ],
)
def test_files_object_stores_and_a_servers_own_artifacts_are_read(uri: str, location: str) -> None:
    refuse_remote_artifacts(uri, location)


@pytest.mark.parametrize(("uri", "name", "variable"), WITH_PASSWORD)
def test_a_password_is_refused_with_the_variable_to_use_and_not_repeated(uri: str, name: str, variable: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}=.*\*\*\*.* holds a password; .* {variable}$") as refused:
        check_no_password(uri, name)
    assert "s3cret" not in str(refused.value)


WITHOUT_PASSWORD = [
    "http://host:5000",
    "http://host:5000/mail@example.org",
    "https://me@host/path?x=a:b@c",
    "postgresql://me@host:5432/mlflow",
    "sqlite:////home/me/mail@home:1/mlflow.db",
    "databricks",
    "/home/me:you@home",
]


@pytest.mark.parametrize("uri", WITHOUT_PASSWORD)
def test_a_uri_without_a_password_passes(uri: str) -> None:
    check_no_password(uri, "tracking.uri")
    assert without_password(uri) == uri


@given(
    scheme=st.sampled_from(["http", "https", "postgresql", "mysql+pymysql"]),
    user=st.text("abcXYZ019._%-", max_size=8),
    password=st.text("abcXYZ019._%!$&*+,;=-", min_size=6, max_size=20).filter(lambda text: "***" not in text),
)
def test_no_password_is_ever_shown(scheme: str, user: str, password: str) -> None:
    uri = f"{scheme}://{user}:{password}@host:5000/name"
    assert without_password(f"cannot reach {uri} today") == f"cannot reach {scheme}://{user}:***@host:5000/name today"


def test_a_relative_sqlite_path_is_taken_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_uri("sqlite:///runs/mlflow.db") == f"sqlite:///{tmp_path}/runs/mlflow.db"


@pytest.mark.parametrize("uri", ["sqlite:////data/mlflow.db", "http://host:5000", "postgresql://host/mlflow"])
def test_other_uris_stay_as_they_are(uri: str) -> None:
    assert absolute_uri(uri) == uri


@pytest.mark.parametrize("uri", ["http://[foo", "//[foo", "mlflow-artifacts://[::1/x", "http://a\u2100b"])
def test_what_is_no_uri_is_one_line(uri: str) -> None:
    for ask in (
        lambda: refuse_remote_artifacts("sqlite:///x.db", uri),
        lambda: refuse_unasked_server(uri, [], "it", {}),
        lambda: is_same_server(uri, "http://host"),
        lambda: tracking_uri(typed({"data": {}, "model": {}, "train": {}, "tracking": {"uri": uri}}), {}),
    ):
        with pytest.raises(ConfigError, match=r"is no URI: .*; expected such as http://HOST"):
            ask()


def test_a_pipe_in_the_place_of_a_kept_uri_is_not_waited_for(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    store.tracking_uri("q").parent.mkdir(parents=True)
    os.mkfifo(store.tracking_uri("q"))
    with pytest.raises(StoreDamaged, match=r"holds no tracking.uri: it is no plain file"):
        uri_of(store, "q", {})
