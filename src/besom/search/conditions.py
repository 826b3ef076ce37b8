"""Conditions of ``hydra.sweeper.params``: a parameter that exists only ``when`` others have a value.

    model.conv.2.filters: {when: {model.depth: 3}, sweep: "choice(4,8)"}

``when`` maps a key of the same params, declared before, to one value or a list of values, any of which
will do; all its keys must hold. A parent may be conditional itself. What the command line makes of a
parent decides here: fixed to a value, or narrowed to some, it makes its conditions true or impossible.
Knows nothing of text and of points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from besom.errors import SpaceError, one_of
from besom.search.axis import Axis, same
from besom.search.grammar import override_text

FIELDS = ("when", "sweep")
MOST_VALUES = 1000

Needs = Mapping[str, frozenset[int]]
"""The places of the values that parameters must have, by their names."""


def bare(key: str) -> str:
    """Return a key without the prefix that says how it is put into the config: ``+a`` is the parameter ``a``."""
    return key.lstrip("+")


def split(params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Mapping[str, Any]]]:
    """Return what each key of ``hydra.sweeper.params`` is swept over or fixed to, and the conditions by bare key.

    Raises:
        SpaceError: for an entry with other keys than ``when`` and ``sweep``.
    """
    sweeps, whens = {}, {}
    for key, entry in params.items():
        if isinstance(entry, Mapping) and not set(entry).isdisjoint(FIELDS):
            sweeps[key], whens[bare(key)] = _declared(f"hydra.sweeper.params.{key}", entry)
        else:
            sweeps[key] = entry
            whens.pop(bare(key), None)
    return sweeps, whens


def _declared(where: str, entry: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    for word in entry:
        if word not in FIELDS:
            raise SpaceError(f"{where}: " + one_of("the key", word, FIELDS))
    for word in FIELDS:
        if word not in entry:
            raise SpaceError(f"{where} has no {word}; expected {{when: {{key: value}}, sweep: choice(a,b)}}")
    when = entry["when"]
    if not isinstance(when, Mapping) or not when:
        raise SpaceError(f"{where}.when={when!r} is no condition; expected {{key: value}} or {{key: [value, value]}}")
    return entry["sweep"], when


@dataclass(frozen=True)
class Parent:
    """What became of a key that others may depend on.

    Args:
        name: in the space, with its prefix.
        is_declared: whether ``hydra.sweeper.params`` says so; else the command line does.
        axis: its values; None where it is fixed.
        is_encoded: whether they are override texts.
        value: that it is fixed to.
        is_dropped: whether its own condition can never hold.
        needs: what must hold for it to exist, all the way up.
    """

    name: str
    is_declared: bool
    axis: Axis | None = None
    is_encoded: bool = False
    value: Any = None
    is_dropped: bool = False
    needs: Needs = field(default_factory=dict)


class Conditions:
    """Resolves the conditions of a space while its keys are read in order.

    Args:
        order: the bare keys of ``hydra.sweeper.params``, as declared.
        whens: the conditions, by bare key.
    """

    def __init__(self, order: Sequence[str], whens: Mapping[str, Mapping[str, Any]]) -> None:
        self._order = [bare(key) for key in order]
        self._whens = whens
        self._parents: dict[str, Parent] = {}

    def add(self, parent: Parent) -> None:
        """Note what became of a key."""
        self._parents[bare(parent.name)] = parent

    def resolve(self, name: str) -> tuple[dict[str, tuple[Any, ...]], Needs] | None:
        """Return the values that each parent of a key must have, and what it needs; None if it can never exist.

        Parents that have such a value always are left out.

        Raises:
            SpaceError: for a condition that is a mistake in ``hydra.sweeper.params``.
        """
        needs: dict[str, frozenset[int]] = {}
        found: dict[str, tuple[Any, ...]] = {}
        for key, wanted in self._whens.get(bare(name), {}).items():
            where = f"hydra.sweeper.params.{name}.when"
            parent = self._parent(where, bare(name), bare(key))
            places = _places(where, parent, wanted if isinstance(wanted, list | tuple) else [wanted])
            if not places:
                return None
            if parent.axis is None or (len(places) == parent.axis.count and not parent.needs):
                continue
            found[parent.name] = tuple(parent.axis.at(place) for place in sorted(places))
            for ancestor, needed in [*parent.needs.items(), (parent.name, places)]:
                needs[ancestor] = needs.get(ancestor, needed) & needed
        if all(needs.values()):
            return found, needs
        self._refuse_contradiction(name, needs)
        return None

    def _refuse_contradiction(self, name: str, needs: Needs) -> None:
        """Refuse a parameter that can never exist, unless it is the command line that made it so."""
        if all(self._parents[bare(ancestor)].is_declared for ancestor in needs):
            at_odds = next(ancestor for ancestor, places in needs.items() if not places)
            raise SpaceError(
                f"hydra.sweeper.params.{name}.when can never hold: its conditions and those of its parents want "
                f"different values of {at_odds}; expected some value that all of them allow"
            )

    def _parent(self, where: str, key: str, parent: str) -> Parent:
        if parent not in self._order:
            known = [other for other in self._order if other != key]
            raise SpaceError(f"{where}: " + one_of("the parameter", parent, known))
        if circle := self._circle(key, parent):
            raise SpaceError(f"{where}: {' depends on '.join(circle)}; expected no circle")
        if self._order.index(parent) > self._order.index(key):
            raise SpaceError(f"{where}: {parent} is declared after {key}; expected it before, move it up")
        return self._parents[parent]

    def _circle(self, key: str, parent: str) -> list[str] | None:
        """Return the way from a key over its parent back to itself, if there is one."""
        ways, seen = [[key, parent]], {parent}
        while ways:
            way = ways.pop()
            if way[-1] == key:
                return way
            following = [bare(other) for other in self._whens.get(way[-1], ()) if bare(other) not in seen]
            seen.update(following)
            ways += [[*way, other] for other in following]
        return None


def _places(where: str, parent: Parent, wanted: Sequence[Any]) -> frozenset[int]:
    """Return the places of the wanted values; of a parent that is fixed to one of them, place 0."""
    if not wanted:
        raise SpaceError(f"{where}: {parent.name} has no values; expected at least one")
    if parent.is_dropped:
        return frozenset()
    if parent.axis is None:
        return frozenset({0} if _is_fixed_to(where, parent, wanted) else ())
    _refuse_many(where, parent, parent.axis)
    places = set()
    for value in wanted:
        place = parent.axis.place(override_text(value) if parent.is_encoded else value)
        if place is not None:
            places.add(place)
        elif parent.is_declared:
            expected = parent.axis.describe()
            raise SpaceError(f"{where}: {parent.name}={value!r} is outside the search space; expected {expected}")
    return frozenset(places)


def _is_fixed_to(where: str, parent: Parent, wanted: Sequence[Any]) -> bool:
    if parent.is_declared:
        raise SpaceError(
            f"{where}: {parent.name} is fixed to {override_text(parent.value)}; expected a parameter with several "
            f"values, such as {parent.name}: choice(a,b), or no condition"
        )
    if isinstance(parent.value, str) and "${" in parent.value:
        raise SpaceError(f"{where}: {parent.name}={parent.value} is not known before the trial; expected a plain value")
    return any(same(value, parent.value) for value in wanted)


def _refuse_many(where: str, parent: Parent, axis: Axis) -> None:
    if axis.count is None or axis.count > MOST_VALUES:
        has = "infinitely many" if axis.count is None else axis.count
        raise SpaceError(
            f"{where}: {parent.name} has {has} values; expected choice(a,b) or a range of at most {MOST_VALUES} "
            "for a parameter that others depend on"
        )
