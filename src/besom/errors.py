"""Every exception of besom, split by what the caller should do.

    BesomError
    ├── UserError        the user must mend the input        → exit 2, nothing was touched
    │   ├── ConfigError      a key, a value, a YAML file
    │   ├── GeometryError    a kernel or pool that does not fit its feature map
    │   ├── DataError        a data file that is missing, corrupt or of the wrong shape
    │   ├── SpaceError       a search space that cannot be searched
    │   ├── ResumeError      settings that differ from those the sweep was started with
    │   ├── SweepLocked      another living process runs this sweep
    │   └── NotFound         a sweep, run or store that does not exist
    ├── TrialError       this trial failed, the sweep goes on → state FAIL
    │   └── NonFinite        loss or objective became nan or inf
    ├── TrialPruned      this trial was stopped early, no failure → state PRUNED
    └── SweepStopped     the sweep must stop                  → exit 1

A message says what was received, what was expected and how to mend it, on one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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


class NotFound(UserError):
    """The named sweep, run or store does not exist."""


class TrialError(BesomError):
    """One trial failed for a reason of its own; the sweep goes on."""


class NonFinite(TrialError):
    """The loss or the objective became nan or inf."""


class TrialPruned(BesomError):
    """The pruner stopped this trial; raised by `besom.report`."""


class SweepStopped(BesomError):
    """Too many trials failed; the sweep was stopped."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known word, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def one_of(name: str, received: object, known: Iterable[str]) -> str:
    """Return the message for a value that is not one of the ``known`` words."""
    words = list(known)
    return f"{name}={received!r} is not known; expected one of {', '.join(words)}" + did_you_mean(str(received), words)


def one_line(error: BaseException) -> str:
    """Return the first 200 characters of an exception's message on one line, its type's name where it has none."""
    return " ".join(str(error).split())[:200] or type(error).__name__
