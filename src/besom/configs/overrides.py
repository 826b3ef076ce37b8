"""What kind of override a text is, as Hydra's own parser sees it; and which texts that parser is spared.

It is recursive, and takes seconds for a text of a megabyte.
"""

from __future__ import annotations

import functools

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from besom.errors import ConfigError, quoted

MOST_CHARACTERS = 100_000
"""Of one override; a choice of 10,000 numbers has half of that, and takes the parser two seconds."""
MOST_NESTED = 30
"""Brackets inside brackets; each takes the parser, and Hydra above it, some twenty of Python's 1000 calls."""


class Unreadable(ValueError):
    """A text that is no override; the message says why, and does not repeat it."""


def is_hydra(text: str) -> bool:
    """Return whether an override is about Hydra itself, not about the task."""
    return text.lstrip("+~").startswith(("hydra.", "hydra/"))


def is_sweep(text: str) -> bool:
    """Return whether an override sweeps over values: ``a=1,2``, ``a=choice(1,2)``, ``a=range(1,9)``.

    Raises:
        ConfigError: Hydra cannot read the text.
    """
    return parsed(text).is_sweep_override()


def parsed(text: str) -> Override:
    """Parse one override.

    Raises:
        ConfigError: Hydra cannot read the text.
    """
    try:
        return parse(text)
    except Unreadable as error:
        raise ConfigError(
            f"{quoted(text)} is no override: {error}; expected key=value, such as train.epochs=3"
        ) from error


def parse(text: str) -> Override:
    """Parse one override.

    Raises:
        Unreadable: Hydra cannot read the text, or would not come back from it.
    """
    if len(text) > MOST_CHARACTERS:
        raise Unreadable(f"it has {len(text):,} characters, more than {MOST_CHARACTERS:,}")
    if "\0" in text:
        raise Unreadable("it has a NUL character in it")
    if _depth(text) > MOST_NESTED:
        raise Unreadable(f"its brackets are nested more than {MOST_NESTED} deep")
    try:
        return _parser().parse_override(text)
    # ValueError: an integer of more digits than Python reads
    except (HydraException, AssertionError, ValueError, RecursionError) as error:
        reason = (str(error).splitlines() or ["malformed"])[0]
        raise Unreadable(reason if len(reason) < 500 else "malformed") from error


@functools.cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


def _depth(text: str) -> int:
    """Return how deep brackets are nested, quoted ones included: nobody quotes that many."""
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth -= 1
    return deepest
