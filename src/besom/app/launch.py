"""The doors `besom train` and `besom sweep`: what is known to be good is created and started."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from besom import data
from besom.app.composed import Composed, is_chosen, staged
from besom.app.config_file import lay_config_file
from besom.app.delete import delete_locked
from besom.app.plan import PlannedSweep
from besom.app.store import create_store
from besom.configs.schema import DataConfig
from besom.data import SHARED_FOLDER
from besom.engines.lanes import cool_down, warm_up
from besom.errors import BesomError, SweepStopped
from besom.lock import parent_lock, refuse_if_locked
from besom.search.grammar import override_text
from besom.seeding import fix_runtime
from besom.storage import find_study, load_study, settings_of
from besom.sweep import settings as sweep_settings
from besom.sweep.settings import SweepSettings
from besom.sweep.tally import Tally
from besom.tracking import fix_environment, keep_uri, tracking_uri
from besom.uris import without_password

if TYPE_CHECKING:
    from optuna import Study

COMBINATIONS = [
    "hydra/sweeper=basic",
    "hydra.sweep.dir='${paths.store}/jobs/train/${now:%Y-%m-%d_%H-%M-%S-%f}'",
]
"""What ``besom train -m`` means: Hydra's own sweeper, one job after another in this process."""


def train(overrides: Sequence[str], *, multirun: bool, file: Path | None = None, allow: Sequence[str] = ()) -> None:
    """Run one tracked training of the config, or with ``multirun`` one for each combination.

    Args:
        file: a YAML file that takes the config's place, see `besom.app.config_file`.
        allow: packages that it may import from.
    """
    own = COMBINATIONS if multirun and not is_chosen("hydra/sweeper", overrides) else []
    with staged() as (stage, base):
        if file is not None:
            lay_config_file(stage, file, allow)
        made = Composed.of(stage, base, [*own, *overrides])
        trial = made.check()
        create_store(made.store)
        _fix_environment(trial.train.threads)
        from besom.app.hydra_main import run_hydra

        run_hydra(stage.folder, made.overrides, multirun=multirun)


def _fix_environment(threads: int) -> None:
    fix_runtime(threads)
    fix_environment()


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
    with _recorded(plan), _shared_images(plan.trial.data, store.images(name)) if trains else nullcontext():
        run_hydra(store.snapshot(name), [*plan.made.overrides, *live], multirun=True)


@contextmanager
def _recorded(plan: PlannedSweep) -> Iterator[None]:
    """Bring the sweep's own run in MLflow up to date once trials have ended, also where failures stopped them."""
    try:
        yield
    except SweepStopped:
        _record(plan)
        raise
    _record(plan)


def _record(plan: PlannedSweep) -> None:
    """Draw and log the charts; who can't is told: every trial is whole without them."""
    from besom.compare.record import record

    try:
        record(tracking_uri(plan.trial), load_study(plan.settings.storage, plan.name))
    except Exception as error:  # MLflow's, of any kind: nothing that counts is lost
        reason = without_password(" ".join(str(error).split()))
        what = "" if isinstance(error, BesomError) else "the sweep's charts may not be in MLflow: "
        sys.stderr.write(f"besom: {what}{reason}; the same command tries again\n")


def _taken_live(config: DictConfig) -> list[str]:
    """Return overrides for what a resume takes from the files as they now are, the rest being the snapshot's."""
    sweeper, launcher = config.hydra.sweeper, config.hydra.launcher
    fields = {f"hydra.sweeper.{key}": sweeper[key] for key in sweep_settings.HOW_FAR}
    fields |= {f"hydra.launcher.{key}": value for key, value in launcher.items() if key != "_target_"}
    fields |= {f"tracking.{key}": value for key, value in config.tracking.items()}
    if "path" in config.data:
        fields["data.path"] = config.data.path
    return [f"{key}={override_text(_plain(value))}" for key, value in fields.items()]


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
