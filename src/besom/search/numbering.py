"""The points of a finite space by number: a decision tree whose equal branches are one.

A path from the root to the end is a point: at each step one parameter takes one of its values. Where
later parameters depend on the value, the paths fork there; parameters that do not exist are skipped.
Each step knows how many points follow, so that a number leads to its point and back without counting.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from besom.errors import SpaceError
from besom.search.axis import Axis

MOST_STATES = 4096

State = tuple[tuple[str, int], ...]
"""What later parameters must know of earlier ones: the places of their values, as far as these matter."""


class Step(ABC):
    """One parameter that exists, and what follows each of its values."""

    name: str
    axis: Axis
    size: int
    """The number of points from here on."""

    @abstractmethod
    def before(self, place: int) -> int:
        """Return the number of points, from here on, that come before those with the value at a place."""

    @abstractmethod
    def after(self, place: int) -> Step | None:
        """Return the next step, None at the end."""

    @abstractmethod
    def place(self, index: int) -> int:
        """Return the place of the value that the point of an index has."""


class Plain(Step):
    """A parameter on whose value no other depends."""

    def __init__(self, name: str, axis: Axis, after: Step | None) -> None:
        self.name, self.axis = name, axis
        self._after, self._tail = after, _size(after)
        self.size = (axis.count or 1) * self._tail

    def before(self, place: int) -> int:
        return place * self._tail

    def after(self, place: int) -> Step | None:
        return self._after

    def place(self, index: int) -> int:
        return index // self._tail


class Fork(Step):
    """A parameter on whose value others depend: a next step for each of its values."""

    def __init__(self, name: str, axis: Axis, afters: list[Step | None]) -> None:
        self.name, self.axis = name, axis
        self._afters = afters
        *self._before, self.size = accumulate(map(_size, afters), initial=0)

    def before(self, place: int) -> int:
        return self._before[place]

    def after(self, place: int) -> Step | None:
        return self._afters[place]

    def place(self, index: int) -> int:
        return bisect_right(self._before, index) - 1


def _size(step: Step | None) -> int:
    return 1 if step is None else step.size


class Numbering:
    """Numbers the points of a finite space in row-major order, from 0: the last parameter moves fastest.

    Args:
        axes: the parameters in declared order, all finite.
        conditions: for a parameter that does not always exist, the values that each of its parents must have.

    Raises:
        SpaceError: when more than `MOST_STATES` combinations of parents must be kept apart at once.
    """

    def __init__(self, axes: Mapping[str, Axis], conditions: Mapping[str, Mapping[str, tuple[Any, ...]]]) -> None:
        self._axes = axes
        self._names = list(axes)
        self._allowed = {
            name: {parent: _places(axes[parent], values) for parent, values in parents.items()}
            for name, parents in conditions.items()
        }
        self._last_use = {parent: i for i, name in enumerate(self._names) for parent in self._allowed.get(name, ())}
        self._alike = {parent: self._alike_places(parent) for parent in self._last_use}
        self._root = self._build()
        self.size = _size(self._root)

    def index(self, point: Mapping[str, Any]) -> int:
        """Return the number of a point; values of parameters that do not exist there are not looked at.

        Raises:
            KeyError: a value is missing; the argument is the parameter.
            ValueError: a value is outside; the argument is the parameter.
        """
        index, step = 0, self._root
        while step is not None:
            place = step.axis.place(point[step.name])
            if place is None:
                raise ValueError(step.name)
            index += step.before(place)
            step = step.after(place)
        return index

    def point(self, index: int) -> dict[str, Any]:
        """Return the point of a number, 0 <= index < size: a value for each parameter that exists there."""
        point, step = {}, self._root
        while step is not None:
            place = step.place(index)
            point[step.name] = step.axis.at(place)
            index -= step.before(place)
            step = step.after(place)
        return point

    def _alike_places(self, parent: str) -> list[int]:
        """Return, for each value of a parent, the place of the first that all conditions treat alike."""
        conditions = [allowed[parent] for allowed in self._allowed.values() if parent in allowed]
        first: dict[tuple[bool, ...], int] = {}
        return [
            first.setdefault(tuple(place in places for places in conditions), place)
            for place in range(self._axes[parent].count or 1)
        ]

    def _build(self) -> Step | None:
        levels: list[set[State]] = [{()}]
        for i in range(len(self._names)):
            levels.append({after for state in levels[i] for after in self._afters(i, state)})
            if len(levels[-1]) > MOST_STATES:
                raise SpaceError(
                    f"too many parameters wait for their conditions at {self._names[i]}: more than {MOST_STATES} "
                    "combinations of parents; expected each conditional parameter right after those it depends on"
                )
        steps: dict[State, Step | None] = {(): None}
        for i in reversed(range(len(self._names))):
            steps = {state: self._step(i, state, steps) for state in levels[i]}
        return steps[()]

    def _afters(self, i: int, state: State) -> list[State]:
        """Return the states in which a parameter may leave those after it, one for each place or one for all."""
        name = self._names[i]
        if not self._exists(name, state) or name not in self._last_use:
            return [self._kept(i, state)]
        after = {place: self._kept(i, (*state, (name, place))) for place in set(self._alike[name])}
        return [after[place] for place in self._alike[name]]

    def _step(self, i: int, state: State, following: Mapping[State, Step | None]) -> Step | None:
        name, afters = self._names[i], [following[after] for after in self._afters(i, state)]
        if not self._exists(name, state):
            return afters[0]
        if name in self._last_use:
            return Fork(name, self._axes[name], afters)
        return Plain(name, self._axes[name], afters[0])

    def _exists(self, name: str, state: State) -> bool:
        known = dict(state)
        return all(known.get(parent) in places for parent, places in self._allowed.get(name, {}).items())

    def _kept(self, i: int, state: State) -> State:
        return tuple((parent, place) for parent, place in state if self._last_use[parent] > i)


def _places(axis: Axis, values: tuple[Any, ...]) -> frozenset[int | None]:
    return frozenset(axis.place(value) for value in values)
