"""Hydra's ``range`` as a distribution of exactly the values that Hydra itself would run.

The releases of Hydra differ: 1.3 casts a range's bounds and adds floats in binary, 1.4 casts its values
and adds in decimal. Both are read from the parsed sweep, so that a range means here what it means to
the Hydra that is installed. Knows nothing of text and of parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

from hydra.core.override_parser.types import FloatRange, RangeSweep
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

MOST_EXACT = 2**53  # the study stores every number as a float
MOST_STEPS = 1_000_000
MOST_CHOICES = 10_000
MOST_SLACK = 4e-9  # Optuna takes a float for a step's when it is off by less than 1e-8 of the step


def range_distribution(sweep: RangeSweep, is_log: bool) -> BaseDistribution:
    """Return the values of a range, ascending: integers, floats in even steps, or else categories.

    Steps of floats are spelled in decimal, as they are written: 0.3 where binary sums give 0.30000000000000004.

    Raises:
        ValueError: for a range that is empty, without a step, or too long to be counted.
    """
    if sweep.step == 0:
        raise ValueError("the step is 0")
    values = sweep.range()
    row = values if isinstance(values, range) else _decimal_row(sweep, values)
    if not row:
        raise ValueError("the range is empty")
    if isinstance(row, range):
        is_int = isinstance(_cast(sweep, row[0] if isinstance(values, range) else float(row[0])), int)
        return _even(row, is_int, is_log)
    if _cast(sweep, 0.5) == 0:
        return _cut([_cast(sweep, value) for value in row], is_log)
    return _stepped(row, Decimal(str(sweep.step)), is_log)


def ints(low: int, high: int, *, step: int = 1, is_log: bool = False) -> IntDistribution:
    """Return the distribution of integers.

    Raises:
        ValueError: for integers that the study cannot store.
    """
    if max(-low, high) > MOST_EXACT:
        raise ValueError("integers beyond 2**53 lose digits in the study")
    return IntDistribution(low, high, log=is_log, step=step)


def _cast(sweep: RangeSweep, value: float) -> float:
    """Return what ``int()`` and ``float()`` around a range make of a value; Hydra 1.3 has cast the bounds instead."""
    for transformer in getattr(sweep, "transformers", ()):
        value = transformer(value)
    return value


def _decimal_row(sweep: RangeSweep, values: FloatRange) -> range | list[float]:
    """Return as many floats as Hydra takes, in decimal; those that are all whole are not enumerated."""
    start, stop, step = (Decimal(str(number)) for number in (sweep.start, sweep.stop, sweep.step))
    steps = (Fraction(stop) - Fraction(start)) / Fraction(step)
    if max(abs(start), abs(stop), abs(step)) <= MOST_EXACT and start % 1 == step % 1 == 0:
        return range(int(start), int(start) + math.ceil(steps) * int(step), int(step))
    if steps > MOST_STEPS:
        raise ValueError(f"more than {MOST_STEPS} steps, use interval({sweep.start},{sweep.stop})")
    count = sum(1 for _ in values)
    return [float(Fraction(start) + place * Fraction(step)) for place in range(count)]


def _even(row: range, is_int: bool, is_log: bool) -> BaseDistribution:
    """Return the distribution of whole numbers in even steps."""
    low, high = sorted((row[0], row[-1]))
    step = abs(row.step) if high > low else 1
    if is_int:
        return ints(low, high, step=step, is_log=is_log)
    _refuse_log(is_log)
    return FloatDistribution(low, high, step=step)


def _stepped(row: Sequence[float], step: Decimal, is_log: bool) -> BaseDistribution:
    """Return the distribution of floats in even steps, of categories where steps and floats do not add up."""
    _refuse_log(is_log)
    low, high = sorted((row[0], row[-1]))
    stride = abs(step)
    adds_up = Decimal(str(low)) + (len(row) - 1) * stride == Decimal(str(high))
    if len(row) == 1 or (adds_up and math.ulp(max(abs(low), abs(high))) < MOST_SLACK * float(stride)):
        return FloatDistribution(low, high, step=float(stride))
    return _categories(sorted(set(row)))


def _cut(values: Sequence[float], is_log: bool) -> BaseDistribution:
    """Return the distribution of floats whose fractions were cut off; several may be the same then."""
    distinct = sorted(set(values))
    whole = [int(value) for value in distinct]
    row = range(whole[0], whole[-1] + 1, whole[1] - whole[0] if len(whole) > 1 else 1)
    if whole == list(row):
        return _even(row, isinstance(distinct[0], int), is_log)
    _refuse_log(is_log)
    return _categories(distinct)


def _categories(values: Sequence[float]) -> CategoricalDistribution:
    if len(values) > MOST_CHOICES:
        raise ValueError(f"{len(values)} values whose steps are not even: too many digits, round the numbers")
    return CategoricalDistribution(values)


def _refuse_log(is_log: bool) -> None:
    if is_log:
        raise ValueError("a range of floats cannot be log, use tag(log,interval(low,high))")
