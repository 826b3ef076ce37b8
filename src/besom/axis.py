"""One parameter of a search space, seen as a row of values: how many, the one at a place, the place of one.

Knows Optuna's distributions and nothing of the space they form.
"""

from __future__ import annotations

import math
from decimal import Decimal
from numbers import Real
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from besom.grammar import override_text


def count(distribution: BaseDistribution) -> int | None:
    """Return the number of values, or None for a float interval without step."""
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    numbers = _numbers(distribution)
    if isinstance(numbers, IntDistribution):
        return 1 + (numbers.high - numbers.low) // numbers.step
    if numbers.low == numbers.high:
        return 1
    return None if numbers.step is None else 1 + round((numbers.high - numbers.low) / numbers.step)


def at(distribution: BaseDistribution, place: int) -> Any:
    """Return the value at a place, from 0; that of a float interval without step is its low end."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[place]
    numbers = _numbers(distribution)
    if isinstance(numbers, IntDistribution):
        return numbers.low + place * numbers.step
    # in decimal, so that 0.1 * 3 is 0.3
    return float(Decimal(str(numbers.low)) + place * Decimal(str(numbers.step or 0)))


def place(distribution: BaseDistribution, value: Any) -> int:
    """Return the place, from 0, of a snapped value of a finite distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return int(distribution.to_internal_repr(value))
    numbers = _numbers(distribution)
    if isinstance(numbers, IntDistribution):
        return int(value - numbers.low) // numbers.step
    return round((float(value) - numbers.low) / (numbers.step or 1))


def snap(distribution: BaseDistribution, value: Any) -> tuple[Any] | None:
    """Return the value of the distribution that ``value`` means, in a tuple because it may be None."""
    if isinstance(distribution, CategoricalDistribution):
        return next(((choice,) for choice in distribution.choices if _same(choice, value)), None)
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        return None
    numbers = _numbers(distribution)
    if isinstance(numbers, IntDistribution):
        return _snap_int(numbers, float(value))
    return _snap_float(numbers, float(value))


def describe(distribution: BaseDistribution) -> str:
    """Return what a message says was expected: ``one of 3, 8`` or ``an integer from 1 to 9``."""
    if isinstance(distribution, CategoricalDistribution):
        return f"one of {', '.join(override_text(choice) for choice in distribution.choices)}"
    numbers = _numbers(distribution)
    kind = "an integer" if isinstance(numbers, IntDistribution) else "a number"
    step = "" if numbers.step in {None, 1} else f" in steps of {numbers.step}"
    return f"{kind} from {numbers.low} to {numbers.high}{step}"


def _snap_int(numbers: IntDistribution, value: float) -> tuple[int] | None:
    is_inside = numbers.low <= value <= numbers.high and value.is_integer()
    return (int(value),) if is_inside and (int(value) - numbers.low) % numbers.step == 0 else None


def _snap_float(numbers: FloatDistribution, value: float) -> tuple[float] | None:
    if numbers.step is None:
        return (value + 0.0,) if numbers.low <= value <= numbers.high else None  # + 0.0 makes -0.0 a plain 0.0
    steps = (value - numbers.low) / numbers.step
    is_inside = -0.5 < steps < (count(numbers) or 1) - 0.5
    return (at(numbers, round(steps)),) if is_inside and abs(steps - round(steps)) < 1e-8 else None


def _same(choice: Any, value: Any) -> bool:
    """Tell whether two scalars are one category: 1 and 1.0 are, True and 1 are not, nan and nan are."""
    if isinstance(choice, bool) or isinstance(value, bool):
        return choice is value
    return bool(choice == value) or (_is_nan(choice) and _is_nan(value))


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _numbers(distribution: BaseDistribution) -> IntDistribution | FloatDistribution:
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return distribution
