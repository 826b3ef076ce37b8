"""Parameters that exist only when others have a value: declared in YAML, absent elsewhere, each point counted once."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from besom.errors import SpaceError
from besom.search.numbering import MOST_STATES
from besom.search.space import Space, parse

pytestmark = [
    # where the official plugin is installed too, Hydra 1.4 says that both have a config of this name
    pytest.mark.filterwarnings("ignore:ConfigStore config .* is already registered"),
    pytest.mark.filterwarnings("ignore:The version_base parameter is deprecated"),  # but Hydra 1.3 wants it
]

DEPTH = """
model.depth: range(1,4)
model.conv.1.filters: {when: {model.depth: [2, 3]}, sweep: "choice(4,8)"}
model.conv.2.filters: {when: {model.depth: 3}, sweep: "choice(4,8)"}
model.activation: relu,tanh
"""


def space_of(yaml: str, *overrides: str) -> Space:
    return parse(OmegaConf.to_container(OmegaConf.create(yaml)), overrides)[0]


def rows(space: Space) -> list[tuple[Any, ...]]:
    return [tuple(point.values()) for point in space.points()]


# What a declaration means


def test_a_parameter_exists_only_where_its_condition_holds() -> None:
    space = space_of(DEPTH)
    assert list(space.params) == ["model.depth", "model.conv.1.filters", "model.conv.2.filters", "model.activation"]
    assert space.conditions == {
        "model.conv.1.filters": {"model.depth": (2, 3)},
        "model.conv.2.filters": {"model.depth": (3,)},
    }
    assert space.is_conditional
    assert space.size == 2 + 4 + 8
    assert rows(space)[:5] == [(1, "relu"), (1, "tanh"), (2, 4, "relu"), (2, 4, "tanh"), (2, 8, "relu")]
    assert space.overrides(space.point(0)) == ["model.depth=1", "model.activation=relu"]
    assert space.overrides(space.point(13)) == [
        "model.depth=3", "model.conv.1.filters=8", "model.conv.2.filters=8", "model.activation=tanh",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("yaml", "expected"),
    [
        ("{a: '1,2', b: {when: {a: 1}, sweep: 5}}", [(1, 5), (2,)]),
        ("{a: '1,2', b: {when: {a: 1}, sweep: relu}}", [(1, "relu"), (2,)]),
        ("{a: '1,2', b: {when: {a: 1}, sweep: null}}", [(1, None), (2,)]),
        ("{a: '1,2', b: {when: {a: 1}, sweep: '[1,2]'}}", [(1, "[1,2]"), (2,)]),
        ("{a: '1,2', b: {when: {a: 1.0}, sweep: 'range(0,2)'}}", [(1, 0), (1, 1), (2,)]),
        ("{a: '1,2', b: {when: {a: 2}, sweep: '1,2'}, c: {when: {b: 2}, sweep: 9}}", [(1,), (2, 1), (2, 2, 9)]),
        ("{a: '1,2', b: 'x,y', c: {when: {a: 2, b: y}, sweep: 9}}", [(1, "x"), (1, "y"), (2, "x"), (2, "y", 9)]),
        ("{a: '1,2', b: {when: {a: 1}, sweep: 'x,y'}, c: {when: {b: [x, y]}, sweep: 9}}",
         [(1, "x", 9), (1, "y", 9), (2,)]),
        ("{a: 'null,x', b: {when: {a: null}, sweep: 9}}", [(None, 9), ("x",)]),
        ("{a: 'true,1', b: {when: {a: true}, sweep: 9}}", [("true", 9), ("1",)]),
        ("{a: 'true,1', b: {when: {a: 1}, sweep: 9}}", [("true",), ("1", 9)]),
        ("{a: '[1,2],[3]', b: {when: {a: [[3]]}, sweep: 9}}", [("[1,2]",), ("[3]", 9)]),
        ("{a: \"'1',2\", b: {when: {a: '1'}, sweep: 9}}", [("1", 9), (2,)]),
        ("{a: 'range(0,0.3,0.1)', b: {when: {a: 0.2}, sweep: 9}}", [(0.0,), (0.1,), (0.2, 9)]),
        ("{+a: '1,2', b: {when: {a: 1}, sweep: 9}}", [(1, 9), (2,)]),
        ("{a: '1,2', b: {when: {+a: 1}, sweep: 9}}", [(1, 9), (2,)]),
    ],
)  # fmt: skip
def test_a_condition_is_met_by_any_of_its_values_and_by_all_of_its_keys(yaml: str, expected: list[Any]) -> None:
    space = space_of(yaml)
    assert rows(space) == expected
    assert space.is_conditional


def test_a_condition_that_always_holds_is_none() -> None:
    space = space_of("{a: '1,2', b: {when: {a: [2, 1]}, sweep: 'x,y'}}")
    assert not space.is_conditional
    assert space == space_of("{a: '1,2', b: 'x,y'}")


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("{depth: '1,2', b: {when: {dept: 1}, sweep: 9}}",
         r"hydra.sweeper.params.b.when: the parameter='dept' is not known; .* did you mean 'depth'"),
        ("{b: {when: {a: 1}, sweep: 9}, a: '1,2'}", "b.when: a is declared after b; expected it before, move it up"),
        ("{a: {when: {b: 1}, sweep: '1,2'}, b: {when: {a: 1}, sweep: '1,2'}}",
         "a.when: a depends on b depends on a; expected no circle"),
        ("{a: {when: {c: 1}, sweep: '1,2'}, b: {when: {a: 1}, sweep: '1,2'}, c: {when: {b: 1}, sweep: '1,2'}}",
         "a depends on c depends on b depends on a; expected no circle"),
        ("{a: {when: {a: 1}, sweep: '1,2'}}", "a depends on a; expected no circle"),
        ("{a: 3, b: {when: {a: 3}, sweep: '1,2'}}",
         r"b.when: a is fixed to 3; expected a parameter with several values, such as a: choice"),
        ("{a: 'interval(0,1)', b: {when: {a: 1}, sweep: 9}}",
         r"b.when: a has infinitely many values; expected choice\(a,b\) or a range of at most 1000"),
        ("{a: 'range(2000)', b: {when: {a: 1}, sweep: 9}}", "b.when: a has 2000 values; expected choice"),
        ("{a: '1,2', b: {when: {a: 3}, sweep: 9}}", "b.when: a=3 is outside the search space; expected one of 1, 2"),
        ("{a: '1,2', b: {when: {a: '1'}, sweep: 9}}", "b.when: a='1' is outside"),
        ("{a: '1,2', b: {when: {a: [1, true]}, sweep: 9}}", "b.when: a=True is outside"),
        ("{a: '1,2', b: {when: {a: {c: 1}}, sweep: 9}}", "b.when: a={'c': 1} is outside"),
        ("{a: 'range(1,5)', b: {when: {a: 7}, sweep: 9}}", "expected an integer from 1 to 4"),
        ("{a: '[1,2],[3]', b: {when: {a: [3]}, sweep: 9}}", r"a=3 is outside the search space; expected one of"),
        ("{a: '1,2', b: {when: {a: []}, sweep: 9}}", "b.when: a has no values; expected at least one"),
        ("{a: '1,2', b: {when: {}, sweep: 9}}", r"b.when={} is no condition; expected {key: value}"),
        ("{a: '1,2', b: {when: a, sweep: 9}}", "b.when='a' is no condition; expected {key: value}"),
        ("{a: '1,2', b: {when: {a: 1}}}", "b has no sweep; expected {when: {key: value}, sweep: choice"),
        ("{a: '1,2', b: {sweep: '1,2'}}", "b has no when; expected {when"),
        ("{a: '1,2', b: {when: {a: 1}, swep: 9}}", "params.b: the key='swep' is not known; .*did you mean 'sweep'"),
        ("{a: '1,2', b: {when: {a: 1}, sweep: [1, 2]}}", r"params.b is a list; expected 'choice\(1,2\)'"),
        ("{a: '1,2', b: {when: {a: 1}, sweep: 'choice('}}", "cannot search over b="),
        ("{a: '1,2', b: {c: '1,2'}}", "params.b is a dict; expected one dotted key, such as 'b.name: …', or the keys"),
        ("{a: '1,2', b: {when: {a: 1}, sweep: 'x,y'}, c: {when: {a: 2, b: x}, sweep: 9}}",
         "c.when can never hold: its conditions and those of its parents want different values of a"),
    ],
)  # fmt: skip
def test_a_condition_that_is_a_mistake_is_refused_in_one_line(yaml: str, message: str) -> None:
    with pytest.raises(SpaceError, match=message) as caught:
        space_of(yaml)
    assert "\n" not in str(caught.value)


# What the command line does to it


@pytest.mark.parametrize(
    ("overrides", "params", "conditions", "fixed"),
    [
        (["b=7,8"], {"a": [1, 2, 3], "b": [7, 8], "c": [9, 10]}, {"c": {"b": (8,)}}, []),
        (["b=8"], {"a": [1, 2, 3], "c": [9, 10]}, {}, ["b=8"]),
        (["b=7"], {"a": [1, 2, 3]}, {}, ["b=7"]),
        (["++b=8"], {"a": [1, 2, 3], "c": [9, 10]}, {}, ["++b=8"]),
        (["a=1"], {}, {}, ["a=1"]),
        (["a=3"], {"b": [6, 8], "c": [9, 10]}, {"c": {"b": (8,)}}, ["a=3"]),
        (["a=3.0"], {"b": [6, 8], "c": [9, 10]}, {"c": {"b": (8,)}}, ["a=3.0"]),
        (["a='3'"], {}, {}, ["a='3'"]),
        (["a=1,2"], {"a": [1, 2], "b": [6, 8], "c": [9, 10]}, {"b": {"a": (2,)}, "c": {"b": (8,)}}, []),
        (["a=2,3"], {"a": [2, 3], "b": [6, 8], "c": [9, 10]}, {"c": {"b": (8,)}}, []),
        (["a=1,4"], {"a": [1, 4]}, {}, []),
        (["c=5,6"], {"a": [1, 2, 3], "b": [6, 8], "c": [5, 6]}, {"b": {"a": (2, 3)}}, []),
    ],
)
def test_the_command_line_replaces_a_condition_or_decides_it(
    overrides: list[str], params: dict[str, Any], conditions: dict[str, Any], fixed: list[str]
) -> None:
    declared = {
        "a": "1,2,3",
        "b": {"when": {"a": [2, 3]}, "sweep": "6,8"},
        "c": {"when": {"b": 8}, "sweep": "9,10"},
    }
    space, found = parse(declared, overrides, may_be_empty=True)
    assert {name: list(distribution.choices) for name, distribution in space.params.items()} == params  # type: ignore[attr-defined]
    assert space.conditions == conditions
    assert found == fixed


@pytest.mark.parametrize(
    ("override", "left"), [("a=1,3", ["a", "b"]), ("a=1,2", ["a", "b", "c"]), ("a=3", []), ("a=2", ["b", "c"])]
)
def test_a_parameter_that_the_command_line_makes_impossible_is_dropped(override: str, left: list[str]) -> None:
    yaml = "{a: '1,2,3', b: {when: {a: [1, 2]}, sweep: 'x,y'}, c: {when: {a: [2, 3], b: x}, sweep: 9}, d: '1,2'}"
    assert list(space_of(yaml, override).params) == [*left, "d"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("a=${other}", r"b.when: a=\$\{other\} is not known before the trial; expected a plain value"),
        ("a=interval(0,1)", "b.when: a has infinitely many values"),
    ],
)
def test_a_parent_that_the_command_line_makes_unknowable_is_refused(override: str, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        space_of("{a: '1,2', b: {when: {a: 1}, sweep: 'x,y'}}", override)


# Points

VALUES = [
    ("choice(1,2)", [1, 2]),
    ("choice(a,b,c)", ["a", "b", "c"]),
    ("range(3)", [0, 1, 2]),
    ("true,1", ["true", "1"]),
    ("range(0,0.15,0.1)", [0.0, 0.1]),
    ("choice(5)", [5]),
]
"""A parameter's text, and the values of its points."""

Declared = dict[str, tuple[str, list[Any], dict[str, list[Any]]]]


@st.composite
def declarations(draw: st.DrawFn) -> Declared:
    """Some parameters, each with the parents' values on which it exists."""
    declared: Declared = {}
    for i in range(draw(st.integers(1, 5))):
        text, values = draw(st.sampled_from(VALUES))
        parents = draw(st.lists(st.sampled_from(sorted(declared)), max_size=2, unique=True)) if declared else []
        allowed = {
            parent: draw(st.lists(st.sampled_from(declared[parent][1]), min_size=1, unique_by=repr))
            for parent in parents
        }
        declared[f"p{i}"] = (text, values, allowed)
    return declared


def brute_force(declared: Declared) -> list[dict[str, Any]]:
    """Every point, in row-major order: all combinations, less the values of parameters that do not exist there."""
    found: dict[str, dict[str, Any]] = {}
    for combination in itertools.product(*(values for _, values, _ in declared.values())):
        point: dict[str, Any] = {}
        for (name, (_, _, allowed)), value in zip(declared.items(), combination, strict=True):
            if all(parent in point and point[parent] in wanted for parent, wanted in allowed.items()):
                point[name] = value
        found[repr(point)] = point
    return list(found.values())


def written(declared: Declared) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        return {"true": True, "1": 1}.get(value, value)

    return {
        name: {"when": {p: [plain(v) for v in wanted] for p, wanted in allowed.items()}, "sweep": text}
        if allowed
        else text
        for name, (text, _, allowed) in declared.items()
    }


def space_or_none(declared: Declared) -> Space | None:
    try:
        return parse(written(declared))[0]
    except SpaceError as error:
        assert "can never hold" in str(error)  # noqa: PT017  # drawn at random, some contradict themselves
        return None


@settings(max_examples=200, deadline=None)
@given(declared=declarations())
def test_every_distinct_point_is_counted_once_in_row_major_order(declared: Declared) -> None:
    space = space_or_none(declared)
    expected = brute_force(declared)
    if space is None:
        never = [name for name in declared if not any(name in point for point in expected)]
        assert never
        return
    assert space.size == len(expected)
    assert list(space.points()) == expected
    assert [list(point) for point in space.points()] == [list(point) for point in expected]
    assert [space.key(point) for point in expected] == [str(index) for index in range(len(expected))]


@settings(max_examples=100, deadline=None)
@given(declared=declarations(), seed=st.integers(0, 2**32 - 1))
def test_a_point_holds_its_active_parameters_only(declared: Declared, seed: int) -> None:
    space = space_or_none(declared)
    if space is None:
        return
    rng = np.random.default_rng(seed)
    ghost = {name: values[rng.integers(len(values))] for name, (_, values, _) in declared.items()}
    point = space.snapped(ghost)
    assert space.point(int(space.key(ghost))) == point
    assert list(point) == [name for name in space.params if space.is_active(name, point)]
    assert [text.split("=")[0] for text in space.overrides(ghost)] == list(point)
    assert space.encode(space.decode(point)) == point


@settings(max_examples=50, deadline=None)
@given(declared=declarations(), seed=st.integers(0, 2**32 - 1))
def test_unseen_points_exhaust_the_space(declared: Declared, seed: int) -> None:
    space = space_or_none(declared)
    if space is None:
        return
    rng, seen = np.random.default_rng(seed), set[str]()
    for drawn in range(space.size or 0):
        point = space.unseen(seen, rng) if drawn % 2 else space.first_unseen(seen)
        assert space.key(point) not in seen
        seen.add(space.key(point))
    with pytest.raises(SpaceError, match=f"all {space.size} points of the search space were tried"):
        space.first_unseen(seen)


def test_the_key_of_an_infinite_space_tells_who_is_present() -> None:
    space = space_of("{a: '1,2', b: {when: {a: 1}, sweep: 'interval(0,1)'}, c: 'x,y'}")
    assert space.size is None
    assert space.key({"a": 1, "b": 0.5, "c": "x"}) == "a=1 b=0.5 c=x"
    assert space.key({"a": 2, "c": "x"}) == space.key({"a": 2, "b": 0.5, "c": "x"}) == "a=2 c=x"
    with pytest.raises(SpaceError, match="the search space is infinite because of b; expected choice"):
        space.point(0)


@pytest.mark.parametrize("lr", ["0.1,0.2", "interval(0,1)"])
def test_a_point_without_a_value_that_it_needs_is_refused(lr: str) -> None:
    space = parse({"a": "1,2", "b": {"when": {"a": 1}, "sweep": "x,y"}, "lr": lr})[0]
    with pytest.raises(SpaceError, match="the point has no value for b"):
        space.key({"a": 1, "lr": 0.1})
    with pytest.raises(SpaceError, match="the point has no value for a"):
        space.overrides({"b": "x", "lr": 0.1})
    with pytest.raises(SpaceError, match="a=3 is outside the search space; expected one of 1, 2"):
        space.key({"a": 3, "lr": 0.1})


def test_a_named_point_may_not_have_a_value_that_does_not_exist_there() -> None:
    space = space_of(DEPTH)
    assert space.encode({"model.conv.2.filters": 4}) == {"model.conv.2.filters": 4}
    assert space.encode({"model.depth": 3.0, "model.conv.2.filters": 4}) == {
        "model.depth": 3,
        "model.conv.2.filters": 4,
    }
    message = "model.conv.1.filters does not exist there, it needs model.depth=2 or 3; expected no value for it"
    with pytest.raises(SpaceError, match=message):
        space.encode({"model.depth": 1, "model.conv.1.filters": 4})


@pytest.mark.timeout(20)
def test_a_conditional_space_of_more_points_than_a_machine_word_is_numbered() -> None:
    params: dict[str, Any] = {"depth": "range(1,51)"}
    for layer in range(1, 51):
        params[f"f{layer}"] = (
            {"when": {"depth": list(range(layer, 51))}, "sweep": "choice(4,8,16,32)"} if layer > 1 else "1,2"
        )
    space = parse(params)[0]
    assert space.size == 2 * sum(4**depth for depth in range(50))
    point = space.unseen({"0"}, np.random.default_rng(0))
    assert space.point(int(space.key(point))) == point
    assert len(point) == 1 + point["depth"]


def test_parents_that_wait_too_long_are_refused() -> None:
    params: dict[str, Any] = {f"flag{i}": "false,true" for i in range(13)}
    apart = params | {f"x{i}": {"when": {f"flag{i}": True}, "sweep": "1,2"} for i in range(13)}
    with pytest.raises(SpaceError, match=f"more than {MOST_STATES} combinations of parents; expected each conditional"):
        parse(apart)
    together = {key: apart[key] for i in range(13) for key in (f"flag{i}", f"x{i}")}
    assert parse(together)[0].size == 3**13


# Studies


@pytest.mark.parametrize("sampler", [optuna.samplers.RandomSampler, optuna.samplers.TPESampler])
def test_a_trial_suggests_active_parameters_only(sampler: Any) -> None:
    space = space_of(
        DEPTH + "lr: {when: {model.activation: tanh}, sweep: 'tag(log,interval(1e-4,1e-1))'}\nstep: 'range(0,0.5,0.1)'"
    )
    study = optuna.create_study(sampler=sampler(seed=0))
    for _ in range(30):
        trial = study.ask()
        point = space.suggest(trial)
        study.tell(trial, len(point))
        assert list(point) == list(trial.params) == [name for name in space.params if space.is_active(name, point)]
        assert point == space.snapped(trial.params)
        assert point["step"] in {0.0, 0.1, 0.2, 0.3, 0.4}
    kinds = {name: type(distribution) for trial in study.trials for name, distribution in trial.distributions.items()}
    assert kinds == {
        "model.depth": IntDistribution, "model.conv.1.filters": CategoricalDistribution,
        "model.conv.2.filters": CategoricalDistribution, "model.activation": CategoricalDistribution,
        "lr": FloatDistribution, "step": FloatDistribution,
    }  # fmt: skip


def test_hydra_composes_a_setting_only_where_it_exists(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("optimizer: sgd\n")
    space = space_of("{optimizer: 'sgd,adam', +momentum: {when: {optimizer: sgd}, sweep: '0.0,0.9'}}")

    def composed(point: Mapping[str, Any]) -> Any:
        with initialize_config_dir(str(tmp_path), version_base="1.3"):
            return compose("config", overrides=space.overrides(point))

    assert [composed(point) for point in space.points()] == [
        {"optimizer": "sgd", "momentum": 0.0}, {"optimizer": "sgd", "momentum": 0.9}, {"optimizer": "adam"},
    ]  # fmt: skip
