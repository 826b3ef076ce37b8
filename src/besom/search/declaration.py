"""``hydra.sweeper.params`` and the command line, read together: what is swept, on what conditions, and what is fixed.

Knows how the two are merged, and nothing of the points that come of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from optuna.distributions import BaseDistribution

from besom.search import grammar
from besom.search.axis import axis_of
from besom.search.conditions import Conditions, Parent, bare, split


@dataclass
class Draft:
    """A space in the making: see `besom.search.space.Space`; ``fixed`` are the overrides that fix a value, as text."""

    params: dict[str, BaseDistribution] = field(default_factory=dict)
    encoded: set[str] = field(default_factory=set)
    conditions: dict[str, Mapping[str, tuple[Any, ...]]] = field(default_factory=dict)
    fixed: list[str] = field(default_factory=list)

    def sweep(self, entry: Entry, conditions: Conditions) -> Parent:
        """Take a key that is swept, unless its conditions can never hold."""
        distribution, is_encoded = grammar.distribution(entry.override)
        resolved = conditions.resolve(entry.name) if entry.is_declared else ({}, {})
        if resolved is None:
            return Parent(entry.name, entry.is_declared, is_dropped=True)
        self.params[entry.name] = distribution
        if is_encoded:
            self.encoded.add(entry.name)
        found, needs = resolved
        if found:
            self.conditions[entry.name] = found
        return Parent(entry.name, entry.is_declared, axis_of(distribution), is_encoded, needs=needs)

    def fix(self, entry: Entry) -> Parent:
        """Take a key that has one value."""
        self.fixed.append(grammar.fixed(entry.override))
        return Parent(entry.name, entry.is_declared, value=entry.override.value())


@dataclass(frozen=True)
class Entry:
    """One key's last word: an override, of ``hydra.sweeper.params`` or else of the command line."""

    override: Override
    is_declared: bool

    @property
    def name(self) -> str:
        return self.override.get_key_element()


def read(params: Mapping[str, Any], overrides: Sequence[str], loader: ConfigLoader | None) -> Draft:
    """Read everything, in order; the arguments and errors are those of `besom.search.space.parse`."""
    sweeps, whens = split(params)
    conditions = Conditions(list(sweeps), whens)
    draft = Draft()
    for entry in _merged(sweeps, overrides, loader):
        has_condition = entry.is_declared and bare(entry.name) in whens
        is_swept = has_condition or entry.override.is_sweep_override()
        conditions.add(draft.sweep(entry, conditions) if is_swept else draft.fix(entry))
    return draft


def _merged(sweeps: Mapping[str, Any], overrides: Sequence[str], loader: ConfigLoader | None) -> list[Entry]:
    """Return all overrides, read: the last of a key wins and keeps the place of the first."""
    entries: dict[tuple[Any, ...], Entry] = {}
    given = [Entry(grammar.override_of(key, value), True) for key, value in sweeps.items()]
    given += [Entry(grammar.parsed(text), False) for text in overrides]
    for entry in given:
        override = entry.override
        override.config_loader = loader
        extends = len(entries) if override.type.name == "EXTEND_LIST" else None  # adds to what is there
        entries[override.is_delete(), override.key_or_group, override.package, extends] = entry
    return list(entries.values())
