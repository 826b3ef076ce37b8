"""The doors `besom train` and `besom sweep`: compose, check everything, only then create and start.

Nothing is written before the config, the network's geometry, the data and the search space are
known to be good.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from besom import data
from besom.app.delete import delete_locked
from besom.app.store import create_store
from besom.configs.compose import compose, config_loader
from besom.configs.config import plain, typed
from besom.configs.overrides import is_hydra, is_sweep
from besom.configs.project import Project, Stage
from besom.configs.schema import DataConfig, TrialConfig
from besom.data import SHARED_FOLDER
from besom.engines.lanes import cool_down, warm_up
from besom.engines.launcher import check_lanes
from besom.errors import ConfigError, SpaceError
from besom.lock import parent_lock, refuse_if_locked
from besom.paths import Store, checked_sweep_name
from besom.search.grammar import override_text
from besom.seeding import fix_runtime
from besom.storage import find_study, settings_of
from besom.sweep import settings as sweep_settings
from besom.sweep.settings import SweepSettings
from besom.sweep.tally import Tally
from besom.tracking import fix_environment, keep_uri
from besom.uris import check_no_password

if TYPE_CHECKING:
    from optuna import Study

PRELOAD = ("besom.trial.preload",)
"""What is imported for all lanes while the parent is still busy: seconds of CPU that each lane would need else."""
START_METHOD = "forkserver" if sys.platform == "linux" else "spawn"
"""Elsewhere the libraries below TensorFlow do not stand being forked."""

COMBINATIONS = [
    "hydra/sweeper=basic",
    "hydra.sweep.dir='${paths.store}/jobs/train/${now:%Y-%m-%d_%H-%M-%S-%f}'",
]
"""What ``besom train -m`` means: Hydra's own sweeper, one job after another in this process."""


def _fixed(overrides: Sequence[str]) -> list[str]:
    return [override for override in overrides if is_hydra(override) or not is_sweep(override)]


@contextmanager
def staged() -> Iterator[tuple[Stage, Path]]:
    """Stage the project around the working directory; its root becomes importable, for a user's own code."""
    project = Project.around(Path.cwd())
    sys.path.insert(0, str(project.root))
    with project.staged() as stage:
        yield stage, project.root


Completion = Callable[[DictConfig, Store], list[str]]
"""Gives besom's own overrides for a config that was composed from the user's; the user's win."""


@dataclass(frozen=True)
class Composed:
    """A composed config with the overrides that made it, and the store it names, absolute."""

    config: DictConfig
    overrides: list[str]
    store: Store

    @classmethod
    def of(cls, stage: Stage, base: Path, overrides: Sequence[str], complete: Completion | None = None) -> Composed:
        """Compose with the overrides that do not sweep; relative store paths are taken from ``base``."""
        overrides = [text for text in overrides if text != "hydra/sweeper=besom"]  # what it is anyway
        first = compose(stage.folder, _fixed(overrides))
        store = Store.at(str(first.paths.store), base)
        own = complete(first, store) if complete else []
        every = [*own, *overrides, f"paths.store={override_text(str(store.root))}"]
        return cls(compose(stage.folder, _fixed(every)), every, store)

    @property
    def task_overrides(self) -> list[str]:
        return [override for override in self.overrides if not is_hydra(override)]

    def check(self) -> TrialConfig:
        """Check types, ranges, geometry, data and URLs; return the typed config.

        Raises:
            UserError: the first thing that is wrong.
        """
        from besom.trial.measure import sized

        content = plain(self.config)
        trial = typed(content)
        if trial.tracking.uri:
            check_no_password(trial.tracking.uri, "tracking.uri")
        sized(content)
        data.load(trial.data)
        return trial


def train(overrides: Sequence[str], *, multirun: bool) -> None:
    """Run one tracked training of the config, or with ``multirun`` one for each combination."""
    own = COMBINATIONS if multirun and not _chosen("hydra/sweeper", overrides) else []
    with staged() as (stage, base):
        made = Composed.of(stage, base, [*own, *overrides])
        trial = made.check()
        create_store(made.store)
        _fix_environment(trial.train.threads)
        from besom.app.hydra_main import run_hydra

        run_hydra(stage.folder, made.overrides, multirun=multirun)


def _chosen(group: str, overrides: Sequence[str]) -> bool:
    return any(override.startswith(f"{group}=") for override in overrides)


def _fix_environment(threads: int) -> None:
    fix_runtime(threads)
    fix_environment()


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


@contextmanager
def planned(request: SweepRequest) -> Iterator[PlannedSweep]:
    """Compose and check a sweep; creates nothing outside a temporary folder."""
    with staged() as (stage, base):
        stem = stage.take_sweep(request.sweep)
        lanes = _lanes_if_set_up(request.overrides)
        made = Composed.of(stage, base, [f"sweeps={stem}", *lanes, *request.overrides], _Completion(stem, request))
        sweeper = made.config.hydra.sweeper
        _refuse_swept_threads(sweeper.params, made.task_overrides)
        loader = config_loader(stage.folder)
        settings = sweep_settings.read(sweeper, made.task_overrides, loader=loader, master=made.config)
        _refuse_other_places(made, settings)
        _refuse_several_objectives(settings)
        check_lanes(made.config.hydra.launcher)
        comparable = sweep_settings.comparable(made.config, sweeper, made.task_overrides)
        trial = made.check()
        sweep_settings.check_search(settings)
        sweep_settings.check_constraints(settings.constraints, _measures(made.config))
        yield PlannedSweep(stage, made, settings, comparable, trial)


def _lanes_if_set_up(overrides: Sequence[str]) -> list[str]:
    """Choose besom's lanes where the command line only sets their fields, which Hydra's default does not have."""
    sets_fields = any(override.lstrip("+").startswith("hydra.launcher.") for override in overrides)
    return ["hydra/launcher=besom_lanes"] if sets_fields and not _chosen("hydra/launcher", overrides) else []


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
    expected = {"hydra.sweeper.storage": made.store.studies_uri, "hydra.sweep.dir": folder}
    given = {"hydra.sweeper.storage": settings.storage, "hydra.sweep.dir": str(made.config.hydra.sweep.dir)}
    for key, value in given.items():
        if value != expected[key]:
            raise ConfigError(
                f"{key}={value!r} leaves the store; expected {expected[key]!r}: move all with paths.store"
            )


def _refuse_swept_threads(params: Mapping[str, Any], arguments: Sequence[str]) -> None:
    if "train.threads" in {*params, *(text.split("=")[0] for text in arguments if is_sweep(text))}:
        raise SpaceError("train.threads cannot be swept: it is fixed before TensorFlow starts; run one sweep for each")


@dataclass(frozen=True)
class _Completion:
    """The name of a sweep, besom's lanes where no file or flag chose a launcher, and what they need."""

    stem: str
    request: SweepRequest

    def __call__(self, config: DictConfig, store: Store) -> list[str]:
        name = checked_sweep_name(self.request.name or config.hydra.sweeper.study_name or self.stem)
        named = f"hydra.sweeper.study_name={name}"
        return [named, *self._sweeper(config), *self._launcher(config), *self._lanes(config, store.sweep(name))]

    @staticmethod
    def _sweeper(config: DictConfig) -> list[str]:
        """Put besom's store and tracker back where a sweep file chose the bare sweeper."""
        return ["hydra/sweeper=besom_app"] if config.hydra.runtime.choices["hydra/sweeper"] == "besom" else []

    def _launcher(self, config: DictConfig) -> list[str]:
        chosen = config.hydra.runtime.choices["hydra/launcher"]
        if chosen == "basic" and not _chosen("hydra/launcher", self.request.overrides):
            return ["hydra/launcher=besom_lanes"]
        if chosen != "besom_lanes":
            raise ConfigError(f"hydra/launcher={chosen} cannot run this sweep; expected besom_lanes")
        return []

    @staticmethod
    def _lanes(config: DictConfig, sweep_folder: Path) -> list[str]:
        n_jobs = config.hydra.sweeper.n_jobs
        return [
            f"hydra.launcher.preload=[{','.join(PRELOAD)}]",
            f"hydra.launcher.start_method={START_METHOD}",
            f"hydra.launcher.threads_per_lane={config.train.threads}",
            f"hydra.launcher.log_folder={override_text(str(sweep_folder / 'lanes'))}",
            *([f"hydra.launcher.n_lanes={n_jobs}"] if n_jobs else []),
        ]


def sweep(plan: PlannedSweep, *, fresh: bool) -> None:
    """Start or resume a planned sweep and run it to its end."""
    store, name = plan.made.store, plan.name
    refuse_if_locked(store.lock(name), name)
    study = None if fresh else find_study(plan.settings.storage, name)
    stored = settings_of(study)
    if stored is not None:
        sweep_settings.refuse_changes(name, stored, plan.comparable)
    _fix_environment(plan.trial.train.threads)
    is_needed = not _is_complete(plan.settings, study)
    with _lanes_warming_up(plan, is_needed=is_needed):
        create_store(store)
        with parent_lock(store.lock(name), name):
            is_resume = stored is not None and store.snapshot(name).is_dir()
            _run(plan, fresh=fresh, is_resume=is_resume, trains=is_needed)


def _is_complete(settings: SweepSettings, study: Study | None) -> bool:
    return study is not None and settings.total is not None and Tally.of(study).counts.counted >= settings.total


@contextmanager
def _lanes_warming_up(plan: PlannedSweep, *, is_needed: bool) -> Iterator[None]:
    """Import for all lanes while the parent opens its books, which takes as long."""
    launcher = plan.made.config.hydra.launcher
    os.environ[SHARED_FOLDER] = str(plan.made.store.images(plan.name))  # lanes get the environment as it is now
    try:
        if is_needed and launcher.start_method == "forkserver":
            warm_up(launcher.preload)
        yield
    finally:
        del os.environ[SHARED_FOLDER]
        cool_down()


@contextmanager
def _shared_images(config: DataConfig | Mapping[str, Any], folder: Path) -> Iterator[None]:
    """Keep the decoded images for all lanes while the sweep runs."""
    shutil.rmtree(folder, ignore_errors=True)  # left by a kill
    try:
        data.share(config, folder)
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(plan: PlannedSweep, *, fresh: bool, is_resume: bool, trains: bool) -> None:
    """Run a sweep whose lock this process holds; ``trains`` where something is left to be trained."""
    store, name = plan.made.store, plan.name
    if fresh:
        delete_locked(store, name)
    if not is_resume:  # a snapshot without a study is of a start that died before it had one
        shutil.rmtree(store.snapshot(name), ignore_errors=True)
        plan.stage.keep_as(store.snapshot(name))
    keep_uri(store, name, plan.made.config.tracking.uri)
    from besom.app.hydra_main import run_hydra

    live = _taken_live(plan.made.config) if is_resume else []
    with _shared_images(plan.trial.data, store.images(name)) if trains else nullcontext():
        run_hydra(store.snapshot(name), [*plan.made.overrides, *live], multirun=True)


def _taken_live(config: DictConfig) -> list[str]:
    """Return overrides for what a resume takes from the files as they now are, the rest being the snapshot's."""
    sweeper, launcher = config.hydra.sweeper, config.hydra.launcher
    fields = {f"hydra.sweeper.{key}": sweeper[key] for key in sweep_settings.HOW_FAR}
    fields |= {f"hydra.launcher.{key}": value for key, value in launcher.items() if key != "_target_"}
    fields["tracking.uri"] = config.tracking.uri
    if "path" in config.data:
        fields["data.path"] = config.data.path
    return [f"{key}={override_text(_plain(value))}" for key, value in fields.items()]


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def store_of(given: Path | None) -> Store:
    """Return the store that readers read: the given one, else what the project's config says, as for writers."""
    if given:
        return Store.at(given)
    project = Project.around(Path.cwd())
    if not project.has_own_paths:
        return Store.at(os.environ.get("BESOM_STORE") or "mlruns", project.root)
    with project.staged() as stage:
        return Store.at(str(compose(stage.folder, []).paths.store), project.root)
