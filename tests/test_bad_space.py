"""Whatever somebody writes as a search space: a space every point of which Hydra reads, or one line of text.

Never a traceback, never a hang, however long, deep or odd the text is.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hostile import examples, told
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from besom.configs import overrides
from besom.errors import BesomError, ConfigError, SpaceError, UserError
from besom.hydra_conf import BesomSweeperConf
from besom.options import PRUNERS, SAMPLERS
from besom.search.constraints import parse_constraints
from besom.search.grammar import value_of
from besom.search.space import Space, parse
from besom.sweep.settings import check_search, read

PARSER = OverridesParser.create()

VALID = (
    "choice(relu,tanh)",
    "relu,tanh,null",
    "range(1,9)",
    "range(1,9,2)",
    "range(0.0,1.0,0.1)",
    "interval(0,1)",
    "int(interval(1,64))",
    "tag(log,interval(1e-5,1e-1))",
    "tag(log,int(interval(1,64)))",
    "choice([1,2],[3])",
    "choice({a:1},{b:'x y'})",
    "shuffle(range(1,5))",
    "sort(3,1,2)",
    "choice('a,b',\"c\")",
    "glob(*)",
    "3",
    "[1,2]",
    "${oc.env:HOME}",
    "choice(1,1.0,true,'1')",
    "tag(a,b,choice(1))",
    "float(range(1,3))",
    "extend_list(1,2)",
)
PIECES = (
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "=",
    "'",
    '"',
    "\\",
    "$",
    "${",
    "}",
    " ",
    "\t",
    "\n",
    "\r",
    "\0",
    "\x1b[31m",
    "\x85",
    "\u2028",
    "\u202e",
    "\ufeff",
    "\ud800",
    "-",
    "+",
    "~",
    ".",
    "..",
    "0",
    "-1",
    "1e400",
    "nan",
    "inf",
    "-inf",
    "null",
    "???",
    "é",
    "한",
    "🧹",
    "9" * 30,
    "choice(",
    "range(",
    "interval(",
    "tag(log,",
    "int(",
    "glob(",
    "@",
    "%",
    "#",
)


@st.composite
def near_misses(draw: st.DrawFn) -> str:
    """A valid sweep of which a few pieces are cut out, doubled, or replaced by what means something to the grammar."""
    text = draw(st.sampled_from(VALID))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 4)))
        text = text[:start] + draw(st.sampled_from(PIECES) | st.just(text[start:end] * 2)) + text[end:]
    return text


def check_points(space: Space) -> None:
    """Check that the first and the last point are what Hydra makes of their overrides."""
    last = (space.size or 1) - 1
    points = [space.point(0), space.point(last)] if space.size else [{n: a.at(0) for n, a in space._axes.items()}]
    for point in points:
        space.key(point)
        for text in space.overrides(point):
            override = PARSER.parse_override(text)
            assert not override.is_sweep_override()
            name = override.get_key_element()
            value = value_of(point[name]) if name in space.encoded else point[name]
            assert repr(override.value()) == repr(value) or override.value() == value


def space_or_line(params: dict[str, Any], arguments: list[str], *words: str) -> None:
    try:
        space, fixed = parse(params, arguments, may_be_empty=True)
    except UserError as error:
        told(error, *words)
    else:
        check_points(space)
        assert all(isinstance(text, str) for text in fixed)


@examples(250)
@given(near_misses())
def test_a_near_miss_in_a_sweep_file_is_a_space_or_one_line_with_its_key(text: str) -> None:
    space_or_line({"model.a": text}, [], "model.a")


@examples(150)
@given(st.text(max_size=40) | near_misses())
def test_any_override_of_the_command_line_is_a_space_or_one_line(text: str) -> None:
    space_or_line({}, [text])
    space_or_line({}, [f"x={text}"])


@examples(100)
@given(st.dictionaries(st.text(max_size=8), st.none() | st.booleans() | st.floats() | st.text(max_size=8), max_size=3))
def test_any_mapping_of_params_is_a_space_or_one_line(params: dict[str, Any]) -> None:
    space_or_line(params, [])


def nested(opened: str, closed: str, n: int = 10_000) -> str:
    return opened * n + "1" + closed * n


REFUSED = {
    "more points than a float has digits": ("range(0,1000000000000000000000000000000)", "beyond 2**53"),
    "an end beyond floats": ("interval(0,1e400)", "inf is not a finite number"),
    "nan as an end": ("interval(nan,1)", "nan is not a finite number"),
    "infinite": ("interval(0,inf)", "inf is not a finite number"),
    "a reversed interval": ("interval(3,1)", "low"),
    "a reversed range": ("range(5,1)", "the range is empty"),
    "a step of zero": ("range(1,5,0)", "the step is 0"),
    "a step the wrong way": ("range(1,5,-1)", "the range is empty"),
    "the logarithm of 0": ("tag(log,interval(0,1))", "low"),
    "the logarithm of 0 as a whole number": ("tag(log,int(interval(0,5)))", "low"),
    "the logarithm of a negative": ("tag(log,interval(-1,1))", "low"),
    "more steps than one can count": ("range(0.5,1,1e-300)", "more than 1000000 steps"),
    "an unknown tag": ("tag(lgo,interval(1,2))", "did you mean 'log'?"),
    "an open bracket": ("choice(1,2", "cannot search over x="),
    "a bracket too many": ("choice(1,2))", "cannot search over x="),
    "nothing between commas": ("1,,2", "cannot search over x="),
    "a sweep in a list": ("[choice(1,2)]", "cannot search over x="),
    "a NUL": ("choice(a\0,b)", "it has a NUL character in it"),
    # each of these ended in a traceback, or after many seconds, before 0.8
    "a number of 5,000 digits": ("9" * 5000, "cannot search over x="),
    "a range to a number of 5,000 digits": (f"range(1,{'9' * 5000})", "cannot search over x="),
    "a choice of a number of 5,000 digits": (f"choice({'9' * 5000},1)", "cannot search over x="),
    "lists ten thousand deep": (nested("[", "]"), "nested more than 30 deep"),
    "lists that never end": ("[" * 10_000, "nested more than 30 deep"),
    "choices ten thousand deep": (nested("choice(", ")"), "nested more than 30 deep"),
    "dicts ten thousand deep": (nested("{a:", "}"), "nested more than 30 deep"),
    "casts ten thousand deep": (nested("int(", ")"), "nested more than 30 deep"),
    "interpolations that never end": ("${" * 10_000, "nested more than 30 deep"),
    "a megabyte": (f"choice({'a' * 1_000_000},b)", "it has 1,000,0"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_searched_is_refused_with_what_was_received(what: str) -> None:
    text, reason = REFUSED[what]
    for params, arguments in (({"x": text}, []), ({}, [f"x={text}"])):
        with pytest.raises(SpaceError, match="cannot search over x=") as refused:
            parse(params, arguments, may_be_empty=True)
        assert len(told(refused.value, reason)) < 1000


@pytest.mark.parametrize("text", [f"x={nested('[', ']')}", f"x={'9' * 5000}", "x=" + "a" * 1_000_000, "x=a\0", "["])
def test_an_override_that_is_none_is_named_in_one_short_line(text: str) -> None:
    with pytest.raises(ConfigError, match="is no override: ") as refused:
        overrides.parsed(text)
    assert len(told(refused.value, text[:20].replace("\0", "\\x00"))) < 1000


def test_twenty_brackets_in_each_other_are_read_by_hydra_too() -> None:
    space, _ = parse({"x": f"choice({nested('[', ']', 20)},{nested('{a:', '}', 20)})"})
    check_points(space)


SETTINGS = (
    "n_trials",
    "n_jobs",
    "direction",
    "study_name",
    "storage",
    "custom_search_space",
    "enqueue",
    "constraints",
    "history",
    "max_failure_rate",
    "fail_fast",
    "retries",
    "timeout",
    "trial_timeout",
    "target_value",
    "patience",
    "freeze",
    "sampler",
    "pruner",
    "params",
)
ODD = (
    None,
    True,
    False,
    0,
    -1,
    1,
    10**30,
    -0.5,
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
    "",
    "abc",
    "1",
    "../x",
    "a\0b",
    "x" * 5000,
    "${oc.env:HOME}",
    "maximize",
    [],
    {},
    [1],
    ["maximize"],
    ["a<1"],
    [{"x": 1}],
    [{"x": 9}],
    {"x": 1},
    {"_target_": "os.system"},
    {"_target_": ""},
    {"_target_": 7},
    {1: 2},
    {"seed": -1},
    {"seed": "a"},
    {"seed": 1.5},
    [[]],
)


def sweeper(**changed: Any) -> dict[str, Any]:
    whole = {**vars(BesomSweeperConf()), "sampler": SAMPLERS["random"], "pruner": PRUNERS["none"]}
    return {**whole, "params": {"x": "choice(1,2)"}, **changed}


@pytest.mark.parametrize("field", SETTINGS)
def test_any_value_of_a_setting_is_taken_or_refused_in_one_line(field: str) -> None:
    schema = OmegaConf.structured(BesomSweeperConf)
    for value in ODD:
        try:
            typed = OmegaConf.merge(schema, sweeper(**{field: value}))
        except Exception:  # Hydra's own types refuse it; besom's command puts that into a line, see test_bad_command
            continue
        try:
            check_search(read({key: typed[key] for key in vars(BesomSweeperConf())}, []))
        except BesomError as error:
            told(error)
        except OmegaConfBaseException:  # likewise: an interpolation is resolved here
            continue


WRONG = {
    "params as a number": ({"params": 7}, "hydra.sweeper.params=7 is no mapping"),
    "params as a list": ({"params": [1]}, r"hydra.sweeper.params=\[1\] is no mapping"),
    "a number as a key": ({"params": {1: "choice(1,2)"}}, "is no mapping of keys to sweeps"),
    "points as numbers": ({"enqueue": [1]}, r"hydra.sweeper.enqueue\[0\]=1 is no point; expected a mapping"),
    "a number as a sampler": ({"sampler": 7}, "hydra.sweeper.sampler=7 is no config of one"),
    "a word as a pruner": ({"pruner": "median"}, "hydra.sweeper.pruner='median' is no config of one"),
    "a word as a seed": ({"sampler": {**SAMPLERS["random"], "seed": "a"}}, "seed='a' is no whole number"),
    "half a seed": ({"sampler": {**SAMPLERS["random"], "seed": 1.5}}, "seed=1.5 is no whole number"),
    "no time at all": ({"timeout": float("nan")}, "hydra.sweeper.timeout=nan is not finite"),
    "for ever": ({"trial_timeout": float("inf")}, "hydra.sweeper.trial_timeout=inf is not finite"),
    "an aim that is none": ({"target_value": float("nan")}, "hydra.sweeper.target_value=nan is not finite"),
}


@pytest.mark.parametrize(("changed", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_setting_of_another_type_is_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        check_search(read(sweeper(**changed), []))
    told(refused.value)


@examples(100)
@given(st.text("nabx_ <>=+-*/().0123456789'[]\n", max_size=30) | st.text(max_size=10) | st.integers() | st.none())
def test_any_constraint_is_read_or_refused_in_one_line(text: Any) -> None:
    try:
        [constraint] = parse_constraints([text])
    except ConfigError as error:
        told(error)
        return
    with suppress(ConfigError):  # it divides by zero
        constraint.broken_by(dict.fromkeys(constraint.names, 1.0))


@pytest.mark.parametrize(
    "text",
    [
        "(" * 10_000 + "a",
        "-" * 10_000 + "a<1",
        "a<" + "9" * 5000,
        "a" * 1_000_000,
        "+".join("a" * 5000) + "<1",
        "a<1\0",
    ],
)
def test_a_constraint_that_python_cannot_read_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="cannot read the constraint") as refused:
        parse_constraints([text])
    told(refused.value)
