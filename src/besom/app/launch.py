"""The doors `besom train` and `besom sweep`: what is known to be good is created and started."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from besom import data, offered
from besom.app.composed import Composed, is_chosen, refuse_damaged, staged
from besom.app.config_file import lay_config_file
from besom.app.delete import delete_locked, is_half_deleted, refuse_to_replace
from besom.app.plan import PlannedSweep
from besom.app.store import (
    create_store,
    databases_of,
    keep_data,
    refuse_lost,
    refuse_other_data,
    refuse_read_only,
    refuse_two_machines,
)
from besom.data import SHARED_FOLDER
from besom.databases import fold_in
from besom.disk import explain
from besom.engines.lanes import cool_down, warm_up
from besom.errors import BesomError, ConfigError, SweepStopped, discreet
from besom.lock import parent_lock, refuse_if_locked
from besom.paths import OUTSIDE_SWEEPS, SPOOL, Store
from besom.search.grammar import override_text
from besom.seeding import GPUS, fix_runtime
from besom.spool.deliver import deliver
from besom.spool.journal import n_pending
from besom.spool.probe import why_away
from besom.storage import find_study, load_study, settings_of
from besom.study_lock import study_lock
from besom.sweep import settings as sweep_settings
from besom.sweep.settings import SweepSettings
from besom.sweep.study import DATA_DIGEST, note_data
from besom.sweep.tally import Tally
from besom.tracking import checked_file, fix_environment, keep_uri, tracking_uri
from besom.upkeep.moved import refuse_moved
from besom.uris import HTTP
from besom.whereabouts import keep_storage, place_of
from besom.withheld import withheld

if TYPE_CHECKING:
    from optuna import Study

DELIVERY_SECONDS = 30.0
"""For what earlier trainings could not tell MLflow, before the next one begins."""
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
        refuse_read_only(made.store)
        refuse_moved(made.store)
        checked_file(tracking_uri(trial))
        with _told_of_full_disk(made.store):
            create_store(made.store)
            _fix_environment(trial.train.threads)
            uri = tracking_uri(trial)
            deliver(made.store, OUTSIDE_SWEEPS, uri, lambda run_ids: None, is_asked=True, seconds=DELIVERY_SECONDS)
            from besom.app.hydra_main import run_hydra

            run_hydra(stage.folder, made.overrides, multirun=multirun)


def _fix_environment(threads: int) -> None:
    fix_runtime(threads)
    fix_environment()


def sweep(plan: PlannedSweep, *, fresh: bool) -> None:
    """Start or resume a planned sweep and run it to its end."""
    store, name = plan.made.store, plan.name
    refuse_read_only(store)
    refuse_if_locked(store.lock(name), name)
    uri = tracking_uri(plan.trial)
    databases = databases_of(store, plan.settings.storage, uri)
    refuse_two_machines(store, name, databases)
    checked_file(uri)
    with study_lock(plan.settings.storage, name):  # another machine may work on it, from a store of its own
        _sweep(plan, databases, fresh=fresh)
    for database in databases:
        fold_in(database)


def _sweep(plan: PlannedSweep, databases: Sequence[Path], *, fresh: bool) -> None:
    store, name = plan.made.store, plan.name
    if fresh:
        refuse_to_replace(store, name, plan.settings.storage)
    study = None if fresh else find_study(plan.settings.storage, name)
    if is_half_deleted(study):
        study, fresh = None, True
    if not fresh:
        refuse_lost(store, name, place_of(store, plan.settings.storage), study)
    stored = settings_of(study)
    if stored is not None:
        sweep_settings.refuse_changes(name, stored, plan.comparable)
    else:
        _refuse_unreachable(tracking_uri(plan.trial))
    if plan.made.config.hydra.launcher.get("gpus_per_lane"):
        os.environ[GPUS] = "of lanes"  # a cluster of this machine finds none that its parent hides
    _fix_environment(plan.trial.train.threads)
    if study is not None and DATA_DIGEST in study.user_attrs:  # another store may have begun it
        refuse_other_data(name, str(study.user_attrs[DATA_DIGEST]), data.load(plan.trial.data).digest)
    is_needed = not _is_complete(plan.settings, study)
    with _told_of_full_disk(store), _lanes_warming_up(plan, is_needed=is_needed):
        create_store(store)
        with parent_lock(store.lock(name), name):
            refuse_two_machines(store, name, databases)  # again: of two that began at once each may have seen no other
            is_resume = stored is not None and store.snapshot(name).is_dir()
            _run(plan, fresh=fresh, is_resume=is_resume, trains=is_needed)


def _refuse_unreachable(uri: str) -> None:
    """Raise `ConfigError` where no MLflow answers, before anything is created: the address may be wrong.

    A sweep that has begun goes on without it, see `besom.spool`.
    """
    if uri.startswith(HTTP) and (reason := why_away(uri)) is not None:
        raise ConfigError(f"MLflow at {withheld(uri)} cannot be used: {reason}")


@contextmanager
def _told_of_full_disk(store: Store) -> Iterator[None]:
    """Raise `DiskFull`, or what else a disk or a file on it is to be blamed for, instead of what a library made of it.

    A library's error does not say which disk it was; the free space of the store's and of TMPDIR's does.
    """
    try:
        yield
    except Exception as error:
        found = explain(error, places=(store.root, store.root / "jobs", store.artifacts))
        if found is None or found is error:
            raise
        raise found from error


def _is_complete(settings: SweepSettings, study: Study | None) -> bool:
    return study is not None and settings.total is not None and Tally.of(study).counts.counted >= settings.total


@contextmanager
def _lanes_warming_up(plan: PlannedSweep, *, is_needed: bool) -> Iterator[None]:
    """Import for all lanes while the parent opens its books, which takes as long."""
    launcher = plan.made.config.hydra.launcher
    os.environ[SHARED_FOLDER] = str(plan.made.store.images(plan.name))  # lanes get the environment as it is now
    os.environ[SPOOL] = plan.name
    try:
        if is_needed and launcher.get("start_method") == "forkserver":
            warm_up(launcher.preload)
        yield
    finally:
        del os.environ[SHARED_FOLDER], os.environ[SPOOL]
        cool_down()


@contextmanager
def _shared_images(plan: PlannedSweep, *, is_needed: bool) -> Iterator[None]:
    """Keep the decoded images for all workers while the sweep runs; Ray carries them to where its lanes are."""
    config, folder = plan.trial.data, plan.made.store.images(plan.name)
    shutil.rmtree(folder, ignore_errors=True)  # left by a kill
    try:
        if is_needed and plan.launcher == "besom_ray":
            data.offer(config)
        elif is_needed:
            data.share(config, folder)
        yield
    finally:
        offered.withdraw()
        shutil.rmtree(folder, ignore_errors=True)


def _run(plan: PlannedSweep, *, fresh: bool, is_resume: bool, trains: bool) -> None:
    """Run a sweep whose lock this process holds; ``trains`` where something is left to be trained."""
    store, name = plan.made.store, plan.name
    if fresh:
        delete_locked(store, name)
    live = _taken_live(plan.made.config) if is_resume else []
    if is_resume:
        refuse_damaged(store.snapshot(name), [*plan.made.overrides, *live])
    else:  # a snapshot without a study is of a start that died before it had one
        shutil.rmtree(store.snapshot(name), ignore_errors=True)
        plan.stage.keep_as(store.snapshot(name))
    digest, url = data.load(plan.trial.data).digest, plan.settings.storage
    keep_data(store, name, digest, is_resume=is_resume)
    keep_uri(store, name, plan.made.config.tracking.uri)
    keep_storage(store, name, url)
    if url != store.studies_uri:  # who takes it up from another store has not what this one keeps
        note_data(url, name, plan.settings.search.directions, digest)
    from besom.app.hydra_main import run_hydra

    with _recorded(plan), _shared_images(plan, is_needed=trains):
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

    if n_pending(plan.made.store, plan.name):
        sys.stderr.write(
            "besom: the sweep's charts are not in MLflow yet, nor all its runs; the same command tries again\n"
        )
        return
    try:
        record(tracking_uri(plan.trial), load_study(plan.settings.storage, plan.name))
    except Exception as error:  # MLflow's, of any kind: nothing that counts is lost
        reason = discreet(error)
        what = "" if isinstance(error, BesomError) else "the sweep's charts may not be in MLflow: "
        sys.stderr.write(f"besom: {what}{reason}; the same command tries again\n")


def _taken_live(config: DictConfig) -> list[str]:
    """Return overrides for what a resume takes from the files as they now are, the rest being the snapshot's."""
    sweeper, launcher = config.hydra.sweeper, config.hydra.launcher
    fields = {f"hydra.sweeper.{key}": sweeper[key] for key in sweep_settings.HOW_FAR}
    raw: Any = OmegaConf.to_container(launcher, resolve=False)  # of another's fields some can be resolved in a job only
    fields |= {f"hydra.launcher.{key}": value for key, value in raw.items() if key != "_target_"}
    fields |= {f"tracking.{key}": value for key, value in config.tracking.items()}
    if "path" in config.data:
        fields["data.path"] = config.data.path
    return [f"{key}={override_text(_plain(value))}" for key, value in fields.items()]


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
