"""A column by what people call it: its name, its title in a table, or an end of its name that no other one has."""

from __future__ import annotations

from collections.abc import Iterable

from besom.errors import ConfigError, did_you_mean
from besom.tables import title


def column_named(name: str, columns: Iterable[str]) -> str:
    """Return the column of that name, of that title in the table, or the only one that ends with it.

    Raises:
        ConfigError: there is none, or more than one.
    """
    known = list(columns)
    same = [one for one in known if one == name]
    titled = [one for one in known if title(one) == name]
    found = same or titled or [one for one in known if one.endswith(f".{name}")]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"column {name!r} may be any of {', '.join(found)}; expected more of its name")
    ends = {end: one for one in known for end in _ends(one)}
    raise ConfigError(f"there is no column {name!r}; expected one of {', '.join(known)}{did_you_mean(name, ends)}")


def _ends(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[place:]) for place in range(len(parts))]
