"""What a sweep found, in sentences: who won, by how much, whether that means anything, what it cost, and why.

Only the words; knows nothing of pages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from optuna.trial import FrozenTrial

from besom.compare.trials import SweepTrials, point_text
from besom.tables import cell, title

Z = 1.96
"""Of 95 %."""


def sentences(trials: SweepTrials, importances: Mapping[str, float]) -> list[str]:
    """Return the verdict, the most important first; one sentence where no trial is complete."""
    if trials.best is None or not trials.ranked:
        return [f"No trial of sweep {trials.name} is complete yet."]
    winner = trials.ranked[0]
    every = [_won(trials, winner), _lead(trials), _baseline(trials), _cheaper(trials), _why(importances)]
    return [sentence for sentence in every if sentence]


def _won(trials: SweepTrials, winner: FrozenTrial) -> str:
    size, seconds = winner.user_attrs.get("n_params"), winner.user_attrs.get("fit_seconds")
    cost = f", {cell(size)} parameters" if size is not None else ""
    cost += f", trained in {seconds:.0f} s" if isinstance(seconds, float) else ""
    point = point_text(winner, trials.params)
    return f"Trial {winner.number} won with {trials.objective} {cell(winner.values[0])}{cost}" + (
        f": {point}." if point else "."
    )


def _lead(trials: SweepTrials) -> str:
    if len(trials.ranked) < 2:
        return "It is the only complete trial; there is nothing to compare it with."
    first, second = trials.ranked[:2]
    gap = abs(first.values[0] - second.values[0])
    if gap == 0:
        ties = sum(trial.values[0] == first.values[0] for trial in trials.ranked)
        return f"It is one of {ties:,} that are equally good; the earliest of them is named."
    lead = f"It leads the second, trial {second.number}, by {_points(trials, gap)}"
    margin = margin_of(trials)
    if margin is None:
        return f"{lead}; whether that is more than noise cannot be told from one number."
    n_val = first.user_attrs["n_val"]
    if gap < margin:
        rivals = sum(abs(first.values[0] - trial.values[0]) < margin for trial in trials.ranked[1:])
        return (
            f"{lead}; {n_val:,} validation images tell apart about {_points(trials, margin)}, so "
            f"{rivals:,} other {'trial is' if rivals == 1 else 'trials are'} as good as far as one can tell."
        )
    return f"{lead}, more than the {_points(trials, margin)} that {n_val:,} validation images tell apart."


def margin_of(trials: SweepTrials) -> float | None:
    """Return the difference between two accuracies that the validation images can tell apart, None for a loss.

    95 % of the difference of two independent shares; on the same images it is rather less, so this is careful.
    """
    winner = trials.ranked[0] if trials.ranked else None
    if winner is None or not trials.objective.endswith("accuracy"):
        return None
    n_val, share = winner.user_attrs.get("n_val"), winner.values[0]
    if not isinstance(n_val, int) or n_val < 1 or not 0 <= share <= 1:
        return None
    return Z * math.sqrt(2 * max(share * (1 - share), 1 / n_val) / n_val)


def _baseline(trials: SweepTrials) -> str:
    first = next((trial for trial in trials.complete if trial.user_attrs.get("enqueued") == 0), None)
    if first is None or first.number == trials.ranked[0].number:
        return ""
    gap = abs(trials.ranked[0].values[0] - first.values[0])
    return (
        f"The sweep's first given point, trial {first.number}, reached {cell(first.values[0])}: the winner is "
        f"{_points(trials, gap)} better."
    )


def _cheaper(trials: SweepTrials) -> str:
    margin, winner = margin_of(trials), trials.ranked[0]
    size = winner.user_attrs.get("n_params")
    if margin is None or not isinstance(size, int):
        return ""
    rivals = [trial for trial in trials.ranked[1:] if winner.values[0] - trial.values[0] < margin]
    sized = [trial for trial in rivals if isinstance(trial.user_attrs.get("n_params"), int)]
    least = min(sized, key=lambda trial: trial.user_attrs["n_params"], default=None)
    if least is None or least.user_attrs["n_params"] >= size:
        return ""
    own = least.user_attrs["n_params"]
    return (
        f"As good as far as one can tell, and the smallest: trial {least.number} with {cell(own)} parameters "
        f"({own / size:.0%} of the winner's) and {cell(least.values[0])}."
    )


def _why(importances: Mapping[str, float]) -> str:
    top = [f"{title(name)} ({share:.0%})" for name, share in list(importances.items())[:3] if share >= 0.05]
    return f"What mattered: {', '.join(top)}, by fANOVA." if top else ""


def _points(trials: SweepTrials, gap: float) -> str:
    """Return a difference as people say it: percentage points of an accuracy."""
    if not trials.objective.endswith("accuracy"):
        return cell(gap)
    return f"{100 * gap:.2g} percentage {'point' if f'{100 * gap:.2g}' == '1' else 'points'}"
