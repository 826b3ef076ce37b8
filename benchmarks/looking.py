"""How long one waits to see a sweep of many trials: `besom runs`, `besom report`, `besom ui`.

A real sweep of so many tiny trainings is made first. Each wait is a process of its own, from Enter to its end, or to
the line that says where the UI is; of the UI also the memory of its processes, what they share counted once.

    python benchmarks/looking.py                  300 trials, ten minutes
    python benchmarks/looking.py --trials 20
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from besom_sweeps import BESOM
from machine import about_machine
from summary import spread

from besom.paths import write_atomically

HERE = Path(__file__).resolve().parent
NAME = "many"
SWEEP = ["tpe", "data=mnist_5k", "data.n_train=100", "data.n_val=100", "train.epochs=2", "hydra/sweeper/pruner=none"]
MEGABYTE = 2**20


def main() -> None:
    """Make the sweep, look at it so often, print how long that took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "looking.json", help="default: %(default)s")
    given = parser.parse_args()
    found: dict[str, list[float]] = {"runs": [], "report": [], "ui": [], "ui_megabytes": []}
    with tempfile.TemporaryDirectory(prefix="besom-looking-") as folder:
        ended("sweep", *SWEEP, f"--trials={given.trials}", "--seed=0", f"--name={NAME}", f"paths.store={folder}")
        page = Path(folder, "reports", f"{NAME}.html")
        for _ in range(given.repeats + 1):
            found["runs"].append(ended("runs", NAME, "--store", folder))
            found["report"].append(ended("report", NAME, "--store", folder))
            seconds, memory = until_served(folder)
            found["ui"].append(seconds)
            found["ui_megabytes"].append(memory)
        size = page.stat().st_size
    kept = {name: values[1:] for name, values in found.items()}  # the first found nothing in memory
    report: dict[str, Any] = {**about_machine(), "trials": given.trials, "report_bytes": size, **kept}
    write_atomically(given.out, json.dumps(report, indent=1) + "\n")
    print(f"{given.trials} trials; the report has {size / 1e6:.1f} MB")
    for name, values in kept.items():
        print(f"{name:<14} {spread(values, 2)}")


def ended(*arguments: str) -> float:
    """Return the seconds that a command takes; exit where it fails."""
    start = time.perf_counter()
    done = subprocess.run([BESOM, *arguments], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"looking: besom {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return seconds


def until_served(folder: str) -> tuple[float, float]:
    """Return the seconds until `besom ui` says where it is, and the megabytes of all its processes then."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = time.perf_counter()
    command = [BESOM, "ui", NAME, "--store", folder, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if "http" not in process.stdout.readline():
            sys.exit("looking: besom ui did not serve")
        seconds = time.perf_counter() - start
        own = psutil.Process(process.pid)
        memory = sum(one.memory_full_info().pss for one in [own, *own.children(recursive=True)])
        process.send_signal(signal.SIGINT)
    return seconds, memory / MEGABYTE


if __name__ == "__main__":
    main()
