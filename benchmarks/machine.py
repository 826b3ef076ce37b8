"""What a benchmark's numbers depend on: the machine, the day, and which besom."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from besom.cores import usable_cores

ROOT = Path(__file__).resolve().parent.parent


def about_machine() -> dict[str, Any]:
    """Return ``date``, ``machine`` and ``besom``, as each report begins."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": cpu_model(),
            "cores": usable_cores(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "system": platform.platform(),
            "load_at_start": os.getloadavg()[0],
        },
        "besom": {
            "version": version("besom"),
            "commit": git("rev-parse", "HEAD"),
            "changed": bool(git("status", "--porcelain", "--", "src", "conf")) if git("rev-parse", "HEAD") else None,
        },
    }


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add ``--data``, the whole MNIST."""
    parser.add_argument(
        "--data",
        default=os.environ.get("BESOM_MNIST_NPZ"),
        help="mnist.npz (default: BESOM_MNIST_NPZ, else Keras' own)",
    )


def cpu_model() -> str:
    """Return the name of the CPU, as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def git(*arguments: str) -> str | None:
    """Return what git says about this checkout, None where it cannot."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip() or None
