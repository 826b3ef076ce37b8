"""What a store says may be anybody's: nothing in it moves a terminal's cursor or runs in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from besom.compare.frame import board_csv
from besom.tables import inert, print_json, print_rows, say, visible

ESCAPES = "\x1b]0;title\x07 \x1b[2J\x9b31m \r\x08 \u202egnp.exe"


def test_what_a_terminal_would_obey_is_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"one {ESCAPES}")
    print_rows([{"name\x1b[31m": ESCAPES, "other": "[bold]x[/bold]"}], ["name\x1b[31m", "other"], "table")
    print_rows([{"name": ESCAPES}], ["name"], "csv")
    said = capsys.readouterr().out
    assert not set(said) & set("\x1b\x07\x9b\r\x08\u202e")
    assert r"\x1b]0;title\x07" in said
    assert "[bold]x[/bold]" in said


def test_json_stays_json_with_the_same_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": f"{ESCAPES}\x7f é 한"})
    said = capsys.readouterr().out
    assert not set(said) & set("\x1b\x07\x9b\x7f\u202e")
    assert json.loads(said) == {"name": f"{ESCAPES}\x7f é 한"}


@pytest.mark.parametrize("text", ["tab\tline\n", "é 한 ∞ …", "plain", ""])
def test_text_for_people_stays(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1+cmd", "-2+3", "@SUM(1)", "\t=1", "\r=1"])
def test_a_spreadsheet_runs_no_text_of_a_csv(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{"choice": text}], ["choice"], "csv")
    [_, row] = csv.reader(io.StringIO(capsys.readouterr().out, newline=""))
    assert row[0].startswith("'")


@pytest.mark.parametrize("value", [-3, -0.5, "-3", "-1e-4", "+7", "swish", None, True, "a=b"])
def test_numbers_and_plain_text_stay_in_a_csv(value: object) -> None:
    assert inert(value) is value


def test_the_csv_of_a_report_runs_nothing_and_keeps_its_numbers() -> None:
    study = optuna.create_study(direction="maximize")
    space = {"x": optuna.distributions.CategoricalDistribution(["=cmd|'x'!A0", "b"])}
    for number, value in enumerate(["=cmd|'x'!A0", "b"]):
        facts = {"point": number, "outcome": "complete", "n_params": 203068 + number}
        made = create_trial(params={"x": value}, distributions=space, value=-0.5, user_attrs=facts)
        assert made.state is TrialState.COMPLETE
        study.add_trial(made)
    rows = list(csv.DictReader(io.StringIO(board_csv(study, study.trials))))
    assert {row["x"] for row in rows} == {"'=cmd|'x'!A0", "b"}
    assert {row["n_params"] for row in rows} == {"203068", "203069"}
    assert {row["objective"] for row in rows} == {"-0.5"}
