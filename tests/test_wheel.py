"""The built wheel, installed in an environment of its own without this checkout, works in an empty folder."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
Besom = Callable[..., str]


def run(*command: str | Path, cwd: Path, env: dict[str, str], timeout: float = 120) -> str:
    """Run a command that must succeed and return its standard output."""
    done = subprocess.run(command, cwd=cwd, env=env, timeout=timeout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, clean_environment: dict[str, str]) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    run(*build, "--wheel-dir", folder, ROOT, cwd=folder, env=clean_environment)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed_besom(tmp_path_factory: pytest.TempPathFactory, clean_environment: dict[str, str], wheel: Path) -> Besom:
    """Return ``run(*args, cwd)`` of the wheel's own ``besom`` command."""
    home = tmp_path_factory.mktemp("environment")
    python, site = home / "bin" / "python", Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=home, env=clean_environment)
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps"]
    run(*install, wheel, cwd=home, env=clean_environment)
    # this environment's libraries without its besom: Python reads no .pth file in a folder that a .pth file adds
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return lambda *args, cwd: run(home / "bin" / "besom", *args, cwd=cwd, env=clean_environment)


def test_the_wheel_carries_the_config_and_the_sweeps(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"besom/_project/{path.relative_to(ROOT)}" for name in ("conf", "sweeps") for path in
                (ROOT / name).rglob("*.yaml")}  # fmt: skip
    assert expected
    assert expected <= inside
    assert "hydra_plugins/besom/__init__.py" in inside
    assert "hydra_plugins/__init__.py" not in inside


def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"besom", "hydra_plugins"}


def test_help_works_in_an_empty_folder(installed_besom: Besom, tmp_path: Path) -> None:
    assert "--trials" in installed_besom("sweep", "--help", cwd=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_sweeps_are_listed_in_an_empty_folder(installed_besom: Besom, tmp_path: Path) -> None:
    shown = installed_besom("sweep", cwd=tmp_path)
    assert "quick" in shown.split()
    assert not list(tmp_path.iterdir())


def test_the_summary_is_the_seeds_network_in_an_empty_folder(installed_besom: Besom, tmp_path: Path) -> None:
    assert json.loads(installed_besom("summary", "--format", "json", cwd=tmp_path))["n_params"] == 203_068


@pytest.mark.service  # for the time that it takes
def test_a_sweep_runs_in_an_empty_folder(installed_besom: Besom, tmp_path: Path) -> None:
    installed_besom("sweep", "quick", "--trials", "2", "train.epochs=1", "data.n_train=200", cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mlruns"]
    rows = json.loads(installed_besom("runs", "quick", "--format", "json", cwd=tmp_path))["trials"]
    assert [row["state"] for row in rows] == ["COMPLETE", "COMPLETE"]
