"""What a task's return means: a table of returns, with one objective and with two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from besom.errors import TrialPruned
from besom.judge import failed, judge
from besom.reporting import RESERVED, TrialHandle, running, tell
from besom.results import TrialResult


def handle() -> TrialHandle:
    return TrialHandle(3, None, lambda step, value: False)


@pytest.mark.parametrize(
    ("returned", "n_objectives", "values"),
    [
        (0.5, 1, [0.5]),
        (1, 1, [1.0]),
        (True, 1, [1.0]),
        ("0.25", 1, [0.25]),
        (np.float32(0.5), 1, [0.5]),
        (np.array(0.5), 1, [0.5]),
        ({"objective": 2}, 1, [2.0]),
        ([1, 2], 2, [1.0, 2.0]),
        ((1, np.float64(2)), 2, [1.0, 2.0]),
        (np.array([1.0, 2.0]), 2, [1.0, 2.0]),
        ({"objective": [1, 2], "cost": 3}, 2, [1.0, 2.0]),
    ],
)
def test_finite_numbers_are_complete(returned: Any, n_objectives: int, values: list[float]) -> None:
    result = judge(returned, handle(), n_objectives)
    assert (result.number, result.state, result.values, result.reason) == (3, "COMPLETE", values, None)


@pytest.mark.parametrize(
    ("returned", "n_objectives", "reason"),
    [
        (None, 1, "the task returned None; expected a finite number"),
        (float("nan"), 1, "the objective is nan; expected a finite number"),
        (float("-inf"), 1, "the objective is -inf; expected a finite number"),
        ("text", 1, "the task returned 'text'; expected a finite number"),
        ([0.5], 1, "the task returned [0.5]; expected a finite number"),
        ({"accuracy": 0.5}, 1, "the task returned None; expected a finite number"),
        (10**400, 1, "expected a finite number"),
        (0.5, 2, "the task returned 0.5; expected a list of 2 finite numbers"),
        ([1.0], 2, "the task returned [1.0]; expected a list of 2 finite numbers"),
        ([1.0, float("nan")], 2, "the objective is nan; expected a list of 2 finite numbers"),
        ("12", 2, "the task returned '12'; expected a list of 2 finite numbers"),
        ({"objective": 1.0, "loss": float("nan")}, 1, "loss=nan cannot be told"),
        ({"objective": 1.0, "model": object()}, 1, "cannot be told"),
    ],
)
def test_all_else_fails_with_a_reason(returned: Any, n_objectives: int, reason: str) -> None:
    result = judge(returned, handle(), n_objectives)
    assert (result.state, result.values) == ("FAIL", [])
    assert reason in (result.reason or "")
    assert len(result.reason or "") < 300


def test_a_mapping_tells_its_other_entries() -> None:
    assert judge({"objective": 1.0, "n_params": np.int64(7)}, handle()).facts == {"n_params": 7}


def test_what_a_task_raised_is_pruned_or_failed() -> None:
    assert failed(TrialPruned("pruned at step 1"), handle()).state == "PRUNED"
    raised = failed(ValueError("two\nlines"), handle())
    assert (raised.state, raised.reason) == ("FAIL", "ValueError: two lines")


def test_tell_reaches_the_running_trial_and_nobody_outside_one() -> None:
    tell(size=1)
    with running(handle()) as trial:
        tell(size=2)
    assert trial.facts == {"size": 2}


@pytest.mark.parametrize(
    "result",
    [
        TrialResult(0, "COMPLETE", [0.5], facts={"a": 1}),
        TrialResult(1, "COMPLETE", [0.5, 1.0]),
        TrialResult(2, "PRUNED", reason="pruned at step 1"),
        TrialResult(3, "FAIL", reason="ValueError"),
    ],
)
def test_a_result_survives_its_file(tmp_path: Path, result: TrialResult) -> None:
    result.write(tmp_path)
    assert TrialResult.read(tmp_path, result.number) == result


def test_a_result_of_another_trial_or_study_is_none(tmp_path: Path) -> None:
    TrialResult(1, "COMPLETE", [0.5]).write(tmp_path, "one")
    assert TrialResult.read(tmp_path, 1, "one") is not None
    assert TrialResult.read(tmp_path, 2, "one") is None
    assert TrialResult.read(tmp_path, 1, "two") is None


@pytest.mark.parametrize("name", RESERVED)
def test_names_of_the_accounts_cannot_be_told(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is a name of besom's own"):
        handle().tell(**{name: 1})


def test_optunas_own_pruned_is_pruned_too() -> None:
    assert failed(optuna.TrialPruned("enough"), handle()).state == "PRUNED"


def test_a_result_of_before_there_were_several_objectives_is_read(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(
        '{"number": 1, "state": "COMPLETE", "value": 0.5, "reason": null, "facts": {}}'
    )
    assert TrialResult.read(tmp_path, 1) == TrialResult(1, "COMPLETE", [0.5])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"number": 1, "state": "COMPLETE", "values": []}',
        '{"number": 1, "state": "FAIL", "values": [1]}',
    ],
)
def test_what_is_no_whole_result_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "result.json").write_text(text)
    assert TrialResult.read(tmp_path, 1) is None
