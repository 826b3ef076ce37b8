"""Hydra's override grammar: ranges have Hydra's own values, and values survive the way through Hydra and back.

The same file passes on every Hydra that besom supports: where releases differ, what is expected is what
the installed one iterates. Tables marked *official* hold the assertions of hydra-optuna-sweeper 1.4.0rc3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
from conftest import same
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from besom.errors import SpaceError
from besom.search.grammar import override_text, value_of
from besom.search.space import Space, parse

PARSER = OverridesParser.create()

pytestmark = [
    # where the official plugin is installed too, Hydra 1.4 says that both have a config of this name
    pytest.mark.filterwarnings("ignore:ConfigStore config .* is already registered"),
    pytest.mark.filterwarnings("ignore:The version_base parameter is deprecated"),  # but Hydra 1.3 wants it
]


def distribution_of(text: str) -> BaseDistribution:
    return parse({"x": text})[0].params["x"]


def values_of(text: str) -> list[Any]:
    return [point["x"] for point in parse({"x": text})[0].points()]


def hydras_values(text: str) -> list[Any] | None:
    """The values that Hydra itself would run, ascending, each once; None where it runs nothing."""
    try:
        values = list(PARSER.parse_override(f"x={text}").sweep_iterator())
    except (HydraException, ValueError):
        return None
    return sorted(set(values)) or None


# Ranges

OFFICIAL_RANGES = [
    "range(1,3)", "range(0,8,3)", "range(3,0,-1)", "range(0,1,0.5)", "range(0,1,0.3)", "range(1,0,-0.3)",
    "range(0,1,0.1)", "sort(range(1,0,-0.25))", "sort(range(0,1,0.25),reverse=true)", "range(2,3,4)",
    "range(0.5,1,2)", "int(range(0,5,1.5))", "int(range(0,1,0.25))", "float(range(1,3))",
    "float(int(range(0,1,0.25)))", "shuffle(range(1,3))", "sort(shuffle(range(1,3)))",
]  # fmt: skip
"""*Official*: test_range_distribution_values. What is categorical there is evenly spaced numbers here where it can be,
so that samplers know the order; a value that ``int()`` makes twice is one point."""

MORE_RANGES = [
    "range(0,0.4,0.1)", "range(0,0.8,0.1)", "range(0.1,0.5,0.1)", "range(0,2.1,0.7)", "range(0.7,0,-0.1)",
    "range(1e-3,5e-3,1e-3)", "range(-1,1,0.3)", "range(0,7)", "range(9,-3,-4)", "range(5)", "range(1,4.5)",
    "int(range(1.0,4.0))", "int(range(-2.5,2.5,0.5))", "int(range(0.9,9,1.1))", "float(int(range(0,9,1.25)))",
    "sort(range(0,8,3),reverse=true)", "sort(range(9,0,-2))", "shuffle(range(0,1,0.25))", "range(1_000,2_000,500)",
    "range(1e9,1000000001,0.1)", "range(0.1234567890123457,1.9,0.1)", "range(1e300,2e300,1e299)",
    "range(0,1e-300,1e-301)", "range(true,3)", "range(-0.5,0.5,0.5)",
]  # fmt: skip


@pytest.mark.parametrize("text", OFFICIAL_RANGES + MORE_RANGES)
def test_a_range_has_exactly_the_values_that_hydra_would_run(text: str) -> None:
    expected = hydras_values(text)
    if expected is None:
        with pytest.raises(SpaceError, match="the step is 0"):
            distribution_of(text)
    else:
        values = values_of(text)
        assert values == pytest.approx(expected, rel=1e-12, abs=0 if 0 < max(map(abs, expected)) < 1e-9 else 1e-12)
        assert list(map(type, values)) == list(map(type, expected))


BOUNDS = st.one_of(st.integers(-9, 9), st.decimals(-3, 3, places=2).map(float), st.sampled_from([1e7, 0.1, 1e-7]))


@settings(max_examples=200, deadline=None)
@given(
    start=BOUNDS, stop=BOUNDS, step=BOUNDS,
    around=st.lists(st.sampled_from(["int({})", "float({})", "sort({})", "sort({},reverse=true)"]), max_size=2),
)  # fmt: skip
def test_any_range_has_exactly_the_values_that_hydra_would_run(
    start: float, stop: float, step: float, around: list[str]
) -> None:
    assume(step != 0 and abs(stop - start) <= 2000 * abs(step))
    text = f"range({start},{stop},{step})"
    for function in around:
        text = function.format(text)
    expected = hydras_values(text)
    if expected is None:
        with pytest.raises(SpaceError, match=r"the range is empty|the step is 0"):
            distribution_of(text)
    else:
        values = values_of(text)
        assert values == pytest.approx(expected, rel=1e-12, abs=1e-12)
        assert list(map(type, values)) == list(map(type, expected))
        space = parse({"x": text})[0]
        assert all(space.params["x"]._contains(space.params["x"].to_internal_repr(value)) for value in values)


@pytest.mark.parametrize(
    "text",
    ["range(0,1,0)", "range(0,1,0.0)", "int(range(0,1,0.0))", "shuffle(range(0,1,0))", "range(0,0)", "range(3,1)",
     "range(0,1,-0.5)"],
)  # fmt: skip
def test_a_range_without_values_is_refused(text: str) -> None:
    """*Official*: test_invalid_optuna_range."""
    with pytest.raises(SpaceError, match=r"the step is 0|the range is empty"):
        distribution_of(text)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("range(0,1000000000000)", IntDistribution(0, 999999999999)),
        ("float(range(0,1000000000000))", FloatDistribution(0, 999999999999, step=1)),
        ("int(range(0,1000000000000.0,7))", IntDistribution(0, 999999999999, step=7)),
        ("range(-1000000000000000.0,1e-15,1.0)", FloatDistribution(-1000000000000000.0, 0.0, step=1.0)),
        ("range(1000000000000000.0,-1e-15,-1.0)", FloatDistribution(0.0, 1000000000000000.0, step=1.0)),
    ],
)
def test_a_huge_range_is_not_enumerated(text: str, expected: BaseDistribution) -> None:
    """*Official*: test_numeric_range_conversion_does_not_enumerate (the first) and
    test_float_range_length_ignores_decimal_context_rounding (the last two)."""
    assert distribution_of(text) == expected


def test_floats_that_a_step_cannot_reach_are_categories() -> None:
    """*Official*: test_float_range_precision_boundary_uses_exact_categorical_values."""
    found = distribution_of("range(-1000000000000000.0,-999999999999999.5,0.3)")
    assert found == CategoricalDistribution([-1000000000000000.0, -999999999999999.8])


def test_values_stay_within_the_bounds_where_floats_are_coarse() -> None:
    """*Official*: test_float_grid_choices_stay_within_precision_boundary, from the range's text on."""
    values = values_of("range(-1000000000000000.0,-999999999999999.2,0.07)")
    assert values == sorted(set(values))
    assert all(-1000000000000000.0 <= value <= -999999999999999.2 for value in values)


@pytest.mark.parametrize(
    ("distribution", "values"),
    [
        (IntDistribution(1, 3), [1, 2, 3]),
        (IntDistribution(2, 2), [2]),
        (FloatDistribution(0.0, 0.3, step=0.1), [0.0, 0.1, 0.2, 0.3]),
        (FloatDistribution(0.5, 0.5, step=1.0), [0.5]),
        (CategoricalDistribution([0, 1]), [0, 1]),
    ],
)
def test_both_ends_of_a_distribution_are_points(distribution: BaseDistribution, values: list[Any]) -> None:
    """*Official*: test_grid_sampler_includes_distribution_endpoints, but for [0,0,1]: a choice twice is one point."""
    assert [point["x"] for point in Space({"x": distribution}).points()] == values


def test_a_choice_twice_is_one_point() -> None:
    assert values_of("choice(0,0,1)") == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("range(0,1e6,0.3)", r"more than 1000000 steps, use interval\(0,1000000.0\)"),
        ("range(0.1234567890123457,2100,0.1)", "20999 values whose steps are not even: too many digits, round"),
        ("range(0,inf)", "inf is not a finite number"),
        ("int(range(0,inf))", r"infinity|inf is not a finite number"),
        ("tag(int,range(0,5,1.5))", r"the tag int does not round a range, use int\(range\(start,stop,step\)\)"),
        ("tag(log,int(range(0,9,1.5)))", r"cannot be log|step is 1 when|low >= 1"),
        ("str(range(1,3))", "Range can only be cast to int or float"),
    ],
)
def test_a_range_that_cannot_be_searched_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        distribution_of(text)


# Distributions


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("key=choice(1,2)", CategoricalDistribution([1, 2])),
        ("key=choice(true, false)", CategoricalDistribution([True, False])),
        ("key=choice('hello', 'world')", CategoricalDistribution(["hello", "world"])),
        ("key=shuffle(range(1,3))", IntDistribution(1, 2)),
        ("key=range(1,3)", IntDistribution(1, 2)),
        ("key=interval(1, 5)", FloatDistribution(1, 5)),
        ("key=int(interval(1, 5))", IntDistribution(1, 5)),
        ("key=tag(log, interval(1, 5))", FloatDistribution(1, 5, log=True)),
        ("key=tag(log, int(interval(1, 5)))", IntDistribution(1, 5, log=True)),
        ("key=range(0.5, 5.5, step=1)", FloatDistribution(0.5, 4.5, step=1)),
    ],
)
def test_an_override_becomes_the_distribution_that_it_names(override: str, expected: BaseDistribution) -> None:
    """*Official*: test_create_optuna_distribution_from_override. A shuffled range is categorical there; the values are
    the same here, and their order is the sampler's in any case."""
    assert parse({}, [override])[0].params == {"key": expected}


@pytest.mark.parametrize(
    ("overrides", "params", "fixed"),
    [
        (["key=choice(1,2)"], {"key": CategoricalDistribution([1, 2])}, []),
        (["key=5"], {}, ["key=5"]),
        (["key1=choice(1,2)", "key2=5"], {"key1": CategoricalDistribution([1, 2])}, ["key2=5"]),
        (
            ["key1=choice(1,2)", "key2=5", "key3=range(1,3)"],
            {"key1": CategoricalDistribution([1, 2]), "key3": IntDistribution(1, 2)},
            ["key2=5"],
        ),
        (["~z"], {}, ["~z"]),
        (["~z=10"], {}, ["~z=10"]),
    ],
)
def test_overrides_are_parted_into_those_that_sweep_and_those_that_are_fixed(
    overrides: list[str], params: dict[str, BaseDistribution], fixed: list[str]
) -> None:
    """*Official*: test_create_params_from_overrides. Fixed values are whole overrides here, so that quotes survive."""
    space, found = parse({}, overrides, may_be_empty=True)
    assert (space.params, found) == (params, fixed)


@pytest.mark.skipif(hydra.__version__ < "1.4", reason="paths with brackets and extend_list came with Hydra 1.4")
@pytest.mark.filterwarnings(r"ignore:extend_list\(...\) is deprecated")  # until Hydra 1.5 it is to be read
def test_what_only_hydra_1_4_can_read_is_kept() -> None:
    declared = {"layers[0].units": "1,2", r"a\.b": "3,4", "x": "[1]"}
    space, fixed = parse(declared, ["layers[0].units=5,6", "x=extend_list(2)", "x=extend_list(3)"])
    assert space.overrides(space.point(0)) == ["layers[0].units=5", r"a\.b=3"]
    assert fixed == ["x=[1]", "x=extend_list(2)", "x=extend_list(3)"]


def test_a_space_without_parameters_has_one_point_where_it_is_allowed() -> None:
    space = parse({}, may_be_empty=True)[0]
    assert (space.size, list(space.points()), space.key({}), space.overrides({})) == (1, [{}], "0", [])


# Values, both ways

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(exclude_characters="\0"), max_size=12),  # no command line and no file name holds a NUL
    st.text(alphabet="""ab'"\\,=[]{}(): \t\n$~+.-0é汉🧹#&*!|>%@`""", max_size=12),
    st.sampled_from(
        ["1", "1e3", "0x1F", "1_000", "null", "NULL", "true", "nan", "-inf", "a,b", "x=1", "", " ", " a ", "\\", "a\\",
         "\\'", "'", '"', "'a'", "choice(1,2)", "~x", "+x", "$", "${", "\n", "a\nb", "C:\\dir\\", "[1]", "{a:1}", "- a",
         "a: b"]
    ),
)  # fmt: skip
KEYS = st.one_of(
    st.integers(), st.booleans(), st.from_regex(r"[a-zA-Z_][a-zA-Z_ =:,()\[\]{}/.*-]{0,8}[a-z]", fullmatch=True)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=2),
    max_leaves=5,
)


def has_interpolation(value: Any) -> bool:
    if isinstance(value, dict):
        return any(has_interpolation(item) for item in [*value, *value.values()])
    return any(map(has_interpolation, value)) if isinstance(value, list) else isinstance(value, str) and "${" in value


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """Return what Hydra's own compose makes of overrides for a config ``x: null, y: 7``."""
    folder = tmp_path_factory.mktemp("conf")
    (folder / "config.yaml").write_text("x: null\ny: 7\n")

    def run(*overrides: str) -> dict[str, Any]:
        with initialize_config_dir(str(folder), version_base="1.3"):
            config = compose("config", overrides=list(overrides))
        return {str(key): value for key, value in OmegaConf.to_container(config, resolve=True).items()}

    return run


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values=st.lists(VALUES, min_size=1, max_size=6))
def test_any_value_survives_text_space_override_and_compose(
    composed: Callable[..., dict[str, Any]], values: list[Any]
) -> None:
    assume(not has_interpolation(values))
    texts = {f"+v{i}": f"{override_text(value)},'another','one'" for i, value in enumerate(values)}
    space, _ = parse(texts)
    point = space.encode({f"+v{i}": value for i, value in enumerate(values)})
    config = composed(*space.overrides(point))
    for i, value in enumerate(values):
        assert same(config[f"v{i}"], value)
        assert same(space.decode(point)[f"+v{i}"], value)


@settings(max_examples=200, deadline=None)
@given(value=VALUES)
def test_any_value_comes_back_from_its_text(value: Any) -> None:
    assert same(value_of(override_text(value)), value)


@pytest.mark.parametrize(
    "text",
    ["1", "1.0", "1e3", "'1e3'", "1_000", "null", "NULL", "'null'", "true", "'true'", "nan", "inf", "''", "' '",
     "' a '", "a b", "'a, b'", '"a, b"', r"a\,b", r"\ a\ ", r"'it\'s'", '"it\'s"', r"a\=b", "/a/b-c.txt", "a:b",
     r"C:\\dir", r"'C:\\'", "'é, 汉'", "[1,a,'2',[b]]", "{a:1,b:{c:'2'}}", "[]", "{}", "${y}", "'${y}'",
     "a${y}b", r"\${y}", "[${y}]", "$", "a$b", "%d", "*", "@", "?", "a|b", "-1", "+1", "'-'", "'a\nb'", "'\t'", "0x1F",
     "1e400"],
)  # fmt: skip
def test_a_category_means_what_it_means_to_hydra(composed: Callable[..., dict[str, Any]], text: str) -> None:
    space, _ = parse({"x": f"{text},zzz"})
    assert same(composed(*space.overrides(space.point(0))), composed(f"x={text}"))


@pytest.mark.parametrize("text", ["é", "a=b", "a#b", "a,,b", "choice(a", "'a", "a'b'"])
def test_text_that_hydra_cannot_read_without_quotes_is_refused(text: str) -> None:
    with pytest.raises(SpaceError, match=r"cannot search over x=.*; expected .* one plain value, in quotes"):
        parse({"x": f"{text},zzz"})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({1, 2}, "is a set; expected null, a bool, number, string, list or dict"),
        ([object()], "is a object; expected null, a bool"),
        ("???", r"the text '\?\?\?' means a missing value to Hydra; expected another text"),
        ({"1": 0}, "Hydra's overrides cannot spell '1' as a key of a dict; expected another key"),
        ({"null": 0}, "cannot spell 'null' as a key"),
        ({"": 0}, "cannot spell '' as a key"),
        ({"it's": 0}, 'cannot spell "it\'s" as a key'),
        ({"a\nb": 0}, r"cannot spell 'a\\nb' as a key"),
        ({None: 0}, "cannot spell None as a key"),
    ],
)
def test_a_value_that_no_override_can_hold_is_refused(value: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        override_text(value)


# Groups


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A config with a group ``network`` that has the options cnn, mlp and old/mlp."""
    (tmp_path / "network" / "old").mkdir(parents=True)
    for name in ("cnn", "mlp", "old/mlp"):
        (tmp_path / "network" / f"{name}.yaml").write_text(f"name: {name}\n")
    (tmp_path / "config.yaml").write_text("defaults: [network: cnn, _self_]\nlayers: 1\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        yield


@pytest.mark.usefixtures("group")
def test_glob_takes_the_options_of_a_group() -> None:
    loader = GlobalHydra.instance().config_loader()
    assert parse({"network": "glob(*)"}, loader=loader)[0].params["network"] == CategoricalDistribution(["cnn", "mlp"])
    assert parse({}, ["network=glob(*,exclude=c*)"], loader)[0].params["network"] == CategoricalDistribution(["mlp"])
    nested = {"layers": "1,2", "network": {"when": {"layers": 2}, "sweep": "glob([m*,x])"}}
    assert list(parse(nested, loader=loader)[0].points()) == [{"layers": 1}, {"layers": 2, "network": "mlp"}]
    for text, message in [("glob(x*)", "no option of the group network matches"), ("glob()", "include")]:
        with pytest.raises(SpaceError, match=message):
            parse({"network": text}, loader=loader)


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("name", ["mlp", "old/mlp"])
def test_an_option_of_a_group_is_composed(name: str) -> None:
    space, _ = parse({"network": f"cnn,{name}"})
    assert compose("config", overrides=space.overrides({"network": name})).network.name == name
