"""The configs of ``hydra/sweeper=besom`` and ``hydra/launcher=besom_lanes``: the fields that others' scripts rely on.

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

    ``n_trials`` is the total, resumed sweeps included; null takes every point of a finite space.
    ``n_jobs`` null runs as many trials at once as there are lanes. ``timeout`` is in seconds.
    ``tracker`` records runs (`besom.tracker`); ``measure`` names a function config → numbers for ``constraints``.
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
    storage: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    enqueue: list[Any] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    max_failure_rate: float = 0.0
    retries: int = 2
    timeout: float | None = None
    tracker: Any = None
    measure: str | None = None


@dataclass
class BesomLanesConf:
    """``hydra.launcher`` for lanes: warm worker processes on this machine.

    ``n_lanes: auto`` is the number of usable cores divided by ``threads_per_lane``; ``trials_per_lane``
    replaces a lane after so many trials (0: never); ``preload`` names modules that a lane imports at
    its start; ``log_folder`` takes what lanes print (null: the terminal).
    """

    _target_: str = "hydra_plugins.besom.BesomLanes"
    n_lanes: Any = "auto"
    threads_per_lane: int = 1
    trials_per_lane: int = 0
    preload: list[str] = field(default_factory=list)
    log_folder: str | None = None
