"""What was exported here trains to the same bits in a clean clone, in an environment of its own from the lock."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, BesomCommand, Folder

HASHES = ("weights_sha256", "history_sha256", "predictions_sha256")


def run(*command: str | Path, cwd: Path, env: dict[str, str], timeout: float = 120) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, timeout=timeout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, clean_environment: dict[str, str]) -> Path:
    """A clone of the last commit, with its own ``.venv`` as ``make`` makes it."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no Git checkout, so there is nothing to clone")
    path = tmp_path_factory.mktemp("clean") / "clone"
    owned = ("-c", f"safe.directory={ROOT / '.git'}", "-c", "protocol.file.allow=always")
    run("git", *owned, "clone", "-q", ROOT, path, cwd=path.parent, env=clean_environment)
    making = {**os.environ, "PYTHON": sys.executable}
    run("sh", path / ".ci" / "venv", "test-services", cwd=path, env=making, timeout=1100)
    return path


@pytest.mark.service
@pytest.mark.timeout(1200)
def test_an_exported_run_is_trained_to_the_same_bits_in_a_clean_clone(
    clone: Path, tmp_path: Path, besom_command: BesomCommand, clean_environment: dict[str, str]
) -> None:
    (tmp_path / "first").mkdir()
    first = Folder(tmp_path / "first", besom_command)
    first.besom("sweep", "quick", "--trials", "2", "train.epochs=2", "data.n_train=400")
    told = first.json("export", "quick", str(tmp_path / "exported"))
    command = told["command"].split()
    assert command[0] == "besom"
    python = clone / ".venv" / "bin" / "python"
    origin = run(python, "-c", "import besom; print(besom.__file__)", cwd=tmp_path, env=clean_environment)
    assert Path(origin.strip()).is_relative_to(clone)
    run(clone / ".venv" / "bin" / "besom", *command[1:], cwd=tmp_path / "exported", env=clean_environment, timeout=240)
    again = Folder(tmp_path / "exported", besom_command).mlflow(f"select key, value from tags where key in {HASHES}")
    expected = json.loads((tmp_path / "exported" / "expected.json").read_text())
    assert dict(again) == {name: expected[name] for name in HASHES}
