"""`make prove` at a size for every day: different networks in the same lanes, then each again in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT


def prove(folder: Path, env: dict[str, str], *arguments: str) -> Any:
    out = folder / "prove.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "prove.py"), "--out", str(out), "--page", f"{folder}/p.md"]
    done = subprocess.run([*command, *arguments], env=env, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return json.loads(out.read_text())


@pytest.mark.service  # for the time that it takes
@pytest.mark.parametrize(("threads", "trials"), [(1, 6), (2, 4)])
def test_other_trials_in_a_warm_lane_leave_no_trace_in_the_bits(
    threads: int, trials: int, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    size = ("--trials", str(trials), "--threads", str(threads), "--epochs", "1", "--images", "300")
    [sweep] = prove(tmp_path, clean_environment, *size)["sweeps"]
    rows = sweep["rows"]
    assert [row["verdict"] for row in rows] == ["bit-identical"] * trials
    assert {row["state"] for row in rows} == {"COMPLETE"}
    assert len({row["model.activation"] for row in rows}) == trials
    assert len({row["train.optimizer"] for row in rows}) == trials
    assert f"lanes of {threads}: {trials} bit-identical" in (tmp_path / "p.md").read_text()
