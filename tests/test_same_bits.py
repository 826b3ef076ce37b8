"""One sweep file, whatever runs it: the same weights for every point, through the real command line."""

from __future__ import annotations

import json

import pytest
from conftest import BesomCommand, Folder

pytestmark = pytest.mark.service

GRID = """\
# @package _global_
defaults:
  - override /hydra/sweeper/sampler: grid
train: {epochs: 2}
data: {n_train: 400, n_val: 100}
hydra:
  sweeper:
    direction: maximize
    n_trials: null
    params:
      model.conv.0.filters: choice(3, 8)
      model.conv.1.kernel_size: choice(3, 5)
      model.activation: choice(relu, swish)
"""
ENGINES = {
    "ray": ("--engine", "ray"),
    "ray of 2 CPUs a lane": ("--engine", "ray", "hydra.launcher.cpus_per_lane=2"),
    "submitit": ("--engine", "submitit_local"),
    "joblib": ("--engine", "joblib"),
    "basic": ("--engine", "basic"),
}


def weights(folder: Folder, name: str) -> dict[str, str]:
    """Return the hash of the weights of every point of a sweep, all of which are COMPLETE."""
    trials = folder.json("runs", name, "--all")["trials"]
    assert {trial["state"] for trial in trials} == {"COMPLETE"}
    params = ("model.conv.0.filters", "model.conv.1.kernel_size", "model.activation")
    return {json.dumps([trial[key] for key in params]): trial["weights_sha256"] for trial in trials}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, besom_command: BesomCommand) -> Folder:
    """A folder with the grid, run on lanes."""
    made = Folder(tmp_path_factory.mktemp("same"), besom_command)
    (made.path / "grid.yaml").write_text(GRID)
    made.besom("sweep", "grid.yaml", "--name", "lanes")
    return made


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_gives_every_point_the_same_weights(folder: Folder, engine: str) -> None:
    if "ray" in engine:
        pytest.importorskip("ray", reason="Ray is not installed")
    on_lanes = weights(folder, "lanes")
    name = engine.replace(" ", "-")
    folder.besom("sweep", "grid.yaml", "--name", name, *ENGINES[engine])
    assert weights(folder, name) == on_lanes
    assert len(set(on_lanes.values())) == len(on_lanes) == 8
    folder.besom("doctor")
