"""What each command does with its parsed arguments; the work is in the modules that it imports.

The commands that only look are in `besom.app.showing`.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from besom.errors import ConfigError
from besom.tables import print_json, print_rows, say

ENGINES = {"lanes": "besom_lanes", "ray": "besom_ray"}
"""What ``--engine`` calls besom's own launchers; any other name is that of another launcher."""


def sweep(arguments: Namespace) -> int:
    """``besom sweep``: start or resume; plan only; or list what there is."""
    from besom.app import launch
    from besom.app.plan import SweepRequest, planned
    from besom.databases import WaitingConnection, tables_in
    from besom.upkeep.moved import refuse_moved, say_if_moved

    if arguments.sweep is None:
        return _list_sweeps(arguments.format)
    overrides = [*arguments.overrides, *_shorthands(arguments)]
    request = SweepRequest(arguments.sweep, overrides, arguments.name, arguments.fresh)
    with planned(request) as plan:
        if arguments.dry_run:
            from besom.app.dry_run import preview

            say_if_moved(plan.made.store)
            say(preview(plan))
            return 0
        refuse_moved(plan.made.store)
        tables_in(plan.made.store.studies_db, WaitingConnection)  # locked, it is waited for as while the sweep runs
        before = _number_of_trials(plan.settings.storage, plan.name, arguments.fresh)
        launch.sweep(plan, fresh=arguments.fresh)
    return _after_sweep(plan.settings.storage, plan.name, before, arguments.format)


def _list_sweeps(form: str) -> int:
    from besom.app.composed import staged

    with staged() as (stage, _):
        rows = [{"name": name, "question": stage.question(name)} for name in stage.sweep_names()]
    if form == "json":
        print_json({"sweeps": rows})
    else:
        print_rows(rows, ["name", "question"], form)
    return 0


def _shorthands(arguments: Namespace) -> list[str]:
    """Return the overrides that the flags stand for."""
    keys = {
        "hydra.sweeper.n_trials": arguments.trials,
        "hydra.sweeper.n_jobs": arguments.jobs,
        "hydra.sweeper.sampler.seed": arguments.seed,
        "hydra.sweeper.timeout": arguments.timeout,
        "hydra/sweeper/sampler": arguments.sampler,
        "hydra/sweeper/pruner": arguments.pruner,
        "hydra/launcher": ENGINES.get(arguments.engine, arguments.engine),
    }
    return [f"{key}={value}" for key, value in keys.items() if value is not None]


def _number_of_trials(storage: str, name: str, fresh: bool) -> int:
    from besom.compare.catalog import trials_of

    return 0 if fresh else len(trials_of(storage, name))


def _after_sweep(storage: str, name: str, before: int, form: str) -> int:
    """Print the leaderboard, and say so when there was nothing left to train."""
    from besom.storage import load_study
    from besom.sweep.rows import differing, leaderboard, rows
    from besom.sweep.run_ids import known_ids
    from besom.sweep.tally import Tally, directions_of

    study = load_study(storage, name)
    trials = study.get_trials(deepcopy=False)
    board = leaderboard(rows(trials, known_ids(study)), directions_of(study))
    if form == "json":
        print_json({"trials": board})
        return 0
    counted, total = Tally.of(study).counts.counted, study.user_attrs.get("n_trials")
    if total is not None and counted < total:
        say(f"sweep '{name}' ended at {counted} of {total} trials; the same command goes on, if its settings let it.")
    elif len(trials) == before:
        say(f"sweep '{name}' is complete: nothing to train. Raise hydra.sweeper.n_trials (--trials) to go on.")
    say(f"\nsweep '{name}', best first:")
    print_rows(board[:15], differing(board), form)
    if any(row["state"] == "COMPLETE" for row in board):
        say(
            f"\n'besom reproduce {name}' proves the best one, 'besom confirm {name}' asks whether its lead is more "
            f"than luck; 'besom ui {name}' compares them in MLflow."
        )
    return 0


def train(arguments: Namespace) -> int:
    """``besom train``."""
    from besom.app import launch

    if arguments.allow and arguments.config is None:
        raise ConfigError(
            "--allow is for a config file; expected --config FILE with it: a project's own config may import"
        )
    launch.train(arguments.overrides, multirun=arguments.multirun, file=arguments.config, allow=arguments.allow)
    return 0


def reproduce(arguments: Namespace) -> int:
    """``besom reproduce``: one run, what somebody exported, or with ``--all`` every trial of a sweep."""
    from besom.app.reproduce import every, exported, one
    from besom.compare.catalog import find_run, sweep_names
    from besom.reproduce.exported import is_exported

    store = _store(arguments)
    if is_exported(arguments.run) and arguments.run not in sweep_names(store):
        return exported(Path(arguments.run), store, arguments)
    if arguments.all:
        return every(store, arguments.run, arguments)
    return one(find_run(store, arguments.run), arguments)


def confirm(arguments: Namespace) -> int:
    """``besom confirm``."""
    from besom.app.confirm import run

    return run(_store(arguments), arguments)


def export(arguments: Namespace) -> int:
    """``besom export``."""
    from besom.app.export import run
    from besom.compare.catalog import find_run

    return run(find_run(_store(arguments), arguments.run), arguments)


def report(arguments: Namespace) -> int:
    """``besom report``."""
    from besom.app.report import report_sweep

    page, table = report_sweep(_store(arguments), arguments.name, arguments.output)
    found = {"page": str(page), "table": str(table)}
    if arguments.format == "json":
        print_json(found)
    elif arguments.format == "csv":
        print_rows([found], list(found), "csv")
    else:
        say(f"{page}\n{table}")
    return 0


def summary(arguments: Namespace) -> int:
    """``besom summary``."""
    from besom.app.composed import Composed, staged
    from besom.configs.config import plain
    from besom.trial.measure import sized

    with staged() as (stage, base):
        geometry = sized(plain(Composed.of(stage, base, arguments.overrides).config))
    if geometry is None:
        raise ConfigError("summary knows the layers of model=cnn only; expected model._target_=besom.model.cnn")
    found = geometry.to_json()
    if arguments.format == "json":
        print_json(found)
    elif arguments.format == "csv":
        print_rows(found["layers"], list(found["layers"][0]), "csv")
    else:
        say(geometry.table())
    return 0


def predict(arguments: Namespace) -> int:
    """``besom predict``: the table that the trial stored, as the seed prints it."""
    from besom.app.predictions import prediction_rows
    from besom.compare.catalog import find_run

    rows = prediction_rows(find_run(_store(arguments), arguments.run))
    if arguments.format == "json":
        print_json({"predictions": rows})
    else:
        print_rows(rows, list(rows[0]), arguments.format)
    return 0


def ui(arguments: Namespace) -> int:
    """``besom ui``."""
    from besom.app.ui import serve

    return serve(_store(arguments), arguments.name, arguments.host, arguments.port)


def delete(arguments: Namespace) -> int:
    """``besom delete``: asks first where somebody can answer."""
    from besom.app.delete import delete_sweep
    from besom.app.store import refuse_read_only
    from besom.compare.catalog import refuse_unknown
    from besom.whereabouts import place_of, storage_of

    store = _store(arguments)
    refuse_unknown(store, arguments.name)
    refuse_read_only(store)
    if sys.stdin.isatty() and not arguments.yes:
        url = storage_of(store, arguments.name)
        place = f"{store.root}" if url == store.studies_uri else f"{store.root} and {place_of(store, url)}"
        sys.stdout.write(f"delete sweep '{arguments.name}' from {place}, runs and artifacts included? [y/N] ")
        sys.stdout.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            say("nothing deleted")
            return 1
    delete_sweep(store, arguments.name)
    say(f"sweep '{arguments.name}' is deleted; its name can be used again")
    return 0


def doctor(arguments: Namespace) -> int:
    """``besom doctor``."""
    from besom.app.upkeep import doctor

    return doctor(_named_store(arguments), arguments)


def repair(arguments: Namespace) -> int:
    """``besom repair``."""
    from besom.app.upkeep import repair

    return repair(_named_store(arguments), arguments)


def relocate(arguments: Namespace) -> int:
    """``besom relocate``."""
    from besom.app.upkeep import relocate

    return relocate(_named_store(arguments), arguments)


def _named_store(arguments: Namespace) -> Any:
    from besom.compare.catalog import store_of

    return store_of(arguments.store)


def _store(arguments: Namespace) -> Any:
    """Return the store that is named, unless it was moved: these commands write, or read what MLflow names."""
    from besom.upkeep.moved import refuse_moved

    store = _named_store(arguments)
    refuse_moved(store)
    return store
