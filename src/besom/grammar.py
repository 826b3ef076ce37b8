"""Hydra's override grammar, both ways: a sweep's text becomes a distribution, a value becomes text.

Reads with Hydra's own parser, so that a range or a quote means here what it means to Hydra. Knows
nothing of points, samplers and studies.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    FloatRange,
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    RangeSweep,
    Sweep,
)
from hydra.errors import HydraException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from besom.errors import SpaceError, one_of

TAGS = ("log", "int")
MOST_EXACT = 2**53  # the study stores every number as a float
MOST_STEPS = 1_000_000
PLAIN_WORD = re.compile(r"(?!(?:null|true|false|inf|nan)$)[a-z_][a-z0-9_-]*", re.IGNORECASE)
SPECIAL = re.compile(r"[\\()\[\]{}:=, \t]")
EXPECTED = (
    "expected choice(a,b), or a,b (which also takes null), range(start,stop,step), interval(low,high), "
    "int(interval(low,high)), tag(log,interval(low,high)), or one plain value"
)


def override_text(value: Any) -> str:
    """Return a value as Hydra's override grammar spells it, quoted where it would else change meaning or type.

    Raises:
        SpaceError: for anything but None, bool, int, float, str, and lists and dicts of them.
    """
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_key_text(key)}:{override_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str):
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


def _key_text(key: Any) -> str:
    """Spell a key of a dict: the grammar takes no quotes there, only escapes."""
    return SPECIAL.sub(r"\\\g<0>", key) if isinstance(key, str) else _scalar_text(key)


def read(params: Mapping[str, Any], overrides: Sequence[str], loader: ConfigLoader | None) -> list[Override]:
    """Return all overrides, read: the last of a key wins and keeps the place of the first.

    Raises:
        SpaceError: for text that Hydra cannot read.
    """
    parser = OverridesParser.create()
    given: dict[tuple[bool, str, str | None], Override] = {}
    for text in [*(f"{key}={_param_text(key, value)}" for key, value in params.items()), *overrides]:
        override = _parsed(parser, text)
        override.config_loader = loader
        given[override.is_delete(), override.key_or_group, override.package] = override
    return list(given.values())


def _param_text(key: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        raise SpaceError(f"hydra.sweeper.params.{key} is a dict; expected one dotted key, such as '{key}.name: …'")
    if isinstance(value, Sequence):
        items = ",".join(override_text(item) for item in value)
        raise SpaceError(
            f"hydra.sweeper.params.{key} is a list; expected 'choice({items})' to search over its items, "
            f"or '[{items}]' in quotes to fix the list"
        )
    return _scalar_text(value)


def _parsed(parser: OverridesParser, text: str) -> Override:
    try:
        return parser.parse_override(text)
    except (HydraException, AssertionError) as error:
        reason = (str(error).splitlines() or ["malformed"])[0]
        raise _unreadable(text, reason) from error


def _unreadable(text: str | None, reason: str) -> SpaceError:
    key, _, value = str(text).partition("=")
    return SpaceError(f"cannot search over {key}={value!r}: {reason}; {EXPECTED}")


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
    """Return the distribution of a sweep, and whether its categories are override texts.

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
    except (ValueError, OverflowError) as error:  # Optuna's own checks too: they state the invariant and the values
        raise _unreadable(override.input_line, str(error)) from error


def _items(override: Override) -> list[Any]:
    sweep = override.value()
    if isinstance(sweep, ChoiceSweep):
        _tagged(sweep, ())
        return [_plain(item) for item in sweep.list]
    if override.config_loader is None:
        raise ValueError("the options of glob() are not known here")
    return list(override.sweep_iterator())


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
        return _ints(int(low), int(high), log="log" in tags)
    return FloatDistribution(low, high, log="log" in tags)


def _range(sweep: RangeSweep) -> BaseDistribution:
    tags, bounds = _tagged(sweep, TAGS), [_finite(bound) for bound in (sweep.start, sweep.stop, sweep.step)]
    if bounds[2] == 0:
        raise ValueError("the step is 0")
    if "int" in tags or all(isinstance(bound, int) for bound in bounds):
        return _int_range(range(*(int(bound) for bound in bounds)), log="log" in tags)
    if "log" in tags:
        raise ValueError("a range of floats cannot be log, use tag(log,interval(low,high))")
    return _float_range(*bounds)


def _int_range(values: range, log: bool) -> IntDistribution:
    if not values:
        raise ValueError("the range is empty")
    low, high = sorted((values[0], values[-1]))
    return _ints(low, high, log=log, step=abs(values.step) if high > low else 1)


def _ints(low: int, high: int, log: bool, step: int = 1) -> IntDistribution:
    if max(-low, high) > MOST_EXACT:
        raise ValueError("integers beyond 2**53 lose digits in the study")
    return IntDistribution(low, high, log=log, step=step)


def _float_range(start: float, stop: float, step: float) -> FloatDistribution:
    """Return as many steps as Hydra takes, computed in decimal as they are written."""
    if abs((stop - start) / step) > MOST_STEPS:
        raise ValueError(f"more than {MOST_STEPS} steps, use interval({start},{stop})")
    count = sum(1 for _ in FloatRange(start, stop, step))
    if count == 0:
        raise ValueError("the range is empty")
    first, stride = Decimal(str(start)), Decimal(str(step))
    low, high = sorted((float(first), float(first + (count - 1) * stride)))
    # Optuna would drop the last value, with a warning, when the decimals do not add up
    if (Decimal(str(high)) - Decimal(str(low))) % stride:
        raise ValueError("the numbers have too many digits, round them")
    return FloatDistribution(low, high, step=abs(float(step)))


def _tagged(sweep: Sweep, known: Sequence[str]) -> set[str]:
    for tag in sorted(sweep.tags):
        if tag not in known:
            raise ValueError(one_of("tag", tag, known) if known else f"a choice has no tags, but this has {tag!r}")
    return sweep.tags


def _finite(number: float | None) -> float:
    if number is None or not math.isfinite(number):
        raise ValueError(f"{number} is not a finite number")
    return number
