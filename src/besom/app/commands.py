"""What each command does with its parsed arguments; the work is in the modules that it imports."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from besom.errors import ConfigError, NotFound
from besom.tables import print_json, print_rows, print_table, say


def sweep(arguments: Namespace) -> int:
    """``besom sweep``: start or resume; plan only; or list what there is."""
    from besom.app import launch
    from besom.app.plan import SweepRequest, planned

    if arguments.sweep is None:
        return _list_sweeps(arguments.format)
    overrides = [*arguments.overrides, *_shorthands(arguments)]
    request = SweepRequest(arguments.sweep, overrides, arguments.name, arguments.fresh)
    with planned(request) as plan:
        if arguments.dry_run:
            from besom.app.dry_run import preview

            say(preview(plan))
            return 0
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
        "hydra/launcher": f"besom_{arguments.engine}" if arguments.engine else None,
    }
    return [f"{key}={value}" for key, value in keys.items() if value is not None]


def _number_of_trials(storage: str, name: str, fresh: bool) -> int:
    from besom.app.catalog import trials_of

    return 0 if fresh else len(trials_of(storage, name))


def _after_sweep(storage: str, name: str, before: int, form: str) -> int:
    """Print the leaderboard, and say so when there was nothing left to train."""
    from besom.storage import load_study
    from besom.sweep.rows import differing, leaderboard, rows
    from besom.sweep.tally import Tally, directions_of

    study = load_study(storage, name)
    trials = study.get_trials(deepcopy=False)
    board = leaderboard(rows(trials), directions_of(study))
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
        say(f"\n'besom reproduce {name}' proves the best one; 'besom ui {name}' compares them in MLflow.")
    return 0


def train(arguments: Namespace) -> int:
    """``besom train``."""
    from besom.app import launch

    launch.train(arguments.overrides, multirun=arguments.multirun)
    return 0


def status(arguments: Namespace) -> int:
    """``besom status``."""
    from besom.sweep.rows import status as status_of

    study, store = _study(arguments)
    trials = study.get_trials(deepcopy=False)
    counts = status_of(study)
    if arguments.format == "json":
        print_json(counts)
        return 0
    best = counts.pop("best")
    flat = {**counts, "best": best["objective"] if best else None, "best_trial": best["number"] if best else None}
    print_rows([flat], list(flat), arguments.format)
    if arguments.format == "table":
        failed = [trial for trial in trials if trial.state.name == "FAIL" and "reason" in trial.user_attrs]
        for trial in failed[-1:]:
            log = store.job(arguments.name, trial.number) / "trial.log"
            say(
                f"last error: trial {trial.number}: {trial.user_attrs['reason']}"
                + (f"; see {log}" if log.exists() else "")
            )
    return 0


def runs(arguments: Namespace) -> int:
    """``besom runs``."""
    from besom.sweep.rows import FIXED_COLUMNS, differing, rows

    study, _ = _study(arguments)
    found = rows(study.get_trials(deepcopy=False), lost_too=arguments.all)
    if arguments.format == "json":
        print_json({"trials": found})
    else:
        every = list(dict.fromkeys([*FIXED_COLUMNS, *(key for one in found for key in one)]))
        print_rows(found, every if arguments.all or arguments.format == "csv" else differing(found), arguments.format)
    return 0


def best(arguments: Namespace) -> int:
    """``besom best``: one row, or with several objectives those of the front."""
    from besom.sweep.rows import differing, row
    from besom.sweep.tally import Tally

    study, _ = _study(arguments)
    front = [row(trial) for trial in Tally.of(study).front]
    if not front:
        raise NotFound(f"sweep '{arguments.name}' has no complete trial yet; see 'besom status {arguments.name}'")
    found = front[0]
    if len(study.directions) > 1:
        print_json({"trials": front}) if arguments.format == "json" else print_rows(
            front, differing(front), arguments.format
        )
        return 0
    if arguments.format == "json":
        print_json(found)
    elif arguments.format == "csv":
        print_rows([found], list(found), "csv")
    else:
        print_table([{"key": key, "value": value} for key, value in found.items()], ["key", "value"])
    return 0


def reproduce(arguments: Namespace) -> int:
    """``besom reproduce``."""
    from besom.app.catalog import find_run
    from besom.app.reproduce import VERDICTS, reproduce_run

    store = _store(arguments)
    verdict = reproduce_run(find_run(store, arguments.run), arguments.allow)
    found = verdict.to_json()
    if arguments.format == "json":
        print_json(found)
    elif arguments.format == "csv":
        print_rows([found], list(found), "csv")
    else:
        say(verdict.sentence())
    return 0 if VERDICTS.index(verdict.verdict) <= VERDICTS.index(arguments.accept) else 1


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
    from besom.app.catalog import find_run
    from besom.app.predictions import prediction_rows

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
    from besom.app.catalog import refuse_unknown
    from besom.app.delete import delete_sweep

    store = _store(arguments)
    refuse_unknown(store, arguments.name)
    if sys.stdin.isatty() and not arguments.yes:
        sys.stdout.write(f"delete sweep '{arguments.name}' from {store.root}, runs and artifacts included? [y/N] ")
        sys.stdout.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            say("nothing deleted")
            return 1
    delete_sweep(store, arguments.name)
    say(f"sweep '{arguments.name}' is deleted; its name can be used again")
    return 0


def _store(arguments: Namespace) -> Any:
    from besom.app.composed import store_of

    return store_of(Path(arguments.store) if arguments.store else None)


def _study(arguments: Namespace) -> tuple[Any, Any]:
    """Return the study of a sweep that must exist, and its store."""
    from besom.app.catalog import refuse_unknown
    from besom.storage import load_study

    store = _store(arguments)
    refuse_unknown(store, arguments.name)
    return load_study(store.studies_uri, arguments.name), store
