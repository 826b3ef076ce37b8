"""The two copies of a study: what is asked, told and lost stands in the storage as it does in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.trial import FrozenTrial

from besom.options import SAMPLERS
from besom.results import TrialResult
from besom.search.search import Search
from besom.search.space import parse
from besom.storage import load_study
from besom.sweep.study import SweepStudy
from besom.sweep.tally import Counts, outcome

SPACE, _ = parse({"x": "choice(1,2,3)", "y": "range(0,4)"})


class Kept:
    """A study in a file, opened as a sweep opens it, and read as anybody else would."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder / 'study.db'}"

    def open(self, sampler: str = "tpe", pruner: BasePruner | None = None, **search: Any) -> SweepStudy:
        given = {"directions": ["maximize"], "space": SPACE, "sampler": SAMPLERS[sampler], **search}
        return SweepStudy(self.url, "s", Search(**given), {"a": 1}, pruner or NopPruner())

    @property
    def trials(self) -> list[FrozenTrial]:
        return load_study(self.url, "s").trials


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def complete(study: SweepStudy, number: int, *values: float, **facts: Any) -> None:
    study.finish(TrialResult(number, "COMPLETE", list(values), facts=facts))


def test_an_asked_trial_is_stored_whole(kept: Kept) -> None:
    asked = kept.open().ask(seed=1)
    assert asked is not None
    (trial,) = kept.trials
    assert (trial.state.name, trial.params, trial.user_attrs) == ("RUNNING", asked.point, {"point": 0})


def test_what_is_told_is_stored(kept: Kept) -> None:
    study = kept.open()
    study.ask(seed=1)
    study.ask(seed=1)
    study.ask(seed=1)
    complete(study, 0, 0.5, n_params=7)
    study.finish(TrialResult(1, "FAIL", reason="ValueError"))
    study.finish(TrialResult(2, "PRUNED", reason="a <= 1 broken"), why="infeasible")
    first, second, third = kept.trials
    assert (first.values, first.user_attrs["n_params"], outcome(first)) == ([0.5], 7, "complete")
    assert (second.state.name, second.user_attrs["reason"], outcome(second)) == ("FAIL", "ValueError", "failed")
    assert (third.state.name, outcome(third)) == ("PRUNED", "infeasible")
    assert study.counts == kept.open().counts == Counts(complete=1, pruned=1, failed=1)
    assert [trial.number for trial in kept.open().tally.front] == [0]


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid", "nsgaii", "cmaes", "qmc", "bruteforce"])
def test_a_study_opened_again_goes_on_where_it_was(kept: Kept, tmp_path: Path, sampler: str) -> None:
    (tmp_path / "whole").mkdir()
    whole = Kept(tmp_path / "whole").open(sampler)
    points, again = [], []
    for number in range(12):
        asked = whole.ask(seed=3)
        assert asked is not None
        points.append(asked.point)
        complete(whole, number, float(asked.point["x"]))
    for number in range(12):
        study = kept.open(sampler)  # a new parent for every trial
        asked = study.ask(seed=3)
        assert asked is not None
        again.append(asked.point)
        complete(study, number, float(asked.point["x"]))
    assert again == points
    assert kept.open(sampler).ask(seed=3) is None
    assert len(kept.trials) == 12


def test_a_lost_point_is_tried_again_and_does_not_move_the_search(kept: Kept) -> None:
    study = kept.open()
    first = study.ask(seed=1)
    assert first is not None
    assert study.lose(0, "lane_died", "killed", retries=1)
    again = kept.open()
    retried = again.retry(again.to_retry()[0], seed=1)
    assert retried is not None
    assert (retried.number, retried.point, retried.retry_of) == (1, first.point, 0)
    assert again.to_retry() == []
    assert not again.lose(1, "lane_died", "killed", retries=1)
    assert [outcome(trial) for trial in kept.trials] == ["lane_died", "failed"]
    assert [trial.user_attrs["point"] for trial in kept.trials] == [0, 0]
    assert kept.open().counts == Counts(failed=1)


def test_a_point_is_taken_once(kept: Kept) -> None:
    study = kept.open()
    assert study.take(0, {"x": 2, "y": 3}, seed=1) is not None
    assert study.take(0, {"x": 2, "y": 3}, seed=1) is None
    assert kept.open().take(0, {"x": 2, "y": 3}, seed=1) is None


def test_reports_are_stored_and_pruned_by(kept: Kept) -> None:
    study = kept.open(pruner=MedianPruner(n_startup_trials=1))
    study.ask(seed=1)
    assert not study.report(0, 0, 0.9)
    complete(study, 0, 0.9)
    study.ask(seed=1)
    assert study.report(1, 0, 0.1)
    assert [trial.intermediate_values for trial in kept.trials] == [{0: 0.9}, {0: 0.1}]


def test_what_a_trial_reported_through_the_storage_is_heard(kept: Kept) -> None:
    study = kept.open()
    study.ask(seed=1)
    storage = load_study(kept.url, "s")._storage
    storage.set_trial_intermediate_value(storage.get_all_trials(1)[0]._trial_id, 4, 0.25)
    study.hear(0)
    assert study.trials[0].intermediate_values == {4: 0.25}


def test_broken_constraints_are_stored_and_keep_a_trial_from_being_the_best(kept: Kept) -> None:
    study = kept.open()
    study.ask(seed=1)
    study.ask(seed=1)
    study.constrain(0, {"size <= 1": 0.5})
    study.constrain(1, {"size <= 1": 0.0})
    complete(study, 0, 9.0)
    complete(study, 1, 1.0)
    assert [trial.constraints for trial in kept.trials] == [{"size <= 1": 0.5}, {"size <= 1": 0.0}]
    assert [trial.number for trial in kept.open().tally.front] == [1]
    assert study.constraints_of(0) == {"size <= 1": 0.5}


def test_what_a_dead_parent_left_running_is_seen(kept: Kept) -> None:
    kept.open().ask(seed=1)
    study = kept.open()
    assert [trial.number for trial in study.left_running()] == [0]
    study.lose(0, "parent_died", "its parent died", retries=2)
    assert study.left_running() == []
    assert len(study.to_retry()) == 1


def test_a_seed_is_drawn_once_and_kept(kept: Kept) -> None:
    drawn = kept.open().seed(None)
    assert kept.open().seed(None) == drawn == kept.open().seed(drawn + 1)


def test_several_objectives_are_stored_and_make_a_front(kept: Kept) -> None:
    study = kept.open(directions=["maximize", "minimize"])
    for number, values in enumerate([(1.0, 1.0), (2.0, 2.0), (0.0, 3.0)]):
        study.ask(seed=1)
        complete(study, number, *values)
    again = kept.open(directions=["maximize", "minimize"])
    assert [trial.number for trial in again.tally.front] == [0, 1]
