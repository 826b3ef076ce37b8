"""Every exception of besom, split by what the caller should do.

    BesomError
    ├── UserError        the user must mend the input        → exit 2, nothing was touched
    │   ├── ConfigError      a key, a value, a YAML file
    │   ├── GeometryError    a kernel or pool that does not fit its feature map
    │   ├── DataError        a data file that is missing, corrupt or of the wrong shape
    │   ├── SpaceError       a search space that cannot be searched
    │   ├── ResumeError      settings that differ from those the sweep was started with
    │   ├── SweepLocked      another living process runs this sweep
    │   ├── StoreDamaged     a file of the store that cannot be read
    │   ├── StoreReadOnly    a store that can only be read
    │   └── NotFound         a sweep, run or store that does not exist
    ├── TrialError       this trial failed, the sweep goes on → state FAIL
    │   └── NonFinite        loss or objective became nan or inf
    ├── TrialPruned      this trial was stopped early, no failure → state PRUNED
    ├── DiskFull         the disk has no room                 → exit 1, the same command goes on
    ├── StoreBusy        another program locks a database     → exit 1, likewise
    └── SweepStopped     the sweep must stop                  → exit 1

A message says what was received, what was expected and how to mend it, on one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from besom.withheld import withheld

MOST_QUOTED = 200
"""Characters of a value that a message repeats."""
MOST_SHOWN = 10_000
"""Characters of a message that a terminal gets; a resumed sweep may list many changes."""


class BesomError(Exception):
    """Base of all errors that besom raises on purpose."""

    exit_code = 1


class UserError(BesomError):
    """The input is wrong; nothing was created or changed."""

    exit_code = 2


class ConfigError(UserError):
    """A key or value of the configuration is wrong."""


class GeometryError(UserError):
    """A layer does not fit the feature map it is given."""


class DataError(UserError):
    """A data file or loader does not give usable arrays."""


class SpaceError(UserError):
    """The search space is empty, malformed or not searchable."""


class ResumeError(UserError):
    """A sweep was resumed with other settings than it was started with."""


class SweepLocked(UserError):
    """Another living process runs this sweep."""


class StoreDamaged(UserError):
    """A file of the store is not what it must be; it is left as it is."""


class StoreReadOnly(UserError):
    """The store can be read and not be written."""


class NotFound(UserError):
    """The named sweep, run or store does not exist."""


class TrialError(BesomError):
    """One trial failed for a reason of its own; the sweep goes on."""


class NonFinite(TrialError):
    """The loss or the objective became nan or inf."""


class TrialPruned(BesomError):
    """The pruner stopped this trial; raised by `besom.report`."""


class DiskFull(BesomError):
    """There is no room on a disk; what was finished is whole, and the rest can be taken up again."""


class StoreBusy(BesomError):
    """Another program has kept a database locked for longer than one waits."""


class SweepStopped(BesomError):
    """Too many trials failed; the sweep was stopped."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known word, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def one_of(name: str, received: object, known: Iterable[str]) -> str:
    """Return the message for a value that is not one of the ``known`` words."""
    words = list(known)
    near = did_you_mean(str(received)[:MOST_QUOTED], words)
    return f"{name}={quoted(received)} is not known; expected one of {', '.join(words)}{near}"


def quoted(value: object) -> str:
    """Return a value as a message quotes it: as Python writes it, cut where it is long."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deep; an integer of more than 4300 digits
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= MOST_QUOTED else f"{text[:MOST_QUOTED]}… ({len(text):,} characters)"


def shown(error: BaseException) -> str:
    """Return an exception's message as a terminal shows it: one line, no control characters, no megabytes.

    What a message quotes may be anybody's: a file, a run's tag, a name in a database.
    """
    text = discreet(error)
    cut = text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}… ({len(text):,} characters)"
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in cut)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came from, the nearest first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def one_line(error: BaseException) -> str:
    """Return the first 200 characters of an exception's message on one line, secrets left out; its type's name where it
    has none.
    """
    return discreet(error)[:200] or type(error).__name__


def discreet(error: BaseException) -> str:
    """Return an exception's message on one line, without secrets: they are looked for before anything is cut."""
    return " ".join(withheld(str(error)).split())
