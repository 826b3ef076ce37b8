"""What a result depends on, part by part, and hashes of what came out: the two sides of a reproduction.

Tensors are hashed, never files, because a saved model's bytes hold times and names. Nothing heavy is
imported: versions come from the installed packages' metadata.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from besom.configs.config import tracked_leaves

PACKAGES = ("tensorflow", "keras", "numpy", "besom")
RESULT_MODULES = (
    *("configs/config", "configs/schema", "data", "model", "seeding"),
    *("datasets/archive", "datasets/arrays", "datasets/scaling", "datasets/shared", "datasets/sources"),
    *("datasets/split", "trial/epoch", "trial/folding", "trial/images", "trial/training", "trial/trial"),
)
"""Modules of besom whose text can change a result; the others only look at it."""

OWN_PART = ("train.threads", "train.steps_per_execution", "train.seed", "data.split_seed", "data.path")
"""Leaves that are not in the part ``config``: they have a part of their own, so that a difference has one name."""

INSTRUCTION_SETS = ("sse", "ssse", "avx", "fma", "f16c", "bmi", "amx", "vnni", "asimd", "sve", "neon", "bf16")
"""How the CPU flags start that decide which kernels oneDNN and Eigen take, on x86 and ARM."""


def array_sha256(*arrays: NDArray[Any]) -> str:
    """Return the SHA-256 over dtype, shape and bytes of each array, in order."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def weights_sha256(weights: Sequence[NDArray[Any]]) -> str:
    """Return the hash of a model's weights as ``model.get_weights()`` gives them."""
    return array_sha256(*weights)


def history_sha256(history: Mapping[str, Sequence[float]]) -> str:
    """Return the hash of metrics by epoch: exact bits, the order of the keys does not count."""
    digest = hashlib.sha256()
    for name in sorted(history):
        digest.update(f"{name}:{array_sha256(np.asarray(history[name], np.float64))}".encode())
    return digest.hexdigest()


def predictions_sha256(probabilities: NDArray[np.float32]) -> str:
    """Return the hash of class probabilities, shape (n, n_classes)."""
    return array_sha256(probabilities)


def environment(threads: int) -> dict[str, Any]:
    """Return what of this machine and its packages a result depends on: ``packages threads cpu onednn``.

    ``cpu`` has the ``model`` name and the sorted ``flags`` of its instruction sets; ``onednn`` is the
    value of ``TF_ENABLE_ONEDNN_OPTS``, None where it is not set.
    """
    return {
        "packages": _packages(),
        "threads": threads,
        "cpu": _cpu(),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS"),
    }


def fingerprint(config: Mapping[str, Any], dataset_digest: str, split_digest: str, threads: int) -> dict[str, Any]:
    """Return what a result depends on, JSON values only.

    Args:
        config: the plain config of the trial.
        dataset_digest: of all decoded arrays.
        split_digest: of the images that train and validate.
        threads: of TensorFlow.

    Returns:
        The parts ``code config data split packages threads steps_per_execution cpu seeds``, and
        ``commit``, which is only for people: the Git commit of the working directory, or None.
    """
    machine = environment(threads)
    return {
        "code": _code(_foreign_targets(config)),
        "config": _config_sha256(config),
        "data": dataset_digest,
        "split": split_digest,
        "packages": machine["packages"],
        "threads": threads,
        "steps_per_execution": config["train"]["steps_per_execution"],
        "cpu": {**machine["cpu"], "onednn": machine["onednn"]},
        "seeds": {"train": config["train"]["seed"], "split": config["data"].get("split_seed")},
        "commit": _commit(Path.cwd()),
    }


def _config_sha256(config: Mapping[str, Any]) -> str:
    shared = {key: value for key, value in tracked_leaves(config).items() if key not in OWN_PART}
    return hashlib.sha256(json.dumps(shared, sort_keys=True, default=str).encode()).hexdigest()


def _foreign_targets(config: Mapping[str, Any]) -> tuple[str, ...]:
    targets = (str(config[group].get("_target_", "besom.")) for group in ("data", "model"))
    return tuple(target for target in targets if not target.startswith("besom."))


@cache  # the code that runs is the code that was there when the process started
def _code(foreign_targets: tuple[str, ...]) -> str:
    """Return the hash of besom's own modules and of the file of each target that is the user's."""
    folder = Path(__file__).parent
    files = [folder / f"{name}.py" for name in RESULT_MODULES]
    files += [file for target in foreign_targets if (file := _file_of(target)) is not None]
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _file_of(target: str) -> Path | None:
    """Return the source file of ``package.module.function``, None where it has none that can be read."""
    try:
        spec = importlib.util.find_spec(target.rpartition(".")[0])
    except (ImportError, ValueError):
        return None
    file = Path(spec.origin) if spec is not None and spec.origin is not None else None
    return file if file is not None and file.is_file() else None


@cache
def _packages() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}


@cache
def _cpu() -> dict[str, Any]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0]
    except OSError:  # not Linux
        text = ""
    pairs = (line.partition(":") for line in text.splitlines())
    fields = {name.strip(): value.strip() for name, _, value in pairs}
    flags = fields.get("flags", fields.get("Features", "")).split()
    return {
        "model": fields.get("model name") or platform.processor() or platform.machine(),
        "flags": sorted(flag for flag in flags if flag.startswith(INSTRUCTION_SETS)),
    }


@cache
def _commit(folder: Path) -> str | None:
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=1, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None
