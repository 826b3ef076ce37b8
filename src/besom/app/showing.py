"""The commands that only look: `besom status`, `runs`, `best`, `diff`. They make no store and write nothing."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from besom.errors import ConfigError, NotFound
from besom.tables import cell, print_json, print_rows, print_table, say

if TYPE_CHECKING:
    from optuna import Study

    from besom.compare.diff import Diff
    from besom.compare.watched import Look
    from besom.paths import Store


def status(arguments: Namespace) -> int:
    """``besom status``: once, or with ``--watch`` until the sweep ends."""
    from besom.compare.watched import Watched

    if arguments.watch is not None and arguments.format == "csv":
        raise ConfigError("--watch has no --format csv; expected table or json, which gives one line a change")
    store = _store(arguments)
    if arguments.watch is not None:
        from besom.app.watch import watch

        return watch(store, arguments.name, arguments.watch, arguments.format)
    look = Watched(store, arguments.name).look()
    if arguments.format == "json":
        print_json(look.to_json())
    elif arguments.format == "csv":
        flat = _flat(look)
        print_rows([flat], list(flat), "csv")
    else:
        _print_status(look, store)
    return 0


def _flat(look: Look) -> dict[str, Any]:
    """Return a status without what is more than a value."""
    found = look.to_json()
    best = found.pop("best")
    del found["running_trials"]
    return {**found, "best": best["objective"] if best else None, "best_trial": best["number"] if best else None}


def _print_status(look: Look, store: Store) -> None:
    from besom.sweep.pace import duration_text

    flat = _flat(look)
    for key, name in (("elapsed_seconds", "elapsed"), ("remaining_seconds", "left")):
        seconds = flat.pop(key)
        flat[name] = None if seconds is None else duration_text(seconds)
    print_rows([flat], list(flat), "table")
    if look.standing.running:
        titles = ["running", "epoch", "value", "time", "point"]
        running = [
            (trial.number, trial.epoch, trial.value, duration_text(trial.seconds), trial.point)
            for trial in look.standing.running
        ]
        say("")
        print_table([dict(zip(titles, one, strict=True)) for one in running], titles)
    failed = [trial for trial in look.trials if trial.state.name == "FAIL" and "reason" in trial.user_attrs]
    for trial in failed[-1:]:
        log = store.job(look.name, trial.number) / "trial.log"
        where = f"; see {log}" if log.exists() else ""
        say(f"last error: trial {trial.number}: {trial.user_attrs['reason']}{where}")


def runs(arguments: Namespace) -> int:
    """``besom runs``: all trials, or those that are asked for, as rows."""
    from besom.sweep.rows import parted_objectives, rows
    from besom.sweep.run_ids import known_ids
    from besom.sweep.tally import directions_of

    study = _study(arguments)
    directions = directions_of(study)
    found = rows(study.get_trials(deepcopy=False), known_ids(study), lost_too=arguments.all)
    columns = _columns(arguments, found, len(directions))
    shown = _chosen(arguments, found, directions)
    if arguments.columns:
        parted = [{**one, **parted_objectives(one, len(directions))} for one in shown]
        shown = [{column: one.get(column) for column in columns} for one in parted]
    if arguments.format == "json":
        print_json({"trials": shown})
    else:
        print_rows(shown, columns, arguments.format)
    return 0


def _chosen(
    arguments: Namespace, found: Sequence[dict[str, Any]], directions: Sequence[str]
) -> Sequence[dict[str, Any]]:
    """Return the rows that are asked for, in order."""
    if not arguments.filter and not arguments.sort:  # to import pandas takes as long as all the rest
        return (found[::-1] if arguments.desc else found)[: arguments.limit]
    from besom.compare.frame import framed
    from besom.compare.selection import Selection

    selection = Selection(arguments.filter, arguments.sort or ["number"], arguments.desc, arguments.limit)
    numbers = selection.of(framed(found, len(directions)), directions)["number"].tolist()
    by_number = {one["number"]: one for one in found}  # the frame has nan where a trial has nothing
    return [by_number[number] for number in numbers]


def _columns(arguments: Namespace, found: Sequence[Mapping[str, Any]], n_objectives: int) -> list[str]:
    """Return what is shown of each trial: of all trials what differs, so that filters do not change the columns."""
    from besom.compare.columns import column_named
    from besom.sweep.rows import FIXED_COLUMNS, differing, parted_objectives

    every = list(dict.fromkeys([*FIXED_COLUMNS, *(key for one in found for key in one)]))
    if arguments.columns:
        known = list(dict.fromkeys([*every, *parted_objectives(dict.fromkeys(FIXED_COLUMNS), n_objectives)]))
        return [column_named(name, known) for name in arguments.columns]
    return differing(found) if arguments.format == "table" and not arguments.all else every


def best(arguments: Namespace) -> int:
    """``besom best``: one row, or with several objectives those of the front."""
    from besom.sweep.rows import differing, row
    from besom.sweep.run_ids import known_ids
    from besom.sweep.tally import Tally

    study = _study(arguments)
    became = known_ids(study)
    front = [row(trial, became) for trial in Tally.of(study).front]
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


def diff(arguments: Namespace) -> int:
    """``besom diff``: exit 0 whether two runs differ or not; the answer is what is printed."""
    from besom.compare.catalog import find_run, store_of
    from besom.compare.diff import Diff, Side
    from besom.upkeep.moved import refuse_moved

    store = store_of(arguments.store)
    refuse_moved(store)  # its files are where MLflow's addresses say
    first, second = (Side(name, find_run(store, name)) for name in (arguments.first, arguments.second))
    found = Diff.of(first, second)
    if arguments.format == "json":
        print_json(found.to_json(equal_too=arguments.all))
    elif arguments.format == "csv":
        print_rows(found.rows(equal_too=arguments.all), ["part", "key", "first", "second"], "csv")
    else:
        _print_diff(found, equal_too=arguments.all)
    return 0


def _print_diff(found: Diff, *, equal_too: bool) -> None:
    for place, head in (("first", found.first), ("second", found.second)):
        say(f"{place}: {_head_text(head)}")
    rows = found.rows(equal_too=equal_too)
    if rows:
        say("")
        texts = [_pair_texts(row["first"], row["second"]) for row in rows]
        shown = [{**row, "first": first, "second": second} for row, (first, second) in zip(rows, texts, strict=True)]
        print_table(shown, ["part", "key", "first", "second"])
    say("")
    if not found.differs:
        say(f"nothing differs: all {found.same} values are the same")
    else:
        n_differing = sum(map(len, found.differs.values()))
        say(f"{n_differing} differ, {found.same} are the same" + ("" if equal_too else "; --all shows them too"))


def _head_text(head: Mapping[str, Any]) -> str:
    trial = [] if head["sweep"] is None else [f"trial {head['trial']} of sweep '{head['sweep']}'"]
    seconds = [] if head["fit_seconds"] is None else [f"trained for {head['fit_seconds']:.1f} s"]
    return ", ".join([f"run {head['run_id']}", *trial, str(head["state"]), *seconds])


def _pair_texts(first: Any, second: Any) -> tuple[str, str]:
    """Return two values as people compare them: whole where their short forms would look the same."""
    short = _short(first), _short(second)
    return (str(first), str(second)) if short[0] == short[1] and first != second else short


def _short(value: Any) -> str:
    return f"{value[:12]}…" if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{40,}", value) else cell(value)


def _store(arguments: Namespace) -> Store:
    """Return the store that is named; that it was moved is told, for studies can be read all the same."""
    from besom.compare.catalog import store_of
    from besom.upkeep.moved import say_if_moved

    store = store_of(arguments.store)
    say_if_moved(store)
    return store


def _study(arguments: Namespace) -> Study:
    from besom.compare.catalog import open_study

    return open_study(_store(arguments), arguments.name)
