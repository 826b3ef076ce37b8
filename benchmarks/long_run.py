"""A long sweep in one go: what it takes at its start and at its end, in memory, open files, disk and patience.

Two sweeps, each started once and run to its end on two lanes: 2,000 trials of a formula, by besom's sweeper in an app
of its own, and 300 trainings by `besom sweep`, tracked in a store. From outside, the memory and the open files of the
parent and its lanes are noted all along; inside the parent, clocks say how long asking and telling take.

    python benchmarks/long_run.py                         both; half an hour; a table in docs/reliability.md
    python benchmarks/long_run.py --cheap 100 --real 10 --out found.json --page found.md

Ends with exit code 1 where a trial is missing or not complete.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
from clocks import read
from machine import about_machine
from page import replaced

from besom.paths import write_atomically

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "reliability.md"
NAME = "long-run"
MEGABYTE = 2**20
TICK_SECONDS = 0.5
WINDOW = 100
"""Trials at either end that a median is taken of; a tenth of all where there are fewer than ten times as many."""

APP = """
import sys
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore

import besom

ConfigStore.instance().store(name="config", node={"x": 0.0, "y": 0.0, "z": "a"})


@hydra.main(version_base="1.3", config_path=None, config_name="config")
def main(config):
    value = (config.x - 1) ** 2 + (config.y + 2) ** 2 + (config.z == "a")
    for step in range(3):
        besom.report(step, value + 1 / (step + 1))
    return value


if __name__ == "__main__":
    from clocks import install

    install(Path("clocks.txt"))
    main()
"""
CHEAP = [
    *("-m", "x=interval(-5.0,5.0)", "y=interval(-5.0,5.0)", "z=choice(a,b,c)"),
    *("hydra/sweeper=besom", "hydra/launcher=besom_lanes", "hydra.launcher.n_lanes=2"),
    *("hydra.sweeper.sampler.seed=1", "hydra.sweeper.study_name=cheap", "hydra.sweep.dir=sweep"),
    "hydra.sweeper.storage=sqlite:///sweep/studies.db",
]
REAL = """
# @package _global_
# What does a long sweep cost?
defaults:
  - override /data: mnist_5k
data: {{n_train: 1000}}
train: {{epochs: 2}}
hydra:
  mode: MULTIRUN
  sweeper:
    direction: maximize
    n_trials: {trials}
    sampler: {{seed: 1}}
    params:
      model.conv.0.filters: range(2, 9)
      model.conv.1.filters: range(2, 9)
      model.conv.0.kernel_size: choice(3, 5)
      model.activation: choice(swish, relu, tanh)
      train.learning_rate: tag(log, interval(0.0003, 0.003))
"""


def main() -> None:
    """Run both sweeps, write down what was found, judge it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cheap", type=int, default=2000, help="trials of the formula")
    parser.add_argument("--real", type=int, default=300, help="trainings")
    parser.add_argument("--out", type=Path, default=HERE / "long_run.json", help="default: %(default)s")
    parser.add_argument("--page", type=Path, default=PAGE, help="default: %(default)s")
    given = parser.parse_args()
    found: dict[str, Any] = about_machine()
    with tempfile.TemporaryDirectory(prefix="besom-long-run-") as name:
        for part, run, trials in (("cheap", cheap, given.cheap), ("real", real, given.real)):
            found[part] = run(Path(name) / part, trials)
            write_atomically(given.out, json.dumps(found, indent=1) + "\n")
    text = given.page.read_text("utf-8") if given.page.is_file() else ""
    given.page.write_text(replaced(text, NAME, section(found)), encoding="utf-8")
    print(section(found))
    sys.exit(not all(found[part]["states"] == {"COMPLETE": found[part]["trials"]} for part in ("cheap", "real")))


def cheap(folder: Path, trials: int) -> dict[str, Any]:
    """Run the sweep of a formula."""
    (folder / "sweep").mkdir(parents=True)
    (folder / "app.py").write_text(APP, encoding="utf-8")
    return watched(folder, ["app.py", *CHEAP, f"hydra.sweeper.n_trials={trials}"], trials, folder / "sweep")


def real(folder: Path, trials: int) -> dict[str, Any]:
    """Run the sweep of trainings."""
    folder.mkdir()
    (folder / "long.yaml").write_text(REAL.format(trials=trials), encoding="utf-8")
    store, command = folder / "mlruns", ("sweep", "long.yaml", "hydra.launcher.n_lanes=2")
    return watched(folder, [str(HERE / "clocks.py"), "clocks.txt", *command], trials, store)


def watched(folder: Path, command: Sequence[str], trials: int, store: Path) -> dict[str, Any]:
    """Run a sweep; return what was seen of its processes, its clocks and its folder."""
    started, seen = time.perf_counter(), []
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("BESOM", "HYDRA", "MLFLOW"))}
    environment = {**kept, "PYTHONPATH": str(HERE)}
    with (folder / "out.txt").open("w") as out:
        process = subprocess.Popen([sys.executable, *command], cwd=folder, env=environment, stdout=out, stderr=out)
        while process.poll() is None:
            time.sleep(TICK_SECONDS)
            seen += look(psutil.Process(process.pid), time.perf_counter() - started)
    seconds = time.perf_counter() - started
    if process.returncode:
        sys.stderr.write(f"{' '.join(command)} → {process.returncode}\n{(folder / 'out.txt').read_text()[-9999:]}\n")
    return {
        "trials": trials,
        "seconds": seconds,
        "exit_code": process.returncode,
        "states": states(store / "studies.db"),
        "seen": thinned(seen),
        "milliseconds": {
            what: ends([1000 * one for one in calls]) for what, calls in read(folder / "clocks.txt").items() if calls
        },
        "bytes": {name: size(store / name) for name in sorted(path.name for path in store.iterdir())},
    }


def look(parent: psutil.Process, second: float) -> list[dict[str, float]]:
    """Return what a sweep's processes take at a moment; nothing where one of them has just ended."""
    try:
        below = parent.children(recursive=True)
        return [
            {
                "second": second,
                "parent_mb": parent.memory_info().rss / MEGABYTE,
                "lanes_mb": max((one.memory_info().rss / MEGABYTE for one in below), default=0.0),
                "parent_files": parent.num_fds(),
                "lanes_files": max((one.num_fds() for one in below), default=0),
            }
        ]
    except psutil.NoSuchProcess:
        return []


def thinned(seen: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Return some two hundred of all looks, the last ones before the end left out: lanes are ending then."""
    inner = [one for one in seen if one["second"] < 0.98 * seen[-1]["second"]]
    return inner[:: max(1, len(inner) // 200)]


def ends(values: Sequence[float]) -> dict[str, float]:
    """Return the median of the first and of the last calls, and the slowest of all."""
    n = min(WINDOW, max(1, len(values) // 10))
    first, last = statistics.median(values[:n]), statistics.median(values[-n:])
    return {"first": first, "last": last, "slowest": max(values), "calls": len(values)}


def states(database: Path) -> dict[str, int]:
    """Return how many trials a study has in each state."""
    with closing(sqlite3.connect(database)) as opened:
        return dict(opened.execute("select state, count(*) from trials group by state").fetchall())


def size(path: Path) -> int:
    """Return the bytes that a file, or all files in a folder, take on the disk."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_blocks * 512 for file in files if file.is_file())


def section(found: Mapping[str, Any]) -> str:
    """Return the table of the page."""
    machine, besom = found["machine"], found["besom"]
    about = (
        f"{machine['cpu']}, {machine['cores']} cores, {found['date'][:10]}; besom {besom['version']} at "
        f"`{(besom['commit'] or 'no commit')[:10]}`. `python benchmarks/long_run.py`"
    )
    titles = ["", *(f"{found[part]['trials']:,} {WHAT[part]}" for part in WHAT)]
    columns = [column(found[part]) for part in WHAT]
    rows = [titles, ["---"] * len(titles), *([name, *(one.get(name, "-") for one in columns)] for name in columns[1])]
    return "\n".join([about, "", *(f"| {' | '.join(row)} |" for row in rows)])


WHAT = {"cheap": "trials of a formula", "real": "trainings"}


def column(part: Mapping[str, Any]) -> dict[str, str]:
    """Return one sweep's cells, by the name of their row."""
    seen = part["seen"]
    settled = seen[len(seen) // 10 :]  # a tenth in, everything is imported
    tenth = max(1, len(settled) // 10)
    cells = {
        "complete": f"{part['states'].get('COMPLETE', 0):,}",
        "wall": f"{part['seconds'] / 60:.1f} min",
        **{
            name: " → ".join(f"{statistics.median(one[key] for one in span):.0f}" for span in
                             (settled[:tenth], settled[-tenth:]))
            for name, key in LOOKS.items()
        },
    }  # fmt: skip
    for what, times in part["milliseconds"].items():
        if times["slowest"] < 1:  # an app of its own has no runs
            continue
        cells[f"{what}, ms"] = f"{times['first']:.1f} → {times['last']:.1f} (slowest {times['slowest']:.0f})"
    cells["disk a trial"] = f"{sum(part['bytes'].values()) / part['trials'] / 1024:.0f} KiB"
    return cells


LOOKS = {
    "parent, MB": "parent_mb",
    "largest lane, MB": "lanes_mb",
    "parent, open files": "parent_files",
    "lane, open files": "lanes_files",
}
"""Rows of the table, each from the first tenth after the start to the last one."""


if __name__ == "__main__":
    main()
