"""`besom confirm`: what a person sees of it: progress, tables, one sentence, the test set, exit code."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from besom.confirm.confirmation import Confirmation, Options, confirm
from besom.confirm.contenders import Trust
from besom.confirm.words import sentence, test_text
from besom.errors import ConfigError
from besom.tables import print_json, print_rows, print_table, say

if TYPE_CHECKING:
    from besom.paths import Store

LEAST = {"top": 1, "seeds": 2, "jobs": 1}
CONTENDER = ("contender", "mean", "low", "high", "n_seeds", "sweep_value")
PAIR = ("first", "second", "difference", "low", "high", "p", "p_holm", "verdict")
CSV = ("part", "first", "second", "value", "low", "high", "n", "sweep_value", "p", "p_holm", "verdict")


def run(store: Store, arguments: Namespace) -> int:
    """Confirm a sweep's winner; exit 0 whatever is found, 1 where nothing could be compared."""
    from besom.compare.catalog import open_study
    from besom.lock import parent_lock

    options, name = _options(arguments), arguments.name
    study = open_study(store, name)
    with parent_lock(store.lock(name), name):  # nobody sweeps, deletes or confirms it meanwhile
        found = confirm(store, study, options, _tell)
    if arguments.format == "json":
        print_json(found.to_json())
    elif arguments.format == "csv":
        print_rows(_csv(found), CSV, "csv")
    else:
        _print(found)
    if found.problem is not None:
        raise found.problem
    return 0 if found.evidence.is_possible else 1


def _options(arguments: Namespace) -> Options:
    for name, least in LEAST.items():
        if (given := getattr(arguments, name)) is not None and given < least:
            raise ConfigError(f"--{name} {given} is too small; expected at least {least}")
    return Options(
        top=arguments.top,
        seeds=arguments.seeds,
        n_lanes=arguments.jobs,
        may_test=not arguments.no_test,
        again=arguments.open_test_again,
        trust=Trust(arguments.allow, arguments.data_path),
    )


def _tell(text: str) -> None:
    sys.stderr.write(f"besom: {' '.join(text.split())}\n")
    sys.stderr.flush()


def _rows(found: Confirmation) -> list[dict[str, Any]]:
    rows = [{**score.to_json(), "n_seeds": len(score.good)} for score in found.evidence.scores]
    return [{**row, "contender": row["label"]} for row in rows]


def _csv(found: Confirmation) -> list[dict[str, Any]]:
    """Return contenders, pairs and the test set as rows of one table."""
    rows = [
        {**row, "part": "contender", "first": row["label"], "value": row["mean"], "n": row["n_seeds"]}
        for row in _rows(found)
    ]
    pairs = [pair.to_json() for pair in found.evidence.comparisons]
    rows += [{**pair, "part": "comparison", "value": pair["difference"]} for pair in pairs]
    if found.opening is not None:
        test = found.opening.to_json()
        rows.append({**test, "part": "test", "first": f"trial {found.opening.trial}", "value": test["accuracy"]})
    return rows


def _print(found: Confirmation) -> None:
    evidence = found.evidence
    say(f"sweep '{evidence.sweep}', {evidence.objective} with new seeds, mean and 95 % interval:")
    print_table(_rows(found), CONTENDER)
    if evidence.comparisons:
        say("\nevery two, on the same seeds:")
        print_table([pair.to_json() for pair in evidence.comparisons], PAIR)
    say(f"\n{sentence(evidence)}")
    if found.opening is not None:
        say(test_text(found.opening))
