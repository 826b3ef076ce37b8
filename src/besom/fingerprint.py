"""What a result depends on, part by part, and hashes of what came out: the two sides of a reproduction.

Tensors are hashed, never files, because a saved model's bytes hold times and names. Nothing heavy is imported.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from besom.configs.config import tracked_leaves
from besom.provenance.environment import environment
from besom.provenance.sources import code_sha256, installed, sources

PARTS = ("data", "code", "config", "packages", "onednn", "threads", "steps_per_execution", "cpu", "seed", "split")
"""The parts of a fingerprint in the order in which they are looked at for the cause of a difference; last the split,
which follows from others."""

OWN_PART = ("train.threads", "train.steps_per_execution", "train.seed", "data.split_seed", "data.path")
"""Leaves that are not in the part ``config``: they have a part of their own, so that a difference has one name."""


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


def fingerprint(config: Mapping[str, Any], dataset_digest: str, split_digest: str, threads: int) -> dict[str, Any]:
    """Return what a result depends on, JSON values only.

    Args:
        config: the plain config of the trial.
        dataset_digest: of all decoded arrays.
        split_digest: of the images that train and validate.
        threads: of TensorFlow.

    Returns:
        The parts that `PARTS` names; and for people ``sources``, the hash of each file of the code, and ``commit``, the
        Git commit of the working directory, or None.
    """
    targets = foreign_targets(config)
    machine, files = environment(threads), sources(targets)
    return {
        "data": dataset_digest,
        "code": code_sha256(files),
        "config": _config_sha256(config),
        "packages": {**machine["packages"], **installed(targets)},
        "onednn": machine["onednn"],
        "threads": threads,
        "steps_per_execution": config["train"]["steps_per_execution"],
        "cpu": machine["cpu"],
        "seed": {"train": config["train"]["seed"], "split": config["data"].get("split_seed")},
        "split": split_digest,
        "sources": files,
        "commit": _commit(Path.cwd()),
    }


def _config_sha256(config: Mapping[str, Any]) -> str:
    shared = {key: value for key, value in tracked_leaves(config).items() if key not in OWN_PART}
    return hashlib.sha256(json.dumps(shared, sort_keys=True, default=str).encode()).hexdigest()


def foreign_targets(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the dotted names of a config's loader and builder that are not besom's."""
    targets = (str(config[group].get("_target_", "besom.")) for group in ("data", "model"))
    return tuple(target for target in targets if not target.startswith("besom."))


@cache
def _commit(folder: Path) -> str | None:
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=1, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None
