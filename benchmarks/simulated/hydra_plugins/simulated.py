"""``hydra/launcher=simulated``: lanes that train nothing, for benchmarks/scale.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

CONFIG = {
    "_target_": "hydra_plugins.simulated.SimulatedLauncher",
    "n_lanes": 64,
    "seconds": 0.1,
    "threads_per_lane": 1,
    "log_folder": None,
}
"""``hydra.launcher``: so many lanes, whose trials take ``seconds`` each; besom's own app adds the rest."""


class SimulatedLauncher(Launcher):
    """A launcher with an engine, as besom's own are."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.context = config, hydra_context

    @staticmethod
    def check(settings: DictConfig) -> None:
        """Accept every setting."""

    def engine(self, n_objectives: int = 1) -> Any:
        """Return the lanes."""
        from lanes import engine  # noqa: PLC0415  # Hydra looks at this file at the start of each app

        is_tracked = self.config.hydra.sweeper.tracker is not None
        return engine(self.settings["n_lanes"], self.settings["seconds"], self.context, is_tracked)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Refuse: these lanes are besom's sweeper's only."""
        raise NotImplementedError


ConfigStore.instance().store(group="hydra/launcher", name="simulated", node=CONFIG, provider="benchmarks")
