"""The thin adapter between Hydra and lanes on a Ray cluster. Knows nothing of Optuna and of what the task is."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.types import HydraContext, TaskFunction

from besom.database_server import GIVEN
from besom.engines.launcher import PoolLauncher, checked_number_of_lanes, hydra_runner
from besom.engines.ray_cluster import Share, check_ray
from besom.engines.ray_lane import RaySetup
from besom.engines.ray_lanes import RayPool, RayPoolSetup
from besom.errors import ConfigError
from besom.seeding import GPUS, ON_GPUS

SHOWN = ("TF_", "OMP_", "KERAS_", "ONEDNN_", "DNNL_", "XLA_", "PYTHONHASHSEED", "CUDA_VISIBLE_DEVICES", "NVIDIA_TF32")
"""How the variables begin that decide what a training computes: a lane's process starts with them as they are here."""
OF_OTHERS = ("TF_VAR_", "TF_TOKEN_")
"""Terraform's, which may be secrets."""
CARRIED = ("BESOM_", "MLFLOW_")
"""How those begin that a lane takes over besides, passwords included; Ray shows them to nobody."""


class RayLauncher(PoolLauncher):
    """An `besom.engines.engine.Engine` of Ray actors that run Hydra jobs.

    Args:
        settings: the fields of ``hydra.launcher`` (`besom.hydra_conf.BesomRayConf`).
        n_objectives: how many numbers a task returns.
        folder: of the sweep; every node has to see it.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        context: HydraContext,
        task_function: TaskFunction,
        n_objectives: int = 1,
        folder: Path | None = None,
    ) -> None:
        check_ray_lanes(settings)
        share = share_of(settings)
        lane = RaySetup(
            runner=hydra_runner(context, task_function, n_objectives),
            preload=tuple(settings["preload"]),
            environment=_without(_variables(tuple(settings["env_vars"]), CARRIED), GIVEN),  # the parent alone uses it
        )
        log_folder = settings["log_folder"]
        setup = RayPoolSetup(
            lane=lane,
            address=settings["address"],
            n_lanes=checked_number_of_lanes(settings["n_lanes"]),
            share=share,
            env_vars=env_vars(share),
            log_folder=Path(log_folder) if log_folder else None,
            jobs_per_lane=settings["trials_per_lane"],
            shared=folder if folder is not None and folder.is_dir() else None,
        )
        super().__init__(RayPool(setup), context)


def env_vars(share: Share) -> dict[str, str]:
    """Return the variables that a lane's process starts with; on GPUs Ray itself says which ones it sees."""
    found = _without(_variables((), SHOWN), *OF_OTHERS)
    if not share.gpus:
        return found
    found.pop("CUDA_VISIBLE_DEVICES", None)
    return {**found, **ON_GPUS, GPUS: f"{share.gpus:g}"}


def _variables(names: Sequence[str], prefixes: Sequence[str]) -> dict[str, str]:
    """Return the variables of this process by their names, or by how they begin."""
    return {key: value for key, value in os.environ.items() if key in names or key.startswith(tuple(prefixes))}


def _without(found: Mapping[str, str], *prefixes: str) -> dict[str, str]:
    return {name: value for name, value in found.items() if not name.startswith(prefixes)}


def check_ray_lanes(settings: Mapping[str, Any]) -> None:
    """Raise `ConfigError` where a field of ``hydra.launcher`` is wrong, or Ray is not there; nothing is created."""
    checked_number_of_lanes(settings["n_lanes"])
    share_of(settings)
    check_ray(settings["address"])


def share_of(settings: Mapping[str, Any]) -> Share:
    """Return what a lane needs of the cluster."""
    cpus, gpus, memory = settings["cpus_per_lane"], settings["gpus_per_lane"], settings["memory_per_lane"]
    if cpus is None:
        cpus = settings["threads_per_lane"]
    if not cpus > 0:
        raise ConfigError(f"hydra.launcher.cpus_per_lane={cpus} is too small; expected more than 0, or null")
    if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
        raise ConfigError(
            f"hydra.launcher.gpus_per_lane={gpus} is not usable; expected 0, a part of one such as 0.5, or a whole "
            "number"
        )
    if memory is not None and memory < 1:
        raise ConfigError(f"hydra.launcher.memory_per_lane={memory} is too small; expected bytes from 1, or null")
    return Share(float(cpus), float(gpus), memory or 0)
