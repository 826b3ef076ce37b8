"""The search space of a sweep: points by number, their identity, their overrides, and those not yet seen.

`parse` is the one function in which text becomes a space; the words it reads are in `besom.search.grammar` and
`besom.search.conditions`. Knows nothing of samplers and studies, or of what the keys mean to a trial.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
from hydra.core.config_loader import ConfigLoader
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import BaseTrial

from besom.errors import SpaceError, one_of
from besom.search import grammar
from besom.search.axis import Axis, axis_of, same
from besom.search.declaration import read
from besom.search.grammar import override_text
from besom.search.numbering import Numbering

Point = dict[str, Any]
"""A value for each parameter that exists there, as the study stores it: {key: None, bool, int, float or str}."""


@dataclass(frozen=True)
class Space:
    """An ordered search space; a point of it is a value for each of ``params`` that is active there.

    ``params`` maps an override's key (``model.conv.0.filters``, a group as ``model``, ``+key``) to its
    distribution. The categories of the keys in ``encoded`` are override texts (``"[1,2]"``, ``"'a'"``,
    ``"1"``), because Optuna takes no lists and confuses 1, 1.0 and True. ``conditions`` maps a parameter
    that exists in some points only to the values that its parents must have, {parent: (value, …)}; all
    parents come before it and have a finite number of values. Elsewhere it is absent.
    """

    params: dict[str, BaseDistribution]
    encoded: frozenset[str] = frozenset()
    conditions: Mapping[str, Mapping[str, tuple[Any, ...]]] = field(default_factory=dict)

    @property
    def is_conditional(self) -> bool:
        """Whether some points have other parameters than others."""
        return bool(self.conditions)

    def is_active(self, name: str, values: Mapping[str, Any]) -> bool:
        """Tell whether a parameter exists in a point; the values of those declared before it suffice."""
        return all(
            parent in values and any(same(one, values[parent]) for one in allowed)
            for parent, allowed in self.conditions.get(name, {}).items()
        )

    def suggest(self, trial: BaseTrial) -> Point:
        """Have a trial suggest every active parameter, in declared order, under its key; return the point.

        Raises:
            SpaceError: for a value outside its distribution.
        """
        point: Point = {}
        for name, distribution in self.params.items():
            if self.is_active(name, point):
                point[name] = self._snap(name, _suggested(trial, name, distribution))
        return point

    @cached_property
    def size(self) -> int | None:
        """The number of distinct points; None when a float interval without step makes it infinite."""
        return None if any(axis.count is None for axis in self._axes.values()) else self._numbering.size

    @cached_property
    def _axes(self) -> dict[str, Axis]:
        return {name: axis_of(distribution) for name, distribution in self.params.items()}

    @cached_property
    def _numbering(self) -> Numbering:
        return Numbering(self._axes, self.conditions)

    def finite_size(self) -> int:
        """Return the number of points of a finite space.

        Raises:
            SpaceError: for an infinite one, naming the parameters that make it so.
        """
        if self.size is not None:
            return self.size
        endless = [name for name, axis in self._axes.items() if axis.count is None]
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
        return self._numbering.point(index)

    def points(self) -> Iterator[Point]:
        """Yield every point of a finite space in row-major order, one at a time."""
        return (self.point(index) for index in range(self.finite_size()))

    def key(self, point: Mapping[str, Any]) -> str:
        """Return the identity of a point: its index, or its override text in an infinite space.

        Values of parameters that do not exist there make no difference.

        Raises:
            SpaceError: for a value that is missing or outside its distribution.
        """
        if self.size is None:
            return " ".join(self.overrides(point))
        try:
            return str(self._numbering.index(point))
        except KeyError as error:
            raise SpaceError(f"the point has no value for {error.args[0]}") from error
        except ValueError as error:
            self._refuse(error.args[0], point[error.args[0]])

    def overrides(self, point: Mapping[str, Any]) -> list[str]:
        """Return a point as Hydra's overrides, in the order of ``params``; parsed, each gives the same value and type.

        Raises:
            SpaceError: for a value that is missing or outside its distribution.
        """
        values = self.snapped(point)
        for name in self.params:
            if name not in values and self.is_active(name, values):
                raise SpaceError(f"the point has no value for {name}")
        return [f"{name}={value if name in self.encoded else override_text(value)}" for name, value in values.items()]

    def encode(self, values: Mapping[str, Any]) -> Point:
        """Return values as a user writes them (lists, dicts; some keys may be absent) as part of a point.

        Raises:
            SpaceError: for a key that is not in the space or does not exist beside the others, or a value
                outside its distribution.
        """
        for name in values:
            if name not in self.params:
                raise SpaceError(one_of("the parameter", name, self.params))
        encoded = {name: override_text(value) if name in self.encoded else value for name, value in values.items()}
        point = self.snapped(encoded)
        for name in encoded:
            if name not in point:
                needs = self._needed(name)
                raise SpaceError(f"{name} does not exist there, it needs {needs}; expected no value for it")
        return point

    def decode(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of a point as a user writes them; those of parameters outside the space as they are.

        Raises:
            SpaceError: for a value outside its distribution.
        """
        values = {**point, **self.snapped(point)}
        return {name: grammar.value_of(value) if name in self.encoded else value for name, value in values.items()}

    def snapped(self, point: Mapping[str, Any]) -> Point:
        """Return the values of a point exactly as their distributions spell them: 8, not 8.0; 0.3, not 0.1 * 3.

        Values of parameters that do not exist beside the others are left out, as are unknown parameters.

        Raises:
            SpaceError: for a value outside its distribution.
        """
        values: Point = {}
        for name in self.params:
            if name in point and not (self.conditions and self._is_ruled_out(name, values)):
                values[name] = self._snap(name, point[name])
        return values

    def _snap(self, name: str, value: Any) -> Any:
        snapped = self._axes[name].snap(value)
        return snapped[0] if snapped else self._refuse(name, value)

    def _refuse(self, name: str, value: Any) -> NoReturn:
        expected = self._axes[name].describe()
        raise SpaceError(f"{name}={value!r} is outside the search space; expected {expected}")

    def _is_ruled_out(self, name: str, values: Mapping[str, Any]) -> bool:
        """Tell whether a parameter cannot exist beside some values, whatever the missing ones are."""
        return any(
            not any(same(one, values[parent]) for one in allowed)
            if parent in values
            else self._is_ruled_out(parent, values)
            for parent, allowed in self.conditions.get(name, {}).items()
        )

    def _needed(self, name: str) -> str:
        return " and ".join(
            f"{parent}={' or '.join(one if parent in self.encoded else override_text(one) for one in allowed)}"
            for parent, allowed in self.conditions[name].items()
        )

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
    params: Mapping[str, Any],
    overrides: Sequence[str] = (),
    loader: ConfigLoader | None = None,
    may_be_empty: bool = False,
) -> tuple[Space, list[str]]:
    """Return the search space of a sweep, and the overrides that fix a value, as text.

    Ranges have exactly the values that the installed Hydra would run: an integer ``stop`` is excluded, and so
    is a float one, unless Hydra 1.3's own rounding lets it in (``range(0,0.4,0.1)`` has five points there, four
    in 1.4). Float steps are written in decimal: 0.3 where a binary sum is 0.30000000000000004. The order of
    ``shuffle`` is left to the sampler, and a descending range is the same set of points ascending.

    A parameter that exists only ``when`` others have a value is declared as `besom.search.conditions` says. The
    command line replaces a parameter of ``params`` wholly, its condition included. A parent that it fixes
    decides the conditions on it: what depends on it is always there or dropped. A parent that it narrows
    drops what none of its values allows.

    Args:
        params: ``hydra.sweeper.params``: override values as text; other scalars fix a value; dicts of ``when`` and
            ``sweep``.
        overrides: the command line's, of which ``key=choice(a,b)`` or ``key=a,b`` sweep; they win over ``params``
            and keep their place.
        loader: finds the options of a group for ``group=glob(*)``.
        may_be_empty: whether a space without parameters, which has one point, will do.

    Raises:
        SpaceError: for text that Hydra cannot read, an empty or impossible distribution, a condition that is a
            mistake, or no parameter at all.
    """
    draft = read(params, overrides, loader)
    if not draft.params and not may_be_empty:
        raise SpaceError(
            "the search space is empty; expected hydra.sweeper.params with at least one key to sweep over, "
            "such as model.activation: choice(relu,tanh), or an override such as model.activation=relu,tanh"
        )
    space = Space(draft.params, frozenset(draft.encoded), draft.conditions)
    space.size  # noqa: B018  # raises where conditions cannot be counted
    return space, draft.fixed


def _suggested(trial: BaseTrial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


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
