"""`besom report`: one HTML file and one CSV about a sweep, for who has no MLflow at hand.

The study gives the numbers, the champion's run its pictures and tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from optuna.study import Study

from besom import __version__
from besom.compare import importances
from besom.compare.champion_page import ChampionPage
from besom.compare.cost_views import front_of
from besom.compare.page import filled
from besom.compare.table import Table
from besom.compare.trials import SweepTrials
from besom.compare.verdict import sentences
from besom.compare.views import charts_of
from besom.paths import write_atomically
from besom.sweep.rows import FACTS, differing, leaderboard, row, rows
from besom.sweep.tally import directions_of


@dataclass(frozen=True)
class Known:
    """What is known of a sweep beside its study.

    Args:
        champion: what the best trial left, None where no trial is complete or its run is gone.
        question: what the sweep asks, empty where nobody knows.
        importances: of these very trials, None where they are to be reckoned.
    """

    champion: ChampionPage | None = None
    question: str = ""
    importances: Mapping[str, float] | None = None


FIRST = 15
"""Rows of the leaderboard that are seen at once."""


def write_report(study: Study, known: Known, page: Path) -> tuple[Path, Path]:
    """Write the report of a sweep, and its trials as CSV beside it; return both files."""
    from besom.compare.frame import board_csv

    table = page.with_suffix(".csv")
    write_atomically(table, board_csv(study, SweepTrials.of(study).ended))
    write_atomically(page, report(study, known))
    return page, table


def report(study: Study, known: Known) -> str:
    """Return the page."""
    trials, champion = SweepTrials.of(study), known.champion
    shares = importances.of(trials) if known.importances is None else known.importances
    values = {
        **_tables(trials, leaderboard(rows(trials.ended, trials.run_ids), directions_of(study))),
        "champion": champion,
        "commands": _commands(trials),
        "facts": champion.facts if champion else None,
    }
    sections = [(slug, title) for slug, title, key in SECTIONS if key is None or values.get(key)]
    charts = charts_of(trials, shares)
    return filled(
        "report.html.j2",
        charts,
        trials=trials,
        made=f"{datetime.now():%Y-%m-%d %H:%M}",
        version=__version__,
        question=known.question,
        verdict=sentences(trials, shares),
        counts=_counts(trials, study.user_attrs.get("n_trials")),
        sections=sections,
        **values,
    )


SECTIONS = (
    ("leaderboard", "Leaderboard", None),
    ("cost", "What it costs", "costs"),
    ("charts", "Charts", None),
    ("champion", "The champion", "champion"),
    ("failures", "Failed trials", "failures"),
    ("reproduce", "Reproduce it", None),
)


def _counts(trials: SweepTrials, total: int | None) -> list[tuple[str, str]]:
    ended = f"{len(trials.ended):,}" + (f" of {total:,}" if total is not None else "")
    seconds = sum(trial.user_attrs.get("fit_seconds") or 0.0 for trial in trials.ended)
    return [
        ("trials", ended),
        ("complete", f"{len(trials.complete):,}"),
        ("pruned", f"{len(trials.pruned):,}"),
        ("failed", f"{len(trials.failed):,}"),
        ("training time", f"{seconds / 60:,.1f} min"),
    ]


def _tables(trials: SweepTrials, board: Sequence[dict[str, Any]]) -> dict[str, Table | None]:
    columns, best = differing(board), trials.best.number if trials.best else None
    caption = f"The {min(FIRST, len(board)):,} best trials" if len(board) > FIRST else "All trials, best first"
    rest = board[FIRST:]
    return {
        "board": Table.of(caption, board[:FIRST], columns, best),
        "rest": Table.of(f"The other {len(rest):,}", rest, columns) if rest else None,
        "costs": _costs(trials),
        "failures": _failures(trials),
    }


def _costs(trials: SweepTrials) -> Table | None:
    """Return what each step of the Pareto front costs: the trials that no smaller one beats."""
    front = [
        {**row(trial, trials.run_ids), "latency_ms": trial.user_attrs.get("latency_ms")} for trial in front_of(trials)
    ]
    if not front:
        return None
    columns = ["number", "objective", *FACTS, *(["latency_ms"] if front[-1]["latency_ms"] is not None else [])]
    return Table.of(
        "The trials that no smaller one beats: parameters, multiplications (MACs) of one image, seconds of training",
        front,
        columns,
        trials.best.number if trials.best else None,
    )


def _failures(trials: SweepTrials) -> Table | None:
    found = [
        {"number": trial.number, "reason": trial.user_attrs.get("reason", "-"), **trial.params}
        for trial in trials.failed
    ]
    columns = ["number", "reason", *trials.params]
    return Table.of(f"{len(found):,} failed by themselves", found, columns) if found else None


def _commands(trials: SweepTrials) -> list[str]:
    if trials.best is None:
        return [f"besom sweep {trials.name}"]
    return [
        f"besom reproduce {trials.name}    # trains trial {trials.best.number} again and compares, bit for bit",
        f"besom predict {trials.name}      # its first predictions beside the truth",
    ]
