"""The search space of a sweep: points by number, their identity, their overrides, and those not yet seen.

`parse` is the one function in which text becomes a space; the words it reads are in `besom.grammar`.
Knows nothing of samplers and studies, or of what the keys mean to a trial.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from hydra.core.config_loader import ConfigLoader
from optuna.distributions import BaseDistribution

from besom import axis, grammar
from besom.errors import SpaceError, one_of
from besom.grammar import override_text

Point = dict[str, Any]
"""A value for each parameter, as the study stores it: {key: None, bool, int, float or str}."""


@dataclass(frozen=True)
class Space:
    """An ordered search space; a point of it is a value for each of ``params``.

    ``params`` maps an override's key (``model.conv.0.filters``, a group as ``model``, ``+key``) to its
    distribution. The categories of the keys in ``encoded`` are override texts (``"[1,2]"``, ``"'a'"``,
    ``"1"``), because Optuna takes no lists and confuses 1, 1.0 and True.
    """

    params: dict[str, BaseDistribution]
    encoded: frozenset[str] = frozenset()

    @cached_property
    def size(self) -> int | None:
        """The number of points; None when a float interval without step makes it infinite."""
        counts = [axis.count(distribution) for distribution in self.params.values()]
        return None if None in counts else math.prod(count for count in counts if count is not None)

    def finite_size(self) -> int:
        """Return the number of points of a finite space.

        Raises:
            SpaceError: for an infinite one, naming the parameters that make it so.
        """
        if self.size is not None:
            return self.size
        endless = [name for name, distribution in self.params.items() if axis.count(distribution) is None]
        raise SpaceError(
            f"the search space is infinite because of {', '.join(endless)}; expected choice(a,b) or "
            f"range(start,stop,step) there, or another sampler than grid"
        )

    def point(self, index: int) -> Point:
        """Return the point at ``index`` (from 0) in row-major order: the last parameter moves fastest.

        Raises:
            SpaceError: for an infinite space.
            IndexError: for an index outside 0 <= index < size.
        """
        if not 0 <= index < self.finite_size():
            raise IndexError(f"point {index} of a space of {self.size} points")
        values = {}
        for name, distribution in reversed(self.params.items()):
            index, place = divmod(index, axis.count(distribution) or 1)
            values[name] = axis.at(distribution, place)
        return {name: values[name] for name in self.params}

    def points(self) -> Iterator[Point]:
        """Yield every point of a finite space in row-major order, one at a time."""
        return (self.point(index) for index in range(self.finite_size()))

    def key(self, point: Mapping[str, Any]) -> str:
        """Return the identity of a point: its index, or its override text in an infinite space.

        Raises:
            SpaceError: for a value outside its distribution.
        """
        if self.size is None:
            return " ".join(self.overrides(point))
        values = self.snapped(point)
        index = 0
        for name, distribution in self.params.items():
            index = index * (axis.count(distribution) or 1) + axis.place(distribution, values[name])
        return str(index)

    def overrides(self, point: Mapping[str, Any]) -> list[str]:
        """Return a point as Hydra's overrides, in the order of ``params``; parsed, each gives the same value and type.

        Raises:
            SpaceError: for a value outside its distribution.
        """
        values = self.snapped(point)
        return [
            f"{name}={values[name] if name in self.encoded else override_text(values[name])}" for name in self.params
        ]

    def encode(self, values: Mapping[str, Any]) -> Point:
        """Return values as a user writes them (lists, dicts; some keys may be absent) as part of a point.

        Raises:
            SpaceError: for a key that is not in the space, or a value outside its distribution.
        """
        for name in values:
            if name not in self.params:
                raise SpaceError(one_of("the parameter", name, self.params))
        return self.snapped({k: override_text(v) if k in self.encoded else v for k, v in values.items()})

    def snapped(self, point: Mapping[str, Any]) -> Point:
        """Return the values of a point exactly as their distributions spell them: 8, not 8.0; 0.3, not 0.1 * 3.

        Raises:
            SpaceError: for a value outside its distribution.
        """
        values: Point = {}
        for name, distribution in self.params.items():
            if name in point:
                snapped = axis.snap(distribution, point[name])
                if not snapped:
                    expected = axis.describe(distribution)
                    raise SpaceError(f"{name}={point[name]!r} is outside the search space; expected {expected}")
                values[name] = snapped[0]
        return values

    def unseen(self, seen: Collection[str], rng: np.random.Generator) -> Point:
        """Return a uniformly random point of a finite space whose key is not in ``seen``.

        Raises:
            SpaceError: for an infinite space, or when every point was seen.
        """
        taken = self._taken(seen)
        return self.point(_nth_untaken(taken, _below(self.finite_size() - len(taken), rng)))

    def first_unseen(self, seen: Collection[str]) -> Point:
        """Return the first point of a finite space, in row-major order, whose key is not in ``seen``.

        Raises:
            SpaceError: for an infinite space, or when every point was seen.
        """
        return self.point(_nth_untaken(self._taken(seen), 0))

    def _taken(self, seen: Collection[str]) -> list[int]:
        size = self.finite_size()
        taken = sorted({int(key) for key in seen})
        if len(taken) >= size:
            raise SpaceError(f"all {size} points of the search space were tried; expected a larger space")
        return taken


def parse(
    params: Mapping[str, Any], overrides: Sequence[str] = (), loader: ConfigLoader | None = None
) -> tuple[Space, list[str]]:
    """Return the search space of a sweep, and the overrides that fix a value, as text.

    Ranges mean what they mean to Hydra, point for point: an integer ``stop`` is excluded, and so is a
    float one unless Hydra's own rounding lets it in (``range(0,0.4,0.1)`` has five points). Float steps
    are written in decimal: 0.3 where Hydra's binary sum is 0.30000000000000004. The order of ``shuffle`` is left
    to the sampler, and a descending range is the same set of points ascending.

    Args:
        params: ``hydra.sweeper.params``: override values as text; other scalars fix a value.
        overrides: the command line's, of which ``key=choice(a,b)`` or ``key=a,b`` sweep; they win over ``params``.
        loader: finds the options of a group for ``group=glob(*)``.

    Raises:
        SpaceError: for text that Hydra cannot read, an empty or impossible distribution, or no parameter at all.
    """
    distributions: dict[str, BaseDistribution] = {}
    encoded: set[str] = set()
    fixed: list[str] = []
    for override in grammar.read(params, overrides, loader):
        if override.is_sweep_override():
            key = override.get_key_element()
            distributions[key], is_encoded = grammar.distribution(override)
            encoded |= {key} if is_encoded else set()
        else:
            fixed.append(grammar.fixed(override))
    if not distributions:
        raise SpaceError(
            "the search space is empty; expected hydra.sweeper.params with at least one key to sweep over, "
            "such as model.activation: choice(relu,tanh), or an override such as model.activation=relu,tanh"
        )
    return Space(distributions, frozenset(encoded)), fixed


def _nth_untaken(taken: Sequence[int], rank: int) -> int:
    """Return the rank-th (from 0) whole number from 0 that is not in ``taken``, which is sorted."""
    for index in taken:
        if index > rank:
            break
        rank += 1
    return rank


def _below(n: int, rng: np.random.Generator) -> int:
    """Return a uniform whole number below ``n``, which may exceed 64 bits."""
    bits = n.bit_length()
    n_bytes = (bits + 7) // 8
    while True:
        drawn = int.from_bytes(rng.bytes(n_bytes), "little") >> (8 * n_bytes - bits)
        if drawn < n:
            return drawn
