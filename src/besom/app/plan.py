"""A sweep before it starts: composed from what was asked for, everything in it checked, nothing created."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from besom.app.composed import Composed, is_chosen, staged
from besom.configs.compose import config_loader, values_of_users
from besom.configs.config import plain
from besom.configs.overrides import is_sweep
from besom.configs.project import Stage
from besom.configs.schema import TrialConfig
from besom.errors import ConfigError, SpaceError
from besom.paths import Store, checked_new_name, checked_sweep_name
from besom.search.grammar import override_text
from besom.storage import database_file
from besom.sweep import settings as sweep_settings
from besom.sweep.engines import refuse_what_no_engine_can
from besom.sweep.settings import SweepSettings
from besom.uris import check_no_password
from besom.whereabouts import storage_of

OWN_LAUNCHERS = ("besom_lanes", "besom_ray")
"""Of besom; the first runs a sweep where nobody chose another."""
PRELOAD = ("besom.trial.preload",)
"""What is imported for all lanes while the parent is still busy: seconds of CPU that each lane would need else."""
START_METHOD = "forkserver" if sys.platform == "linux" else "spawn"
"""Elsewhere the libraries below TensorFlow do not stand being forked."""


@dataclass(frozen=True)
class SweepRequest:
    """What `besom sweep` was asked for.

    Args:
        sweep: a sweep's name, or the path of a YAML file.
        overrides: the user's, shorthands included.
        name: the name to run it under; the file's stem when None.
        fresh: delete what there is under that name first.
    """

    sweep: str
    overrides: Sequence[str] = field(default_factory=list)
    name: str | None = None
    fresh: bool = False


@dataclass(frozen=True)
class PlannedSweep:
    """A sweep whose settings are known to be good, before anything is created."""

    stage: Stage
    made: Composed
    settings: SweepSettings
    comparable: dict[str, Any]
    trial: TrialConfig

    @property
    def name(self) -> str:
        return self.settings.study_name

    @property
    def launcher(self) -> str:
        """The option of ``hydra/launcher`` that runs its trials."""
        return str(self.made.config.hydra.runtime.choices["hydra/launcher"])


@contextmanager
def planned(request: SweepRequest) -> Iterator[PlannedSweep]:
    """Compose and check a sweep; creates nothing outside a temporary folder."""
    with staged() as (stage, base):
        stem = stage.take_sweep(request.sweep)
        is_chosen_by_file = stage.chooses_launcher(stem)
        lanes = [] if is_chosen_by_file else _lanes_if_set_up(request.overrides)
        completion = _Completion(stem, request, is_chosen_by_file)
        made = Composed.of(stage, base, [f"sweeps={stem}", *lanes, *request.overrides], completion)
        with values_of_users(made.overrides):
            plan = _checked(stage, made)
        yield plan


def _checked(stage: Stage, made: Composed) -> PlannedSweep:
    """Check everything in what was composed, the cheapest first."""
    sweeper = made.config.hydra.sweeper
    _refuse_swept_threads(sweeper.params, made.task_overrides)
    loader = config_loader(stage.folder)
    settings = sweep_settings.read(sweeper, made.task_overrides, loader=loader, master=made.config)
    _refuse_other_places(made, settings)
    _refuse_several_objectives(settings)
    refuse_what_no_engine_can(settings, made.config)
    comparable = sweep_settings.comparable(made.config, sweeper, made.task_overrides)
    trial = made.check()
    sweep_settings.check_search(settings)
    sweep_settings.check_constraints(settings.constraints, _measures(made.config))
    return PlannedSweep(stage, made, settings, comparable, trial)


def _lanes_if_set_up(overrides: Sequence[str]) -> list[str]:
    """Choose besom's lanes where the command line only sets their fields, which Hydra's default does not have."""
    sets_fields = any(override.lstrip("+").startswith("hydra.launcher.") for override in overrides)
    return ["hydra/launcher=besom_lanes"] if sets_fields and not is_chosen("hydra/launcher", overrides) else []


def _measures(config: DictConfig) -> Mapping[str, float] | None:
    """Return the numbers of the base config, None for a model that is not measured."""
    from besom.trial.measure import measure

    return measure(plain(config)) or None


def _refuse_several_objectives(settings: SweepSettings) -> None:
    if len(settings.search.directions) > 1:
        raise ConfigError(
            f"hydra.sweeper.direction has {len(settings.search.directions)} entries, but a training has one "
            "train.objective; expected maximize or minimize"
        )


def _refuse_other_places(made: Composed, settings: SweepSettings) -> None:
    """Keep a sweep in its store: who reads, locks and deletes it looks nowhere else."""
    check_no_password(settings.storage, "hydra.sweeper.storage")
    folder = str(made.store.sweep(settings.study_name))
    is_server = database_file(settings.storage) is None
    studies = settings.storage if is_server else made.store.studies_uri
    expected = {"hydra.sweeper.storage": studies, "hydra.sweep.dir": folder}
    given = {"hydra.sweeper.storage": settings.storage, "hydra.sweep.dir": str(made.config.hydra.sweep.dir)}
    written: Any = OmegaConf.to_container(made.config.hydra.sweep, resolve=False)
    subdir = str(written["subdir"])
    if subdir.startswith(("/", "~")) or ".." in Path(subdir).parts or not subdir.strip("./"):
        raise ConfigError(f"hydra.sweep.subdir={subdir!r} leaves the sweep's folder; expected ${{hydra.job.num}}")
    for key, value in given.items():
        if value != expected[key]:
            raise ConfigError(
                f"{key}={value!r} leaves the store; expected {expected[key]!r}: move all with paths.store"
            )


def _refuse_swept_threads(params: Any, arguments: Sequence[str]) -> None:
    if "train.threads" in {*sweep_settings.checked_params(params), *_swept(arguments)}:
        raise SpaceError("train.threads cannot be swept: it is fixed before TensorFlow starts; run one sweep for each")


def _swept(arguments: Sequence[str]) -> list[str]:
    return [text.split("=")[0] for text in arguments if is_sweep(text)]


@dataclass(frozen=True)
class _Completion:
    """The name of a sweep, besom's lanes where no file or flag chose a launcher, and what they need."""

    stem: str
    request: SweepRequest
    file_chooses_launcher: bool

    def __call__(self, config: DictConfig, store: Store) -> list[str]:
        name = checked_sweep_name(self.request.name or config.hydra.sweeper.study_name or self.stem)
        if not store.sweep(name).is_dir():
            checked_new_name(name, [folder.name for folder in store.root.glob("jobs/*")])
        named = [f"hydra.sweeper.study_name={name}", *self._storage(config, store, name)]
        launcher = self._launcher(config)
        lanes = self._lanes(config, launcher, store.sweep(name)) if launcher in OWN_LAUNCHERS else []
        # written out, so that a resume takes the file's choice of now, as it takes a flag's
        chosen = [] if is_chosen("hydra/launcher", self.request.overrides) else [f"hydra/launcher={launcher}"]
        return [*named, *self._sweeper(config), *chosen, *lanes]

    @staticmethod
    def _storage(config: DictConfig, store: Store, name: str) -> list[str]:
        """Name the storage that the sweep was started with, or ``BESOM_STORAGE``, where no file or flag does."""
        if str(config.hydra.sweeper.storage) != f"sqlite:///{config.paths.store}/studies.db":
            return []
        url = storage_of(store, name)
        return [] if url == store.studies_uri else [f"hydra.sweeper.storage={override_text(url)}"]

    @staticmethod
    def _sweeper(config: DictConfig) -> list[str]:
        """Put besom's store and tracker back where a sweep file chose the bare sweeper."""
        return ["hydra/sweeper=besom_app"] if config.hydra.runtime.choices["hydra/sweeper"] == "besom" else []

    def _launcher(self, config: DictConfig) -> str:
        chosen = str(config.hydra.runtime.choices["hydra/launcher"])
        is_asked = self.file_chooses_launcher or is_chosen("hydra/launcher", self.request.overrides)
        return OWN_LAUNCHERS[0] if chosen == "basic" and not is_asked else chosen

    @staticmethod
    def _lanes(config: DictConfig, launcher: str, sweep_folder: Path) -> list[str]:
        n_jobs = config.hydra.sweeper.n_jobs
        return [
            f"hydra.launcher.preload=[{','.join(PRELOAD)}]",
            *([f"hydra.launcher.start_method={START_METHOD}"] if launcher == "besom_lanes" else []),
            f"hydra.launcher.threads_per_lane={config.train.threads}",
            f"hydra.launcher.log_folder={override_text(str(sweep_folder / 'lanes'))}",
            *([f"hydra.launcher.n_lanes={n_jobs}"] if n_jobs else []),
        ]
