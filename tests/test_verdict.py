"""What a sweep found, in sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stored import store_in, study_in, trial

from besom.compare.trials import SweepTrials
from besom.compare.verdict import margin_of, sentences


def trials_of(folder: Path, values: list[float], objective: str = "val_accuracy", **facts: Any) -> SweepTrials:
    study = study_in(store_in(folder), directions=["minimize" if objective.endswith("loss") else "maximize"])
    study.set_user_attr("settings", {"train.objective": objective})
    for number, value in enumerate(values):
        params = {"model.conv.0.filters": number + 1}
        own = {"n_params": 1000 * (number + 1), "fit_seconds": 4.0, **facts}
        study.add_trial(trial("complete", [value], params, **own, **({"enqueued": 0} if number == 0 else {})))
    return SweepTrials.of(study)


def test_no_complete_trial_is_said(tmp_path: Path) -> None:
    assert sentences(trials_of(tmp_path, []), {}) == ["No trial of sweep toy is complete yet."]


def test_one_trial_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    said = sentences(trials_of(tmp_path, [0.9]), {})
    assert said[0] == "Trial 0 won with val_accuracy 0.9, 1,000 parameters, trained in 4 s."
    assert said[1].startswith("It is the only complete trial")


def test_a_lead_within_the_noise_is_called_that(tmp_path: Path) -> None:
    said = sentences(trials_of(tmp_path, [0.90, 0.95, 0.96], n_val=500), {"model.conv.0.filters": 1.0})
    assert said == [
        "Trial 2 won with val_accuracy 0.96, 3,000 parameters, trained in 4 s: conv.0.filters=3.",
        "It leads the second, trial 1, by 1 percentage point; 500 validation images tell apart about 2.4 percentage "
        "points, so 1 other trial is as good as far as one can tell.",
        "The sweep's first given point, trial 0, reached 0.9: the winner is 6 percentage points better.",
        "As good as far as one can tell, and the smallest: trial 1 with 2,000 parameters (67% of the winner's) "
        "and 0.95.",
        "What mattered: conv.0.filters (100%), by fANOVA.",
    ]


def test_a_lead_beyond_the_noise_is_called_that(tmp_path: Path) -> None:
    said = sentences(trials_of(tmp_path, [0.90, 0.96], n_val=10_000), {})
    assert said[1] == (
        "It leads the second, trial 0, by 6 percentage points, more than the 0.54 percentage points that 10,000 "
        "validation images tell apart."
    )


def test_a_loss_has_no_percentage_points(tmp_path: Path) -> None:
    said = sentences(trials_of(tmp_path, [0.30, 0.25], "val_loss", n_val=500), {})
    assert said[0].startswith("Trial 1 won with val_loss 0.25")
    assert (
        said[1]
        == "It leads the second, trial 0, by 0.05; whether that is more than noise cannot be told from one number."
    )


@pytest.mark.parametrize(("n_val", "margin"), [(500, 0.0243), (10_000, 0.0054), (None, None)])
def test_the_margin_shrinks_with_the_square_root_of_the_images(
    tmp_path: Path, n_val: int | None, margin: float | None
) -> None:
    facts = {} if n_val is None else {"n_val": n_val}
    found = margin_of(trials_of(tmp_path, [0.96], **facts))
    assert found == (margin if margin is None else pytest.approx(margin, abs=5e-5))


def test_a_perfect_score_still_has_a_margin(tmp_path: Path) -> None:
    assert (margin_of(trials_of(tmp_path, [1.0], n_val=100)) or 0) > 0.01


def test_a_tie_is_no_lead(tmp_path: Path) -> None:
    said = sentences(trials_of(tmp_path, [0.95, 0.95, 0.9], n_val=500), {})
    assert said[0].startswith("Trial 0 won")
    assert said[1] == "It is one of 2 that are equally good; the earliest of them is named."
