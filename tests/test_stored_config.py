"""A frozen config out of a store is plain values; anything more is refused in a line that says what was expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from besom.configs.config import to_yaml
from besom.configs.stored import MOST_CHARACTERS, read_stored
from besom.errors import ConfigError

# of control characters PyYAML changes some, such as U+0085; nobody has them in a config
texts = st.text(st.characters(categories=("L", "N", "P", "S")) | st.just(" "), max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
configs = st.dictionaries(texts, values, min_size=1, max_size=4).filter(lambda config: "${" not in str(config))


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
