"""What Hydra discovers of besom: three thin classes; imported at the start of every Hydra app.

``hydra/sweeper=besom``, ``hydra/launcher=besom_lanes`` and ``besom_ray``. Everything heavy is imported when a sweep
starts.
"""

from __future__ import annotations

import os
import sys
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from besom.hydra_conf import BesomLanesConf, BesomRayConf, BesomSweeperConf
from besom.options import OFFICIAL, PRUNERS, SAMPLERS

if TYPE_CHECKING:
    from besom.engines.launcher import PoolLauncher


class BesomSweeper(Sweeper):
    """Hydra's door to `besom.sweep.sweeper`."""

    hydra_context: HydraContext
    config: DictConfig

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def sweep(self, arguments: list[str]) -> Any:
        from besom.signals import ended_by_signals
        from besom.sweep.sweeper import sweep

        with _errors_as_exit_codes(), ended_by_signals():
            return sweep(self.settings, self.config, self.hydra_context, self.task_function, arguments)


@contextmanager
def _errors_as_exit_codes() -> Iterator[None]:
    """Show people of other apps besom's errors as one line and an exit code; besom's own command does so itself."""
    if "besom.app.hydra_main" in sys.modules:
        yield
        return
    from besom.errors import BesomError, shown

    try:
        yield
    except BesomError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        sys.stderr.write(f"besom: {shown(error)}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt as error:
        from besom.signals import exit_code_of

        sys.stderr.write("besom: interrupted; the same command goes on from here\n")
        sys.exit(exit_code_of(error))


class WarmLauncher(Launcher):
    """Hydra's door to lanes: a launcher with one more method, `engine`."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self._lanes: PoolLauncher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    @abstractmethod
    def start(self, n_objectives: int, folder: Path | None) -> PoolLauncher:
        """Return lanes, started.

        Args:
            folder: the sweep's, which every lane has to share with the parent; None where it need not.
        """

    def engine(self, n_objectives: int = 1) -> PoolLauncher:
        """Return the warm lanes, started when first asked for."""
        from besom.engines.launcher import sweep_folder

        if self._lanes is None:
            self._lanes = self.start(n_objectives, sweep_folder(self.config))
        return self._lanes

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        if self._lanes is None:  # for sweepers that read nothing out of the jobs' folders
            self._lanes = self.start(1, None)
        return self._lanes.launch(self.config, job_overrides, initial_job_idx)


class BesomLanes(WarmLauncher):
    """Hydra's door to `besom.engines.launcher`: processes of this machine."""

    @staticmethod
    def check(settings: DictConfig) -> None:
        """Raise `ConfigError` where the launcher's fields are wrong, before there is a study."""
        from besom.engines.launcher import check_lanes

        check_lanes(settings)

    def start(self, n_objectives: int, folder: Path | None) -> PoolLauncher:
        from besom.engines.launcher import LanesLauncher

        return LanesLauncher(self.settings, self.hydra_context, self.task_function, n_objectives)


class BesomRay(WarmLauncher):
    """Hydra's door to `besom.engines.ray_launcher`: actors of a Ray cluster."""

    @staticmethod
    def check(settings: DictConfig) -> None:
        """Raise `ConfigError` where the launcher's fields are wrong, before there is a study."""
        from besom.engines.ray_launcher import check_ray_lanes

        check_ray_lanes(settings)

    def start(self, n_objectives: int, folder: Path | None) -> PoolLauncher:
        from besom.engines.ray_launcher import RayLauncher

        return RayLauncher(self.settings, self.hydra_context, self.task_function, n_objectives, folder)


def register() -> None:
    """Put the config groups into Hydra's config store, once: in a worker Hydra fills the store before it gets here."""
    nodes: dict[tuple[str, str], Any] = {
        ("hydra/sweeper", "besom"): BesomSweeperConf,
        ("hydra/launcher", "besom_lanes"): BesomLanesConf,
        ("hydra/launcher", "besom_ray"): BesomRayConf,
    }
    both = find_spec("hydra_plugins.hydra_optuna_sweeper") is not None
    # two of one name are an error in Hydra 1.5; besom takes the official ones too
    samplers = {name: node for name, node in SAMPLERS.items() if not (both and name in OFFICIAL)}
    nodes |= {("hydra/sweeper/sampler", name): node for name, node in samplers.items()}
    nodes |= {("hydra/sweeper/pruner", name): node for name, node in PRUNERS.items()}
    store = ConfigStore.instance()
    for (group, name), node in nodes.items():
        if not _is_stored(store.repo, group, name):
            store.store(group=group, name=name, node=node, provider="besom")


def _is_stored(repo: Any, group: str, name: str) -> bool:
    for part in group.split("/"):
        repo = repo.get(part, {})
    return f"{name}.yaml" in repo


register()
