"""Hydra's override grammar, both ways: a sweep's text becomes a distribution, a value becomes text.

Reads with Hydra's own parser, so that a quote means here what it means to Hydra. Knows nothing of points,
conditions, samplers and studies.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    RangeSweep,
    Sweep,
)
from omegaconf import MISSING
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from besom.configs import overrides
from besom.errors import MOST_QUOTED, SpaceError, one_of, quoted
from besom.search import ranges

TAGS = ("log", "int")
PLAIN_WORD = re.compile(r"(?!(?:null|true|false|inf|nan)$)[a-z_][a-z0-9_-]*", re.IGNORECASE)
SPECIAL = re.compile(r"[\\()\[\]{}:=, \t]")
EXPECTED = (
    "expected choice(a,b), or a,b (which also takes null), range(start,stop,step), interval(low,high), "
    "int(interval(low,high)), tag(log,interval(low,high)), or one plain value, in quotes where "
    "it is no plain word"
)


def override_text(value: Any) -> str:
    """Return a value as Hydra's override grammar spells it, quoted where it would else change meaning or type.

    Text with ``${`` stays an interpolation, as everywhere in Hydra; ``\\${`` is the plain text.

    Raises:
        SpaceError: for anything but None, bool, int, float, str, and lists and dicts of them.
    """
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_key_text(key)}:{override_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str):
        if value == MISSING:
            raise SpaceError(f"the text '{MISSING}' means a missing value to Hydra; expected another text")
        return value if PLAIN_WORD.fullmatch(value) else QuotedString(value, Quote.single).with_quotes()
    if isinstance(value, Sequence):
        return "[" + ",".join(override_text(item) for item in value) + "]"
    return _scalar_text(value)


def _scalar_text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real):
        return repr(float(value))
    raise SpaceError(f"{value!r} is a {type(value).__name__}; expected null, a bool, number, string, list or dict")


@functools.lru_cache(typed=True)
def _key_text(key: Any) -> str:
    """Spell a key of a dict: the grammar takes no quotes there, only escapes."""
    text = SPECIAL.sub(r"\\\g<0>", key) if isinstance(key, str) else _scalar_text(key)
    try:
        found = list(value_of(f"{{{text}:0}}"))
    except SpaceError:
        found = []
    if key is None or len(found) != 1 or found[0] != key or type(found[0]) is not type(key):
        raise SpaceError(f"Hydra's overrides cannot spell {key!r} as a key of a dict; expected another key")
    return text


def value_of(text: str) -> Any:
    """Return the value that an override text spells, the reverse of `override_text`.

    Raises:
        SpaceError: for text that Hydra cannot read.
    """
    return parsed(f"x={text}").value()


def override_of(key: str, value: Any) -> Override:
    """Return an entry of ``hydra.sweeper.params``, read; a scalar that is no text fixes a value.

    Raises:
        SpaceError: for text that Hydra cannot read, or a list or dict.
    """
    if isinstance(value, Mapping):
        raise SpaceError(
            f"hydra.sweeper.params.{key} is a dict; expected one dotted key, such as '{key}.name: …', "
            "or the keys when and sweep"
        )
    if isinstance(value, Sequence) and not isinstance(value, str):
        items = ",".join(override_text(item) for item in value)
        raise SpaceError(
            f"hydra.sweeper.params.{key} is a list; expected 'choice({items})' to search over its items, "
            f"or '[{items}]' in quotes to fix the list"
        )
    return parsed(f"{key}={value if isinstance(value, str) else _scalar_text(value)}")


def parsed(text: str) -> Override:
    """Return one override, read.

    Raises:
        SpaceError: for text that Hydra cannot read.
    """
    try:
        return overrides.parse(text)
    except overrides.Unreadable as error:
        raise _unreadable(text, str(error)) from error


def _unreadable(text: str | None, reason: str) -> SpaceError:
    key, _, value = str(text).partition("=")
    return SpaceError(f"cannot search over {key[:MOST_QUOTED]}={quoted(value)}: {reason}; {EXPECTED}")


def fixed(override: Override) -> str:
    """Return the text of an override that fixes a value.

    Raises:
        SpaceError: when a sweep hides inside its list or dict.
    """
    if _holds_sweep(override.value()):
        raise _unreadable(override.input_line, "a sweep inside a list or dict")
    return str(override.input_line)


def _holds_sweep(value: Any) -> bool:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, Sweep) or any(_holds_sweep(item) for item in items)


def distribution(override: Override) -> tuple[BaseDistribution, bool]:
    """Return the distribution of a sweep, or the one value of a plain override, and whether its categories are text.

    Raises:
        SpaceError: for an empty or impossible sweep.
    """
    sweep = override.value()
    try:
        if isinstance(sweep, RangeSweep):
            return _range(sweep), False
        if isinstance(sweep, IntervalSweep):
            return _interval(sweep), False
        return _choice(_items(override))
    except (ValueError, ArithmeticError) as error:  # Optuna's own checks too: they state the invariant and the values
        raise _unreadable(override.input_line, str(error)) from error


def _items(override: Override) -> list[Any]:
    sweep = override.value()
    if isinstance(sweep, ChoiceSweep):
        _tagged(sweep, ())
        return [_plain(item) for item in sweep.list]
    if not override.is_sweep_override():
        fixed(override)
        return [sweep]
    if override.config_loader is None:
        raise ValueError("the options of glob() are not known here")
    if options := list(override.sweep_iterator()):
        return options
    raise ValueError(f"no option of the group {override.key_or_group} matches")


def _plain(item: Any) -> Any:
    if isinstance(item, Sweep):
        raise ValueError("a sweep inside a sweep")
    if isinstance(item, QuotedString):
        return item.text
    if isinstance(item, list):
        return [_plain(one) for one in item]
    return {key: _plain(one) for key, one in item.items()} if isinstance(item, dict) else item


def _choice(items: list[Any]) -> tuple[CategoricalDistribution, bool]:
    by_text = {override_text(item): item for item in items}
    categories = list(by_text.values())
    is_scalar = all(item is None or isinstance(item, bool | int | float | str) for item in categories)
    if is_scalar and len(set(categories)) == len(categories):
        return CategoricalDistribution(categories), False
    return CategoricalDistribution(list(by_text)), True


def _interval(sweep: IntervalSweep) -> BaseDistribution:
    tags, low, high = _tagged(sweep, TAGS), _finite(sweep.start), _finite(sweep.end)
    if "int" in tags or isinstance(low, int):
        return ranges.ints(int(low), int(high), is_log="log" in tags)
    return FloatDistribution(low, high, log="log" in tags)


def _range(sweep: RangeSweep) -> BaseDistribution:
    tags = _tagged(sweep, TAGS)
    for bound in (sweep.start, sweep.stop, sweep.step):
        _finite(bound)
    distribution = ranges.range_distribution(sweep, "log" in tags)
    if "int" in tags and not isinstance(distribution, IntDistribution):
        raise ValueError("the tag int does not round a range, use int(range(start,stop,step))")
    return distribution


def _tagged(sweep: Sweep, known: Sequence[str]) -> set[str]:
    for tag in sorted(sweep.tags):
        if tag not in known:
            raise ValueError(one_of("tag", tag, known) if known else f"a choice has no tags, but this has {tag!r}")
    return sweep.tags


def _finite(number: float | None) -> float:
    if number is None or not math.isfinite(number):
        raise ValueError(f"{number} is not a finite number")
    return number
