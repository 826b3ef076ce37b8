"""``hydra/launcher=simulated``: lanes that train nothing, for benchmarks/scale.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class SimulatedConf:
    """``hydra.launcher``: so many lanes, whose trials take ``seconds`` each; besom's own app adds the rest."""

    _target_: str = "hydra_plugins.simulated.SimulatedLauncher"
    n_lanes: int = 64
    seconds: float = 0.1
    threads_per_lane: int = 1
    log_folder: str | None = None


class SimulatedLauncher(Launcher):
    """A launcher with an engine, as besom's own are."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config

    @staticmethod
    def check(settings: DictConfig) -> None:
        """Accept every setting."""

    def engine(self, n_objectives: int = 1) -> Any:
        """Return the lanes."""
        from lanes import SimulatedEngine

        return SimulatedEngine(self.settings["n_lanes"], self.settings["seconds"])

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Refuse: these lanes are besom's sweeper's only."""
        raise NotImplementedError


ConfigStore.instance().store(group="hydra/launcher", name="simulated", node=SimulatedConf, provider="benchmarks")
