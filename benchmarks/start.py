"""How long one waits: for help, for being told of a mistake, for the first trial to run.

Each is a process of its own, from Enter to its end; the first trial runs when its log is there. Also printed: a bare
`import tensorflow` in the same environment, below which nothing that trains can start.

    python benchmarks/start.py
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from besom_sweeps import BESOM
from machine import about_machine
from summary import spread

from besom.paths import write_atomically

HERE = Path(__file__).resolve().parent
TICK_SECONDS = 0.01
GIVEN_UP_AFTER = 120.0


def main() -> None:
    """Measure everything in turn, so often, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE / "start.json", help="default: %(default)s")
    given = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in WAITS}
    for _ in range(given.repeats + 1):
        for name, wait in WAITS.items():
            found[name].append(wait())
    seconds = {name: values[1:] for name, values in found.items()}  # the first found nothing in memory
    report: dict[str, Any] = {**about_machine(), "seconds": seconds}
    write_atomically(given.out, json.dumps(report, indent=1) + "\n")
    for name, values in seconds.items():
        print(f"{name:<36} {spread(values, 2)} s")


def ended(*command: str, code: int = 0) -> float:
    """Return the seconds that a command takes; exit where it ends with another code."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode != code:
        sys.exit(f"start: {' '.join(command)} ended with {done.returncode}: {done.stderr}")
    return seconds


def first_trial() -> float:
    """Return the seconds until the first trial of a new store runs; the sweep is killed then."""
    with tempfile.TemporaryDirectory(prefix="besom-start-") as folder:
        log = Path(folder, "store", "jobs", "quick", "0", "trial.log")
        start = time.perf_counter()
        process = subprocess.Popen(
            [BESOM, "sweep", "quick", f"paths.store={folder}/store"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not log.exists() and process.poll() is None and time.perf_counter() - start < GIVEN_UP_AFTER:
            time.sleep(TICK_SECONDS)
        seconds = time.perf_counter() - start
        process.terminate()
        process.wait()
        if not log.exists():
            sys.exit("start: no trial ran")
        time.sleep(1.0)  # its lanes end when they see it gone
    return seconds


WAITS: dict[str, Callable[[], float]] = {
    "besom --help": lambda: ended(BESOM, "--help"),
    "a mistake in the config": lambda: ended(BESOM, "sweep", "quick", "model.dense=many", code=2),
    "the first trial of a new store": first_trial,
    "import tensorflow, for comparison": lambda: ended(sys.executable, "-c", "import tensorflow"),
}


if __name__ == "__main__":
    main()
