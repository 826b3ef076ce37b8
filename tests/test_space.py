"""The search space: what each text means, that values survive the way to Hydra and back, and which points are left."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import same
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from besom.errors import SpaceError
from besom.search.grammar import override_text
from besom.search.space import Space, parse

PARSER = OverridesParser.create()

pytestmark = [
    # where the official plugin is installed too, Hydra 1.4 says that both have a config of this name
    pytest.mark.filterwarnings("ignore:ConfigStore config .* is already registered"),
    pytest.mark.filterwarnings("ignore:The version_base parameter is deprecated"),  # but Hydra 1.3 wants it
]


def space_of(**params: Any) -> Space:
    return parse(params)[0]


def read_back(space: Space, point: Mapping[str, Any]) -> list[Any]:
    return [PARSER.parse_override(text).value() for text in space.overrides(point)]


# What each text means


@pytest.mark.parametrize(
    ("text", "distribution"),
    [
        ("choice(3,8,16)", CategoricalDistribution([3, 8, 16])),
        ("3,8,16", CategoricalDistribution([3, 8, 16])),
        ("swish, relu", CategoricalDistribution(["swish", "relu"])),
        ("'1',2", CategoricalDistribution(["1", 2])),
        ("choice('a,b', 'x=1', '')", CategoricalDistribution(["a,b", "x=1", ""])),
        ("null,2", CategoricalDistribution([None, 2])),
        ("true,false", CategoricalDistribution([True, False])),
        ("choice(3)", CategoricalDistribution([3])),
        ("choice(3,3,8)", CategoricalDistribution([3, 8])),
        ("choice(nan,1,nan)", CategoricalDistribution([math.nan, 1])),
        ("shuffle(1,2,3)", CategoricalDistribution([1, 2, 3])),
        ("sort(3,1,2)", CategoricalDistribution([1, 2, 3])),
        ("str(choice(1,2))", CategoricalDistribution(["1", "2"])),
        ("range(1,3)", IntDistribution(1, 2)),
        ("range(3)", IntDistribution(0, 2)),
        ("range(1,10,4)", IntDistribution(1, 9, step=4)),
        ("range(3,4,5)", IntDistribution(3, 3)),
        ("range(5,0,-1)", IntDistribution(1, 5)),
        ("range(5,0,-2)", IntDistribution(1, 5, step=2)),
        ("shuffle(range(1,4))", IntDistribution(1, 3)),
        ("tag(log,range(1,9))", IntDistribution(1, 8, log=True)),
        ("range(0,1,0.25)", FloatDistribution(0.0, 0.75, step=0.25)),
        ("range(1,0,-0.25)", FloatDistribution(0.25, 1.0, step=0.25)),
        ("range(1,4.5)", FloatDistribution(1.0, 4.0, step=1.0)),
        ("float(range(1,4))", FloatDistribution(1.0, 3.0, step=1.0)),
        ("int(range(1.0,4.0))", IntDistribution(1, 3)),
        ("interval(0.1,1)", FloatDistribution(0.1, 1.0)),
        ("interval(1,9)", FloatDistribution(1.0, 9.0)),
        ("interval(2,2)", FloatDistribution(2.0, 2.0)),
        ("int(interval(1,9))", IntDistribution(1, 9)),
        ("tag(int,interval(1,9))", IntDistribution(1, 9)),
        ("tag(log,interval(1e-4,1e-1))", FloatDistribution(1e-4, 1e-1, log=True)),
        ("tag(log,int(interval(1,64)))", IntDistribution(1, 64, log=True)),
        ("tag(int,log,interval(1,64))", IntDistribution(1, 64, log=True)),
    ],
)
def test_a_sweep_becomes_the_distribution_that_it_names(text: str, distribution: Any) -> None:
    assert space_of(x=text).params == {"x": distribution}


@pytest.mark.parametrize(
    ("text", "categories"),
    [
        ("choice(1,1.0,true)", ("1", "1.0", "true")),
        ("choice(0.0,-0.0)", ("0.0", "-0.0")),
        ("choice([1,2],[3])", ("[1,2]", "[3]")),
        ("choice([1,'2'],'[1,2]',a)", ("[1,'2']", "'[1,2]'", "a")),
        ("choice({a:1,b:[x]},{})", ("{a:1,b:[x]}", "{}")),
    ],
)
def test_categories_that_optuna_would_confuse_are_kept_as_override_text(text: str, categories: tuple[str, ...]) -> None:
    space = space_of(x=text)
    assert space.encoded == {"x"}
    assert space.params["x"] == CategoricalDistribution(categories)
    assert [space.overrides(point) for point in space.points()] == [[f"x={category}"] for category in categories]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("choice()", r"cannot search over x='choice\(\)': .*empty choice.*; expected choice\(a,b\)"),
        ("choice(a", r"cannot search over x='choice\(a': no viable alternative.*; expected choice\(a,b\)"),
        ("chioce(a,b)", r"x='chioce\(a,b\)': .*Unknown function 'chioce'"),
        ("choice(null,2)", r"expected choice\(a,b\), or a,b \(which also takes null\)"),
        ("range(3,3)", r"x='range\(3,3\)': the range is empty"),
        ("range(3,1)", "the range is empty"),
        ("range(1.5,0.5,0.1)", "the range is empty"),
        ("range(1,3,0)", "the step is 0"),
        ("range(0,1,1e-9)", r"more than 1000000 steps, use interval\(0,1\)"),
        ("range(0.1234567890123457,1900,0.1)", "too many digits"),
        ("tag(log,range(1,9,2))", "step is 1 when `log` argument is True"),
        ("tag(log,range(0.1,0.9,0.1))", "a range of floats cannot be log"),
        ("interval(1,0)", r"`low <= high` must hold, but got \(low=1.0, high=0.0\)"),
        ("interval(0,inf)", "inf is not a finite number"),
        ("tag(log,interval(0,1))", "`low > 0` must hold for `log=True`"),
        ("tag(log,int(interval(0,8)))", "`low >= 1` must hold for `log=True`"),
        ("int(interval(0,1e17))", "lose digits"),
        ("tag(lgo,interval(1,2))", "tag='lgo' is not known; expected one of log, int; did you mean 'log'"),
        ("tag(log,choice(1,2))", "a choice has no tags, but this has 'log'"),
        ("range(1,3),5", "a sweep inside a sweep"),
        ("[choice(1,2),3]", "a sweep inside a list or dict"),
        ("{a:choice(1,2)}", "a sweep inside a list or dict"),
        ("glob(*)", r"options of glob\(\) are not known here"),
        (["relu", "tanh"], r"params.x is a list; expected 'choice\(relu,tanh\)' to search"),
        ({"y": "choice(1,2)"}, r"params.x is a dict; expected one dotted key, such as 'x.name: …'"),
    ],
)
def test_a_sweep_that_cannot_be_searched_is_refused_in_one_line(text: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message) as caught:
        space_of(x=text, y="choice(1,2)")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("params", [{}, {"train.epochs": 3}])
def test_a_space_without_a_parameter_is_refused(params: dict[str, Any]) -> None:
    with pytest.raises(SpaceError, match=r"the search space is empty; expected hydra.sweeper.params"):
        parse(params, ["train.seed=1"])


def test_overrides_win_over_params_and_keep_their_place() -> None:
    space, fixed = parse(
        {"a": "choice(1,2)", "b": "choice(1,2)", "c": 3, "+d": "choice(1,2)", "e": "${c}"},
        ["b=5,6,7", "a=9", "c=1,2", "++d=x,y", "sweeps=quick", "~f", "e='1'"],
    )
    assert list(space.params) == ["b", "c", "++d"]
    assert space.params["b"] == CategoricalDistribution([5, 6, 7])
    assert fixed == ["a=9", "e='1'", "sweeps=quick", "~f"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "x=3"),
        (1e-05, "x=1e-05"),
        (True, "x=true"),
        (None, "x=null"),
        ("a b", "x=a b"),
        ("", "x="),
        ("[1,2]", "x=[1,2]"),
    ],
)
def test_a_plain_value_is_fixed(value: Any, text: str) -> None:
    assert parse({"x": value, "y": "1,2"})[1] == [text]


@pytest.mark.parametrize(
    "key", ["model", "+model", "++a.b", "~a", "db@src", "model.conv.0.filters", "hydra/job_logging"]
)
def test_a_key_is_kept_as_it_is_written(key: str) -> None:
    space, _ = parse({key: "choice(p,q)"})
    assert space.overrides({key: "q"}) == [f"{key}=q"]


def test_float_steps_are_written_in_decimal() -> None:
    space = space_of(x="range(0,0.4,0.1)")
    assert [space.overrides(point) for point in space.points()][3] == ["x=0.3"]
    assert space.overrides({"x": 0.1 * 3}) == ["x=0.3"]


# From values to overrides and back

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(exclude_characters="\0"), max_size=12),  # no command line and no file name holds a NUL
    st.text(alphabet="""ab'"\\,=[]{}(): \t\n$~+.-0é汉🧹""", max_size=12),
    st.sampled_from(
        ["1", "1.5", "null", "true", "nan", "-inf", "a,b", "x=1", "", " ", "choice(1,2)", "${a}", "~x", "é"]
    ),
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=5)


@settings(max_examples=100, deadline=None)
@given(values=st.lists(VALUES, min_size=2, max_size=5))
def test_every_category_comes_back_from_its_override_as_it_was(values: list[Any]) -> None:
    space, _ = parse({}, [f"x={','.join(override_text(value) for value in values)}"])
    found = [read_back(space, point)[0] for point in space.points()]
    assert all(any(same(value, other) for other in found) for value in values)
    assert len(found) == len({override_text(value) for value in values}) == space.size
    for value in values:
        assert same(read_back(space, space.encode({"x": value}))[0], value)


@pytest.mark.parametrize(
    ("value", "text"),
    [("relu", "relu"), ("leaky_relu", "leaky_relu"), ("NULL", "'NULL'"), ("a.b", "'a.b'"), (np.int64(3), "3"),
     (np.float64(0.5), "0.5"), (1.0, "1.0"), (10**30, str(10**30)), ((1, 2), "[1,2]")],
)  # fmt: skip
def test_text_is_quoted_only_where_it_must_be(value: Any, text: str) -> None:
    assert override_text(value) == text


def test_hydra_composes_what_a_space_writes(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for name in ("cnn", "mlp-2"):
        (tmp_path / "model" / f"{name}.yaml").write_text(f"name: {name}\n")
    (tmp_path / "config.yaml").write_text("defaults: [model: cnn, _self_]\nconv: [{filters: 1}]\ntext: a\nshape: [1]\n")
    space, fixed = parse(
        {"model": "cnn,mlp-2", "conv.0.filters": "range(1,4)", "text": "'1','a=b'", "shape": "[2,3],[4]", "+new": "1,2"}
    )
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        config = compose("config", overrides=[*fixed, *space.overrides(space.point((space.size or 0) - 1))])
    assert config == {
        "model": {"name": "mlp-2"}, "conv": [{"filters": 3}], "text": "a=b", "shape": [4], "new": 2,
    }  # fmt: skip


# Points

AXES = st.one_of(
    st.integers(1, 4).map(lambda n: f"range({n})"),
    st.integers(1, 4).map(lambda n: f"range(0.5,{0.5 + n * 0.1},0.1)"),
    st.integers(1, 3).map(lambda n: "choice(" + ",".join("abc"[:n]) + ")"),
    st.sampled_from(["null,1,true", "choice([1],[2])", "range(1,9,3)", "int(interval(1,3))", "tag(log,range(1,4))"]),
)
SPACES = st.lists(AXES, min_size=1, max_size=3).map(
    lambda axes: space_of(**{f"p{i}": axis for i, axis in enumerate(axes)})
)


@settings(max_examples=50, deadline=None)
@given(space=SPACES)
def test_a_finite_space_is_numbered_without_gap_or_repeat(space: Space) -> None:
    points = list(space.points())
    assert len(points) == space.size == len({space.key(point) for point in points})
    assert [space.point(index) for index in range(len(points))] == points
    assert len({tuple(space.overrides(point)) for point in points}) == space.size


@settings(max_examples=50, deadline=None)
@given(space=SPACES, seed=st.integers(0, 2**32 - 1))
def test_unseen_points_exhaust_the_space_without_repeat_and_follow_the_seed(space: Space, seed: int) -> None:
    runs = []
    for _ in range(2):
        rng, seen = np.random.default_rng(seed), []
        for _ in range(space.size or 0):
            key = space.key(space.unseen(set(seen), rng))
            assert key not in seen
            seen.append(key)
        runs.append(seen)
    assert runs[0] == runs[1]
    with pytest.raises(SpaceError, match=rf"all {space.size} points of the search space were tried"):
        space.unseen(set(runs[0]), np.random.default_rng(0))


def test_points_are_in_row_major_order() -> None:
    space = space_of(a="choice(x,y)", b="range(3)")
    assert [tuple(point.values()) for point in space.points()] == [(a, b) for a in "xy" for b in range(3)]
    assert space.first_unseen({"0", "1", "3"}) == {"a": "x", "b": 2}


def test_every_unseen_point_is_as_likely_as_another() -> None:
    space, rng = space_of(a="range(5)"), np.random.default_rng(0)
    counts = np.bincount([space.unseen({"1", "2"}, rng)["a"] for _ in range(3000)], minlength=5)
    assert counts[[1, 2]].tolist() == [0, 0]
    assert counts[[0, 3, 4]].min() > 900


def test_a_space_of_more_points_than_a_machine_word_is_drawn_from() -> None:
    space = space_of(**{f"p{index}": "range(1000)" for index in range(10)})
    assert space.size == 10**30
    point = space.unseen({"0"}, np.random.default_rng(0))
    assert space.point(int(space.key(point))) == point


@pytest.mark.timeout(20)
def test_an_unseen_point_of_millions_is_found_when_nine_tenths_are_seen() -> None:
    space = space_of(a="range(1000)", b="range(1000)")
    seen = {str(index) for index in range(1_000_000) if index % 10}
    point = space.unseen(seen, np.random.default_rng(1))
    assert int(space.key(point)) % 10 == 0


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ({"n": 1, "c": "a"}, {"n": 1.0, "c": "a"}, True),
        ({"n": 1, "c": 1}, {"n": 1, "c": True}, False),
        ({"n": 1, "c": math.nan}, {"n": 1, "c": float("nan")}, True),
        ({"n": 1, "c": "1"}, {"n": 1, "c": 1}, False),
        ({"n": 1, "c": "a"}, {"c": "a", "n": 1}, True),
    ],
)
@pytest.mark.parametrize("more", [{}, {"x": 0.5}], ids=["finite", "infinite"])
def test_the_key_tells_points_apart_by_value_and_type(
    one: Any, other: Any, is_same: bool, more: dict[str, Any]
) -> None:
    space = Space(
        {"n": IntDistribution(1, 3), "c": CategoricalDistribution(["a", 1, "1", math.nan, "true"])}
        | ({"x": FloatDistribution(0, 1)} if more else {}),
        frozenset(),
    )
    if one["c"] == 1 and other["c"] is True:
        with pytest.raises(SpaceError, match="c=True is outside the search space; expected one of a, 1, '1', nan"):
            space.key({**other, **more})
    else:
        assert (space.key({**one, **more}) == space.key({**other, **more})) is is_same


def test_minus_zero_is_zero_in_an_interval() -> None:
    space = space_of(x="interval(-1,1)")
    assert space.key({"x": -0.0}) == space.key({"x": 0}) == "x=0.0"


def test_true_and_one_are_different_points() -> None:
    space = space_of(x="1,true")
    assert space.key(space.encode({"x": 1})) != space.key(space.encode({"x": True}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model.filtres": 3}, "the parameter='model.filtres' is not known; .*did you mean 'model.filters'"),
        ({"model.filters": 5}, r"model.filters=5 is outside the search space; expected one of 3, 8"),
        ({"model.filters": True}, "model.filters=True is outside"),
        ({"n": 12}, "n=12 is outside the search space; expected an integer from 1 to 9 in steps of 2"),
        ({"n": 2}, "n=2 is outside"),
        ({"n": "3"}, "n='3' is outside"),
        ({"n": math.inf}, "n=inf is outside"),
        ({"lr": 2.0}, "lr=2.0 is outside the search space; expected a number from 0.001 to 0.1"),
        ({"lr": math.nan}, "lr=nan is outside"),
        ({"step": 0.15}, "step=0.15 is outside the search space; expected a number from 0.0 to 0.3 in steps of 0.1"),
        ({"step": 0.4}, "step=0.4 is outside"),
        ({"shape": [1, 3]}, r"shape='\[1,3\]' is outside"),
    ],
)
def test_a_value_outside_the_space_is_refused(values: dict[str, Any], message: str) -> None:
    space = parse(
        {"model.filters": "3,8", "n": "range(1,11,2)", "lr": "interval(0.001,0.1)", "step": "range(0,0.35,0.1)",
         "shape": "[1,2],[3]"}
    )[0]  # fmt: skip
    with pytest.raises(SpaceError, match=message):
        space.encode(values)


def test_values_are_encoded_as_the_study_stores_them() -> None:
    space = space_of(filters="3,8", shape="[1,2],[3]", n="range(1,11,2)", lr="range(0,0.5,0.1)", pool="null,2")
    given_values = {"pool": None, "n": 3.0, "shape": [1, 2], "lr": 0.1 + 0.2, "filters": 8}
    point = space.encode(given_values)
    assert point == {"filters": 8, "shape": "[1,2]", "n": 3, "lr": 0.3, "pool": None}
    assert isinstance(point["n"], int)
    assert read_back(space, point) == [8, [1, 2], 3, 0.3, None]


def test_an_infinite_space_has_no_numbers_and_says_why() -> None:
    space = space_of(a="1,2", lr="interval(0,1)")
    assert space.size is None
    for enumerated in (lambda: space.point(0), lambda: space.unseen(set(), np.random.default_rng(0)), space.points):
        with pytest.raises(SpaceError, match="the search space is infinite because of lr; expected choice"):
            enumerated()
    assert space_of(lr="interval(1,1)").size == 1


def test_a_point_beyond_the_space_does_not_exist() -> None:
    with pytest.raises(IndexError, match="point 4 of a space of 4 points"):
        space_of(a="range(4)").point(4)
