"""Counts and fronts of trials, kept trial by trial, against Optuna's own on the same trials."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState, create_trial

from besom.sweep.tally import Counts, Tally


def ended(outcome: str, values: list[float] | None = None, violation: float | None = None) -> FrozenTrial:
    states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "infeasible": TrialState.PRUNED}
    return create_trial(
        state=states.get(outcome, TrialState.FAIL),
        values=values,
        user_attrs={"outcome": outcome},
        constraints=None if violation is None else {"c": violation},
    )


@pytest.mark.parametrize(
    ("outcomes", "counts"),
    [
        ([], Counts()),
        (["complete", "complete", "failed"], Counts(complete=2, failed=1)),
        (["pruned", "infeasible"], Counts(pruned=2)),
        (["lane_died", "parent_died", "interrupted", "unasked"], Counts()),
    ],
)
def test_only_own_ends_are_counted(outcomes: list[str], counts: Counts) -> None:
    trials = [ended(outcome, [1.0] if outcome == "complete" else None) for outcome in outcomes]
    assert Tally(["minimize"], trials).counts == counts


def test_a_running_trial_is_counted_until_it_ends() -> None:
    tally = Tally(["minimize"], [create_trial(state=TrialState.RUNNING)])
    assert tally.counts == Counts(running=1)
    tally.end(ended("complete", [1.0]))
    assert tally.counts == Counts(complete=1)


def test_failure_rate_is_a_share_of_what_ended_by_itself() -> None:
    outcomes = ["failed", "complete", "complete", "pruned", "lane_died"]
    trials = [ended(outcome, [1.0] if outcome == "complete" else None) for outcome in outcomes]
    assert Tally(["minimize"], trials).counts.failure_rate == 0.25
    assert Counts().failure_rate == 0.0


@pytest.mark.parametrize(("direction", "best"), [("minimize", 1.0), ("maximize", 3.0)])
def test_the_best_is_the_first_of_equals(direction: str, best: float) -> None:
    trials = [ended("complete", [value]) for value in (2.0, 1.0, 3.0, 1.0, 3.0)]
    tally = Tally([direction], trials)
    assert tally.best is trials[[2.0, 1.0, 3.0].index(best)]
    assert tally.front == [tally.best]


def test_a_trial_that_breaks_a_constraint_is_never_the_best() -> None:
    kept, broken = ended("complete", [2.0], violation=0.0), ended("complete", [1.0], violation=0.5)
    assert Tally(["minimize"], [kept, broken]).best is kept
    assert Tally(["minimize"], [broken]).best is None


def test_since_best_counts_ends_without_a_better_one() -> None:
    tally = Tally(
        ["minimize"], [ended("complete", [2.0]), ended("failed"), ended("complete", [2.0]), ended("lane_died")]
    )
    assert tally.since_best == 2
    tally.running += 1
    tally.end(ended("complete", [1.0]))
    assert tally.since_best == 0


@given(
    values=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=12),
    directions=st.lists(st.sampled_from(["minimize", "maximize"]), min_size=2, max_size=2),
)
def test_the_front_is_optunas(values: list[tuple[int, int]], directions: list[str]) -> None:
    study: Any = optuna.create_study(directions=directions)
    study.add_trials([ended("complete", [float(one), float(two)]) for one, two in values])
    front = Tally(directions, study.trials).front
    assert [trial.number for trial in front] == sorted(trial.number for trial in study.best_trials)
