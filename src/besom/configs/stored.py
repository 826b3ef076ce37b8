"""A frozen config that comes as text from a store, a server or somebody's folder: data, of which nothing runs.

Knows nothing of what the keys mean; which targets it may name is `besom.retrain.trust`'s to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from besom.configs.files import refuse_avalanche
from besom.errors import ConfigError, one_line

MOST_CHARACTERS = 1_000_000
"""A frozen config has some thousand; without a limit a text could keep the parser busy for hours."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml is untyped here
    """YAML's safe loader, without aliases: a few lines of them can stand for more than fits into memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias, which a frozen config never has")
        return super().compose_node(parent, index)


def read_stored(text: str, name: str) -> dict[str, Any]:
    """Return a frozen config.

    Args:
        name: what to call it in a message.

    Raises:
        ConfigError: it is no YAML, more than plain values, no mapping, or has in it an interpolation, ``???`` or an
            integer of more than 64 bits.
    """
    if len(text) > MOST_CHARACTERS:
        raise ConfigError(f"{name} has {len(text):,} characters; expected a config of at most {MOST_CHARACTERS:,}")
    try:
        refuse_avalanche(text)
        found = yaml.load(text, _Loader)
    except Exception as error:  # PyYAML raises nearly anything for a tag on a value that is none of its kind
        raise ConfigError(f"{name} cannot be read: {one_line(error)}; expected plain YAML values") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ConfigError(f"{name} is no mapping with text for keys; expected one with data, model and train")
    if wrong := next(filter(None, map(_unusable, _scalars(found))), None):
        raise ConfigError(f"{name} has {wrong}; expected values, as a frozen config has them")
    return found


def _unusable(value: Any) -> str | None:
    """Return what is wrong with a value that no frozen config has, None of any other."""
    if isinstance(value, str):
        if "${" in value:
            return f"an interpolation, {value[:80]!r}"
        return "'???', a value that is missing" if value == "???" else None
    is_long = isinstance(value, int) and not -(2**63) <= value < 2**64
    return "an integer of more than 64 bits" if is_long else None


def _scalars(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for inner in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _scalars(inner)
    else:
        yield value
