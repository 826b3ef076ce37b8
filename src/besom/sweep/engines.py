"""Which engine runs a sweep's trials: the launcher's own where it has one, else batches of the launcher's jobs.

Knows the two ways and nothing of what runs inside them.
"""

from __future__ import annotations

from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from besom.engines.batches import BatchEngine, SweptTask, capacity_of
from besom.engines.engine import Engine
from besom.errors import ConfigError
from besom.storage import database_file
from besom.sweep.settings import SweepSettings
from besom.targets import imported
from besom.withheld import without_password


def refuse_what_no_engine_can(settings: SweepSettings, master: DictConfig) -> None:
    """Raise `ConfigError` where the chosen launcher cannot do what the settings ask for."""
    launcher = imported("hydra.launcher._target_", str(master.hydra.launcher._target_))
    check = getattr(launcher, "check", None)
    if check is not None and hasattr(launcher, "engine"):  # besom's own; another's `check` may be anything
        check(master.hydra.launcher)
    if settings.trial_timeout is not None and not hasattr(launcher, "engine"):
        raise ConfigError(
            f"hydra.sweeper.trial_timeout={settings.trial_timeout:g} needs a launcher that can stop one trial, and "
            f"hydra/launcher={master.hydra.runtime.choices.get('hydra/launcher')} runs only batches; expected "
            "hydra/launcher=besom_lanes or besom_ray, or no trial_timeout"
        )
    if settings.pruner and database_file(settings.storage) is not None and _is_slurm(master):
        raise ConfigError(
            "hydra/sweeper/pruner needs what trials report, and Slurm's nodes cannot write that into a file of SQLite: "
            f"{without_password(settings.storage)}; expected a study in a server (BESOM_STORAGE=postgresql+psycopg://…),"
            " or hydra/sweeper/pruner=none"
        )


def _is_slurm(master: DictConfig) -> bool:
    return str(master.hydra.launcher._target_).endswith(".SlurmLauncher")


def start_engine(
    settings: SweepSettings, master: DictConfig, context: HydraContext, task: TaskFunction, study: str
) -> Engine:
    """Return what runs the trials, started."""
    n_objectives = len(settings.search.directions)
    launcher = Plugins.instance().instantiate_launcher(config=master, hydra_context=context, task_function=task)
    if hasattr(launcher, "engine"):
        engine: Engine = launcher.engine(n_objectives)
        return engine
    swept = SweptTask(task, settings.storage, settings.study_name, settings.pruner, n_objectives, study)
    capacity = capacity_of(master.hydra.launcher, settings.n_jobs)
    return BatchEngine(launcher, swept, context, master, capacity)
