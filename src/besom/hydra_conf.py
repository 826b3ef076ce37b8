"""The configs of ``hydra/sweeper=besom`` and besom's launchers: the fields that others' scripts rely on.

Light on purpose: Hydra imports it at the start of every app. It is not inside `hydra_plugins`, because
Hydra's scanner runs modules before they are known to Python, which dataclasses cannot stand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class BesomSweeperConf:
    """``hydra.sweeper``: every setting of a sweep, by the official Optuna sweeper's names where it has them.

    ``direction`` is one word or a list of them, one for each objective. ``n_trials`` is the total,
    resumed sweeps included; null takes every point of a finite space. ``n_jobs`` is how many trials run at
    once: null is one for each lane, and under other launchers what they take. ``study_name`` null is the
    app's name, ``storage`` null a SQLite file in the sweep's folder.

    What ends a sweep or a trial: ``max_failure_rate`` (of the trials so far; ``fail_fast`` is stricter: the
    first failure), ``timeout`` and ``trial_timeout`` in seconds, ``target_value`` of the objective, ``patience``
    in trials without a better one. ``retries`` is how often a point whose worker died is tried again.

    ``history`` bounds how many ended trials the sampler sees. ``custom_search_space`` names a function
    (config, trial) that suggests more parameters. ``tracker`` records runs (`besom.tracker`); ``measure``
    names a function config → numbers that ``constraints`` are about, before a trial is trained. ``freeze``
    composes trials from a copy of the config files that is made at the first start.
    """

    _target_: str = "hydra_plugins.besom.BesomSweeper"
    _recursive_: bool = False
    defaults: list[Any] = field(default_factory=lambda: [{"sampler": "tpe"}, {"pruner": "none"}])
    sampler: Any = MISSING
    pruner: Any = MISSING
    direction: Any = "minimize"
    n_trials: int | None = 20
    n_jobs: int | None = None
    study_name: str | None = None
    storage: Any = None
    params: Any = field(default_factory=dict)
    custom_search_space: str | None = None
    enqueue: list[Any] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    history: int | None = None
    max_failure_rate: float = 0.0
    fail_fast: bool = False
    retries: int = 2
    timeout: float | None = None
    trial_timeout: float | None = None
    target_value: float | None = None
    patience: int | None = None
    freeze: bool = True
    tracker: Any = None
    measure: str | None = None


@dataclass
class BesomLanesConf:
    """``hydra.launcher`` for lanes: warm worker processes on this machine.

    ``n_lanes: auto`` is the number of usable cores divided by ``threads_per_lane``; ``trials_per_lane``
    replaces a lane after so many trials (0: never); ``preload`` names modules that a lane imports at
    its start; ``log_folder`` takes what lanes print (null: the terminal). ``start_method: forkserver`` imports
    ``preload`` once for all lanes and copies them from there: faster, and safe where importing starts no
    computation and no threads.
    """

    _target_: str = "hydra_plugins.besom.BesomLanes"
    n_lanes: Any = "auto"
    threads_per_lane: int = 1
    trials_per_lane: int = 0
    preload: list[str] = field(default_factory=list)
    start_method: str = "spawn"
    log_folder: str | None = None


@dataclass
class BesomRayConf:
    """``hydra.launcher`` for lanes on a Ray cluster: warm actors, on any of its nodes.

    ``address`` is ``HOST:PORT`` of a cluster that is there, or ``auto`` on one of its nodes; null takes
    ``RAY_ADDRESS``, and where that is not set starts a cluster of this machine, which ends with the sweep.
    ``n_lanes: auto`` is as many as the cluster has room for, also when nodes come and go. A lane gets
    ``cpus_per_lane`` (null: ``threads_per_lane``), ``gpus_per_lane`` and ``memory_per_lane`` in bytes, as Ray counts
    them. ``env_vars`` names variables that lanes take over from the sweep's parent, beside those of TensorFlow, MLflow
    and besom. The others are as those of ``besom_lanes``.
    """

    _target_: str = "hydra_plugins.besom.BesomRay"
    address: str | None = None
    n_lanes: Any = "auto"
    threads_per_lane: int = 1
    cpus_per_lane: float | None = None
    gpus_per_lane: float = 0.0
    memory_per_lane: int | None = None
    trials_per_lane: int = 0
    env_vars: list[str] = field(default_factory=list)
    preload: list[str] = field(default_factory=list)
    log_folder: str | None = None
