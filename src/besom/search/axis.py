"""One parameter of a search space, seen as a row of values: how many, the one at a place, the place of one.

Knows Optuna's distributions and nothing of the space they form.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from decimal import Decimal
from numbers import Real
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from besom.search.grammar import override_text


class Axis(ABC):
    """The values of a distribution, in order, at places from 0."""

    count: int | None
    """The number of values; None for a float interval, which has no places but 0."""

    @abstractmethod
    def at(self, place: int) -> Any:
        """Return the value at a place; that of a float interval is its low end."""

    @abstractmethod
    def place(self, value: Any) -> int | None:
        """Return the place of the value that ``value`` means, None for one outside."""

    @abstractmethod
    def describe(self) -> str:
        """Return what a message says was expected: ``one of 3, 8`` or ``an integer from 1 to 9``."""

    def snap(self, value: Any) -> tuple[Any] | None:
        """Return the value of the distribution that ``value`` means, in a tuple because it may be None."""
        place = self.place(value)
        return None if place is None else (self.at(place),)


class Choices(Axis):
    """The categories of a parameter."""

    def __init__(self, distribution: CategoricalDistribution) -> None:
        self.choices = distribution.choices
        self.count = len(self.choices)
        self._places = {choice: place for place, choice in reversed(list(enumerate(self.choices)))}

    def at(self, place: int) -> Any:
        return self.choices[place]

    def place(self, value: Any) -> int | None:
        try:
            place = self._places.get(value)
        except TypeError:  # a list, which no category is
            return None
        if place is not None and self.choices[place].__class__ is value.__class__:
            return place
        return next((place for place, choice in enumerate(self.choices) if same(choice, value)), None)

    def describe(self) -> str:
        return f"one of {', '.join(override_text(choice) for choice in self.choices)}"


class Ints(Axis):
    """Whole numbers, evenly spaced."""

    def __init__(self, distribution: IntDistribution) -> None:
        self.low, self.high, self.step = distribution.low, distribution.high, distribution.step
        self.count = 1 + (self.high - self.low) // self.step

    def at(self, place: int) -> int:
        return self.low + place * self.step

    def place(self, value: Any) -> int | None:
        if value.__class__ is not int:
            if not _is_number(value) or not float(value).is_integer():
                return None
            value = int(value)
        place, rest = divmod(value - self.low, self.step)
        return place if rest == 0 and self.low <= value <= self.high else None

    def describe(self) -> str:
        return f"an integer from {self.low} to {self.high}" + ("" if self.step == 1 else f" in steps of {self.step}")


class Steps(Axis):
    """Floats, evenly spaced in decimal; one alone needs no step."""

    count: int

    def __init__(self, distribution: FloatDistribution) -> None:
        self.low, self.high, self.step = distribution.low, distribution.high, distribution.step or 1.0
        self.count = 1 + round((self.high - self.low) / self.step)
        # what dividing costs: a few units in the last place of the largest number
        self._slack = min(0.49, 1e-8 + 8 * math.ulp(max(abs(self.low), abs(self.high))) / self.step)

    def at(self, place: int) -> float:
        # in decimal, so that 0.1 * 3 is 0.3
        return float(Decimal(str(self.low)) + place * Decimal(str(self.step)))

    def place(self, value: Any) -> int | None:
        if not _is_number(value):
            return None
        steps = (float(value) - self.low) / self.step
        if not -0.5 < steps < self.count - 0.5:
            return None
        place = round(steps)
        return place if abs(steps - place) < self._slack else None

    def describe(self) -> str:
        return f"a number from {self.low} to {self.high}" + (f" in steps of {self.step}" if self.count > 1 else "")


class Interval(Axis):
    """All floats between two; every one of them is at place 0."""

    count: None

    def __init__(self, distribution: FloatDistribution) -> None:
        self.low, self.high = distribution.low, distribution.high
        self.count = None

    def at(self, place: int) -> float:
        return self.low

    def place(self, value: Any) -> int | None:
        return 0 if _is_number(value) and self.low <= float(value) <= self.high else None

    def snap(self, value: Any) -> tuple[float] | None:
        # + 0.0 makes -0.0 a plain 0.0
        return None if self.place(value) is None else (float(value) + 0.0,)

    def describe(self) -> str:
        return f"a number from {self.low} to {self.high}"


def axis_of(distribution: BaseDistribution) -> Axis:
    """Return a distribution as a row of values."""
    if isinstance(distribution, CategoricalDistribution):
        return Choices(distribution)
    if isinstance(distribution, IntDistribution):
        return Ints(distribution)
    assert isinstance(distribution, FloatDistribution)
    has_places = distribution.step is not None or distribution.low == distribution.high
    return Steps(distribution) if has_places else Interval(distribution)


def at(distribution: BaseDistribution, place: int) -> Any:
    """Return the value of a distribution at a place, see `Axis.at`."""
    return axis_of(distribution).at(place)


def snap(distribution: BaseDistribution, value: Any) -> tuple[Any] | None:
    """Return the value of a distribution that ``value`` means, see `Axis.snap`."""
    return axis_of(distribution).snap(value)


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are one category: 1 and 1.0 are, True and 1 are not, nan and nan are."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other) or (_is_nan(one) and _is_nan(other))


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
