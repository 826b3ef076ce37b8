"""How much memory lanes take: one lane over many trials, and two lanes on the whole MNIST.

The first part trains tiny networks, one after another in one lane that is never replaced, and notes the lane's
resident memory after each trial. The second trains real ones on two lanes and notes the most that all lanes take
together, memory that they share counted once.

    python benchmarks/memory.py                              500 trials, half an hour
    python benchmarks/memory.py --data mnist.npz             and two lanes on 50,000 images
    python benchmarks/memory.py --trials 40
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from besom_sweeps import BESOM
from machine import about_machine

from besom.paths import write_atomically

HERE = Path(__file__).resolve().parent
SETTLED = 20
"""Trials after which memory is to stay as it is."""
MEGABYTE = 2**20
TICK_SECONDS = 0.2
TINY = """
# @package _global_
defaults:
  - override /data: mnist_5k
  - override /hydra/sweeper/sampler: random
data: {{n_train: 320, n_val: 100, n_test: 100}}
train: {{epochs: 1}}
hydra:
  mode: MULTIRUN
  sweeper:
    direction: maximize
    n_trials: {trials}
    sampler: {{seed: 1}}
    params:
      model.conv.0.filters: choice(2,3,4)
      model.conv.1.filters: choice(2,3,4)
      model.activation: choice(swish,relu)
      train.learning_rate: interval(0.0003,0.003)
"""


def main() -> None:
    """Measure both parts and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument(
        "--data",
        default=os.environ.get("BESOM_MNIST_NPZ"),
        help="mnist.npz, for the second part (default: BESOM_MNIST_NPZ)",
    )
    parser.add_argument("--out", type=Path, default=HERE / "memory.json", help="default: %(default)s")
    given = parser.parse_args()
    report: dict[str, Any] = about_machine()
    with tempfile.TemporaryDirectory(prefix="besom-memory-") as name:
        folder = Path(name)
        report["one_lane"] = one_lane(folder, given.trials)
        write_atomically(given.out, json.dumps(report, indent=1) + "\n")
        print(text_of_one(report["one_lane"]))
        if given.data:
            report["two_lanes"] = two_lanes(folder, str(Path(given.data).resolve()))
            write_atomically(given.out, json.dumps(report, indent=1) + "\n")
            print(f"two lanes on 50,000 images: {report['two_lanes']:.0f} MB at the most, the lanes together")


def one_lane(folder: Path, trials: int) -> list[float]:
    """Return the lane's resident megabytes when each trial had just ended."""
    sweep = folder / "tiny.yaml"
    sweep.write_text(TINY.format(trials=trials), encoding="utf-8")
    command = [
        str(sweep),
        "hydra.launcher.n_lanes=1",
        "hydra.launcher.trials_per_lane=0",
        f"paths.store={folder / 'one'}",
    ]
    jobs, found, last = folder / "one" / "jobs" / sweep.stem, [], 0.0
    for below in running(command):
        ended = len(list(jobs.glob("*/result.json"))) if jobs.is_dir() else 0
        found += [last] * (ended - len(found))  # as it was the moment before: after the last trial the lane ends
        last = max(map(resident, lanes_among(below)), default=last)
    return found


def two_lanes(folder: Path, data: str) -> float:
    """Return the most megabytes that two lanes took together, what they share counted once."""
    sweep = HERE / "contestants" / "cnn_grid.yaml"
    most = 0.0
    command = [
        str(sweep),
        f"data.path={data}",
        "train.epochs=1",
        "hydra.launcher.n_lanes=2",
        f"paths.store={folder / 'two'}",
    ]
    for below in running(command):
        most = max(most, sum(map(proportional, below)))
    return most


def running(arguments: Sequence[str]) -> Iterator[list[psutil.Process]]:
    """Run a sweep and give, again and again until it ends, the processes below it."""
    process = subprocess.Popen([BESOM, "sweep", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    parent = psutil.Process(process.pid)
    while process.poll() is None:
        yield parent.children(recursive=True)
        time.sleep(TICK_SECONDS)
    if process.returncode:
        sys.exit(f"memory: besom sweep {' '.join(arguments)} ended with {process.returncode}")


def lanes_among(below: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Return the lanes: the children of the process that they are copies of."""
    numbers = {process.pid for process in below}
    return [process for process in below if parent_of(process) in numbers]


def parent_of(process: psutil.Process) -> int | None:
    """Return the number of a process' parent, None where it has just ended."""
    try:
        return process.ppid()
    except psutil.NoSuchProcess:
        return None


def resident(process: psutil.Process) -> float:
    """Return a process' resident megabytes; 0 where it has just ended."""
    try:
        return process.memory_info().rss / MEGABYTE
    except psutil.NoSuchProcess:
        return 0.0


def proportional(process: psutil.Process) -> float:
    """Return a process' megabytes, its share only of what it shares; 0 where it has just ended."""
    try:
        return process.memory_full_info().pss / MEGABYTE
    except psutil.NoSuchProcess:
        return 0.0


def text_of_one(megabytes: Sequence[float]) -> str:
    """Return the first part as text."""
    settled, last = megabytes[min(SETTLED, len(megabytes)) - 1], megabytes[-1]
    return (
        f"one lane, {len(megabytes)} trials: {settled:.0f} MB after {SETTLED}, {last:.0f} MB at the end, "
        f"{max(megabytes):.0f} MB at the most: {100 * (max(megabytes[SETTLED:], default=last) / settled - 1):+.1f} %"
    )


if __name__ == "__main__":
    main()
