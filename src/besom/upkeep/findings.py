"""What `besom doctor` finds: a level, where, what is wrong and how to mend it. Knows nothing of what is looked at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

LEVELS = ("error", "warning", "note")
"""An error: something is lost or cannot be used. A warning: something is to be mended. A note: good to know."""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be, or good to know.

    Args:
        where: a file, a sweep, ``SWEEP/NUMBER`` of a trial, a run, or what of the machine it is about.
        mend: the command or the words that mend it; empty of a note.
    """

    level: str
    where: str
    what: str
    mend: str = ""

    def to_row(self) -> dict[str, Any]:
        return asdict(self)


def error(where: str, what: str, mend: str) -> Finding:
    return Finding("error", where, what, mend)


def warning(where: str, what: str, mend: str) -> Finding:
    return Finding("warning", where, what, mend)


def note(where: str, what: str, mend: str = "") -> Finding:
    return Finding("note", where, what, mend)


def by_level(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings, the worst first; of one level in the order in which they were found."""
    return sorted(findings, key=lambda one: LEVELS.index(one.level))


def worst(findings: Sequence[Finding]) -> str | None:
    """Return the worst level there is, None where nothing was found."""
    return min((one.level for one in findings), key=LEVELS.index, default=None)


def some(things: Iterable[object], most: int = 5) -> str:
    """Return the first few things as a list in a sentence, and how many more there are."""
    every = [str(thing) for thing in things]
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
