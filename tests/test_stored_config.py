"""A frozen config out of a store is plain values; anything more is refused in a line that says what was expected."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hostile import examples, told
from hypothesis import given, settings
from hypothesis import strategies as st

from besom.configs.config import to_yaml, typed
from besom.configs.stored import MOST_CHARACTERS, read_stored
from besom.errors import ConfigError

# of control characters PyYAML changes some, such as U+0085; nobody has them in a config
texts = st.text(st.characters(categories=("L", "N", "P", "S")) | st.just(" "), max_size=8)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
configs = st.dictionaries(texts, values, min_size=1, max_size=4).filter(
    lambda config: not any(mark in str(config) for mark in ("${", "???"))
)


@given(configs)
@settings(deadline=None)
def test_what_is_frozen_is_read_again(config: dict[str, Any]) -> None:
    assert read_stored(to_yaml(config), "config.yaml") == config


WRONG = {
    "an object": ('a: !!python/object/apply:os.system ["touch pwned"]', "cannot be read: could not determine"),
    "a tuple of Python": ("a: !!python/tuple [1]", "cannot be read: could not determine"),
    "broken": ("a: [", "cannot be read: while parsing"),
    "an alias": ("a: &a [1]\nb: *a", "cannot be read: it has an alias"),
    "an avalanche": ("a: &a [x]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(9)), "it has an alias"),
    "a list": ("- 1", "is no mapping"),
    "nothing": ("", "is no mapping"),
    "a number as a key": ("1: a", "is no mapping"),
    "an interpolation": ("a: {b: ['${oc.env:HOME}']}", r"has an interpolation, '\$\{oc.env:HOME\}'"),
    "an interpolation as a key": ("a: {'${oc.env:HOME}': 1}", "has an interpolation"),
    "a date that is none": ("a: 2026-99-99", "cannot be read: "),
    "a tag on another value": ("a: !!bool foo", "cannot be read: "),
    "a tag on nothing": ("a: !!int ''", "cannot be read: "),
    "a time that is none": ("a: !!timestamp foo", "cannot be read: "),
    "a missing value": ("train: {seed: '???'}", r"has '\?\?\?', a value that is missing"),
    "a long integer": ("train: {seed: 0x" + "f" * 5000 + "}", "has an integer of more than 64 bits"),
    "a long negative integer": ("a: -9223372036854775809", "has an integer of more than 64 bits"),
    "two hundred deep": ("a: " + "[" * 200 + "]" * 200, "cannot be read: it is nested more than 50 deep"),
    "too deep": ("a: " + "[" * 5000, "cannot be read: "),
    "too long": ("a: " + "x" * MOST_CHARACTERS, r"has 1,000,003 characters; expected a config of at most 1,000,000"),
}


@pytest.mark.parametrize("what", WRONG)
def test_anything_else_is_refused(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text, message = WRONG[what]
    with pytest.raises(ConfigError, match=f"config.yaml of run 1 .*{message}|config.yaml of run 1 {message}"):
        read_stored(text, "config.yaml of run 1")
    assert not list(tmp_path.iterdir())


tags = st.sampled_from(
    [
        "",
        *(
            f"!!{tag} "
            for tag in ["bool", "int", "float", "null", "timestamp", "binary", "set", "omap", "pairs", "str"]
        ),
    ]
)
hexadecimals = st.integers().map(hex) | st.just("0x" + "f" * 400)
written = st.builds(
    "{}{}".format,
    tags,
    hexadecimals | values.map(json.dumps) | st.sampled_from(["foo", "'???'", "12:34", "2001-99-01"]),
)


@given(
    st.sampled_from(
        ["model.depth", "model.dense", "model.conv", "train.seed", "train.learning_rate", "data.path", "x.y"]
    ),
    written,
)
@examples(200)
def test_any_text_is_a_typed_config_or_one_line(key: str, value: str) -> None:
    group, name = key.split(".")
    groups = {"data": "{}", "model": "{}", "train": "{}", group: f"{{{name}: {value}}}"}
    try:
        typed(read_stored("".join(f"{one}: {content}\n" for one, content in groups.items()), "config.yaml"))
    except ConfigError as error:
        told(error)


@pytest.mark.parametrize(
    ("group", "text", "message"),
    [
        ("model", "depth: abc", "model.depth='abc' is no number of layers; expected a whole number"),
        ("model", "depth: 1.5", "model.depth=1.5 is no number of layers"),
        ("model", "depth: true", "model.depth=True is no number of layers"),
    ],
)
def test_a_value_of_another_type_is_named(group: str, text: str, message: str) -> None:
    groups = {"data": "{}", "model": "{}", "train": "{}", group: f"{{{text}}}"}
    with pytest.raises(ConfigError, match=re.escape(message)):
        typed(read_stored("".join(f"{one}: {content}\n" for one, content in groups.items()), "config.yaml"))


def test_an_integer_too_large_for_its_key_is_one_line() -> None:
    groups: dict[str, Any] = {"data": {}, "model": {}, "train": {"learning_rate": 16**500}}
    with pytest.raises(ConfigError, match=r"^train\.?\w*: "):
        typed(groups)
