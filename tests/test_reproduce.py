"""The rules of a verdict and of trust; the real reproduction is in test_cli.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from besom.app.reproduce import first_difference, refuse_foreign_targets, within_noise
from besom.errors import ConfigError
from besom.paths import Store
from besom.tracking import keep_uri, uri_of

OWN = {"data": {"_target_": "besom.data.npz"}, "model": {"_target_": "besom.model.cnn"}}


@pytest.mark.parametrize(
    ("group", "target", "allow", "message"),
    [
        ("model", "mine.build", [], "built by 'mine.build'.*give --allow mine"),
        ("data", "os.system", ["mine"], "built by 'os.system'.*give --allow os"),
        (
            "data",
            "besom.sweep.study.delete_study",
            [],
            "built by 'besom.sweep.study.delete_study'; expected besom.data.mnist_5k",
        ),
        ("data", "besom.sweep.study.delete_study", ["besom"], "built by 'besom.sweep.study.delete_study'"),
        ("model", "besomx.build", [], "give --allow besomx"),
    ],
)
def test_a_stored_config_imports_nothing_that_nobody_allowed(
    group: str, target: str, allow: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        refuse_foreign_targets({**OWN, group: {"_target_": target}}, allow)


@pytest.mark.parametrize(
    ("content", "allow"), [(OWN, []), ({**OWN, "model": {"_target_": "mine.build"}}, ["mine"])], ids=["own", "allowed"]
)
def test_besoms_own_and_allowed_targets_are_trusted(content: dict[str, Any], allow: list[str]) -> None:
    refuse_foreign_targets(content, allow)


@pytest.mark.parametrize(
    ("one", "other", "epoch"),
    [
        ({"a": [1.0, 2.0]}, {"a": [1.0, 2.0]}, None),
        ({"a": [1.0, 2.0]}, {"a": [1.0, 3.0]}, 1),
        ({"a": [1.0], "b": [5.0]}, {"a": [1.0], "b": [6.0]}, 0),
        ({"a": [1.0, 2.0]}, {"a": [1.0]}, 1),
        ({"a": [1.0]}, {"a": [1.0], "b": [1.0]}, 0),
        ({}, {}, None),
    ],
)
def test_the_first_epoch_that_differs(
    one: dict[str, list[float]], other: dict[str, list[float]], epoch: int | None
) -> None:
    assert first_difference(one, other) == first_difference(other, one) == epoch


@pytest.mark.parametrize(
    ("first", "second", "n_val", "noise"), [(0.95, 0.95, 500, True), (0.95, 0.94, 500, True), (0.95, 0.90, 500, False)]
)
def test_noise_is_two_standard_errors_of_a_difference(first: float, second: float, n_val: int, noise: bool) -> None:
    assert within_noise({"val_accuracy": [0.1, first]}, {"val_accuracy": [second]}, n_val) is noise


def test_readers_look_where_a_sweep_was_told_to_record(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    elsewhere = f"sqlite:///{tmp_path}/other.db"
    assert uri_of(store, "s", {}) == store.mlflow_uri
    keep_uri(store, "s", elsewhere)
    assert uri_of(store, "s", {"MLFLOW_TRACKING_URI": "http://server"}) == elsewhere
    assert uri_of(store, "t", {"MLFLOW_TRACKING_URI": "http://server"}) == "http://server"
    keep_uri(store, "s", None)
    assert uri_of(store, "s", {}) == store.mlflow_uri


@pytest.mark.parametrize("folder", ["a%20b", "what?"])
def test_a_store_in_a_folder_that_a_database_url_misreads_is_refused(tmp_path: Path, folder: str) -> None:
    with pytest.raises(ConfigError, match="which a database's URL reads otherwise"):
        Store.at(tmp_path / folder)
