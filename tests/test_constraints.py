"""Declared limits, as tables: which hold, which break and how they say so, which cannot be read."""

from __future__ import annotations

import pytest

from besom.errors import ConfigError
from besom.search.constraints import parse_constraints

MEASURES = {"n_params": 203068, "n_macs": 1_400_000.0, "fraction": 0.25, "zero": 0}


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("n_params <= 203068", None),
        ("n_params < 203068", "n_params < 203068 broken: n_params is 203068"),
        ("n_params <= 200000", "n_params <= 200000 broken: n_params is 203068"),
        ("  n_macs<1e6 ", "n_macs<1e6 broken: n_macs is 1400000"),
        ("n_macs >= 1_000_000", None),
        ("200000 > n_params", "200000 > n_params broken: n_params is 203068"),
        ("fraction > 1 / 2", "fraction > 1 / 2 broken: fraction is 0.25"),
        (
            "n_macs / n_params <= 2 * (1 + 2)",
            "n_macs / n_params <= 2 * (1 + 2) broken: n_macs is 1400000, n_params is 203068",
        ),
        ("n_macs - n_params - n_params >= -n_params", None),
        ("+fraction + -1 < 0", None),
        ("zero <= 0", None),
    ],
)
def test_a_limit_holds_or_says_how_it_is_broken(text: str, broken: str | None) -> None:
    (limit,) = parse_constraints([text])
    assert limit.broken_by(MEASURES) == broken


@pytest.mark.parametrize("text", ["n_params <= 1", "n_params >= 1", "n_params < 1", "n_params > 1"])
def test_no_limit_holds_for_what_is_not_a_number(text: str) -> None:
    (limit,) = parse_constraints([text])
    assert limit.broken_by({"n_params": float("nan")}) == f"{text} broken: n_params is nan"


def test_a_limit_knows_the_measures_that_it_needs() -> None:
    assert [limit.names for limit in parse_constraints(["b / a < b", "c > 0"])] == [("b", "a"), ("c",)]
    assert parse_constraints([]) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("n_params", "it compares nothing"),
        ("n_params + 1", "it compares nothing"),
        ("n_params == 3", "only <, <=, > and >= can be decided"),
        ("n_params != 3", "only <, <=, > and >= can be decided"),
        ("n_params in 3", "only <, <=, > and >= can be decided"),
        ("1 < n_params < 3", "it compares more than once, write two constraints"),
        ("n_params <", "it is not an expression"),
        ("n_params = 3", "it is not an expression"),
        ("", "it is not an expression"),
        ("n_params < 3; n_macs < 2", "it is not an expression"),
        ("1 < 2", "it names no measure"),
        ("n_params < 2 ** 9", r"'2 \*\* 9' is not arithmetic"),
        ("n_params % 2 < 1", r"'n_params % 2' is not arithmetic"),
        ("not n_params < 1", "it compares nothing"),
        ("n_params < True", "'True' is not arithmetic"),
        ("n_params < '3'", "''3'' is not arithmetic"),
        ("n_params < 3j", "'3j' is not arithmetic"),
        ("abs(n_params) < 3", r"'abs\(n_params\)' is not arithmetic"),
        ("__import__('os').system('true') < 3", "is not arithmetic"),
        ("model.filters < 3", "'model.filters' is not arithmetic"),
        ("n_params[0] < 3", r"'n_params\[0\]' is not arithmetic"),
        ("(lambda: 1) < n_params", "is not arithmetic"),
        ("~n_params < 3", "'~n_params' is not arithmetic"),
        (3, "it is of type int, not text"),
    ],
)
def test_a_limit_that_cannot_be_read_is_refused_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"cannot read the constraint .*: .*{reason}.*; expected names and numbers"
    ) as caught:
        parse_constraints(["n_params < 9", text])
    assert "\n" not in str(caught.value)


def test_a_measure_that_does_not_exist_is_named_with_its_near_miss() -> None:
    (limit,) = parse_constraints(["n_parms <= 200000"])
    with pytest.raises(ConfigError, match=r"uses n_parms, which is not measured; .*did you mean 'n_params'"):
        limit.broken_by(MEASURES)


def test_a_division_by_zero_is_refused_with_its_measures() -> None:
    (limit,) = parse_constraints(["n_params / zero < 1"])
    with pytest.raises(ConfigError, match=r"cannot be computed \(division by zero\); n_params is 203068, zero is 0"):
        limit.broken_by(MEASURES)
