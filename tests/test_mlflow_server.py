"""Sweeps into a real MLflow server, and its runs reproduced from a folder that has nothing but its address."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import BesomCommand, Folder
from servers import mlflow_server

from besom.datasets.pinned import mnist_5k

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, clean_environment: dict[str, str]) -> Iterator[tuple[str, Path]]:
    """Return the address of ``mlflow server``, and the folder that it keeps artifacts in."""
    folder = tmp_path_factory.mktemp("server")
    with mlflow_server(folder, clean_environment) as address:
        yield address, folder


@pytest.fixture(scope="module")
def run_id(server: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory, besom_command: BesomCommand) -> str:
    """The id of a run that somebody trained elsewhere."""
    address, _ = server
    folder, arrays = Folder(tmp_path_factory.mktemp("elsewhere"), besom_command), mnist_5k()
    np.savez(folder.path / "mine.npz", x=arrays.x[::10], y=arrays.y[::10])
    arguments = ("data=npz", "data.path=mine.npz", "train.epochs=1", f"tracking.uri={address}")
    said = folder.besom("train", *arguments).stdout
    return said.rpartition("run ")[2].split()[0]


def here(tmp_path: Path, besom_command: BesomCommand) -> Folder:
    """Return a folder with the images, which the server does not have."""
    arrays = mnist_5k()
    np.savez(tmp_path / "mine.npz", x=arrays.x[::10], y=arrays.y[::10])
    return Folder(tmp_path, besom_command)


def test_a_run_of_a_server_is_reproduced_into_it(
    server: tuple[str, Path], run_id: str, tmp_path: Path, besom_command: BesomCommand
) -> None:
    folder, env = here(tmp_path, besom_command), {"MLFLOW_TRACKING_URI": server[0]}
    said = folder.besom("reproduce", run_id, env=env).stdout
    assert said.startswith("bit-identical: ")
    assert not (tmp_path / "mlruns").exists()
    folder.besom("reproduce", run_id, "--from-model", env=env)


@pytest.mark.parametrize("path", ["/etc/passwd", "../mine.npz"])
def test_a_servers_config_reads_no_file_outside_unless_the_user_names_it(
    path: str, server: tuple[str, Path], run_id: str, tmp_path: Path, besom_command: BesomCommand
) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    here(tmp_path, besom_command)
    folder, env = Folder(inside, besom_command), {"MLFLOW_TRACKING_URI": server[0]}
    [file] = (server[1] / "artifacts").glob(f"*/{run_id}/artifacts/config.yaml")
    before = file.read_text()
    try:
        file.write_text(before.replace("path: mine.npz", f"path: {path}"))
        refused = folder.besom("reproduce", run_id, env=env, code=2)
        assert "which comes from elsewhere, lies outside" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
        folder.besom("reproduce", run_id, "--data-path", "../mine.npz", env=env)
    finally:
        file.write_text(before)


def test_a_sweep_into_a_server_has_its_champion_in_the_servers_registry(
    server: tuple[str, Path], tmp_path: Path, besom_command: BesomCommand
) -> None:
    from mlflow import MlflowClient

    folder = Folder(tmp_path, besom_command)
    folder.besom("sweep", "quick", "--trials", "2", "train.epochs=1", "data.n_train=200", f"tracking.uri={server[0]}")
    best = folder.json("best", "quick")
    champion = MlflowClient(server[0]).get_model_version_by_alias("quick", "champion")
    assert (champion.run_id, champion.tags["trial"]) == (best["run_id"], str(best["number"]))
    said = folder.besom("reproduce", "quick").stdout
    assert said.startswith("bit-identical: ")
    assert best["run_id"] in said
