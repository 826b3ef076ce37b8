"""What the tests of bad input share: how many examples, what a message must be, what must not have changed.

``BESOM_EXAMPLES=50`` runs fifty times as many examples, other ones each time; without it they are the same everywhere.
"""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import HealthCheck, settings

from besom.errors import MOST_SHOWN, BesomError, UserError, shown

TIMES = int(os.environ.get("BESOM_EXAMPLES", "1"))


def examples(number: int) -> settings:
    """Return the settings of a property that tries so many examples, or `TIMES` as many."""
    return settings(
        max_examples=number * TIMES,
        derandomize=TIMES == 1,
        database=None,
        deadline=None,  # other processes may have the cores
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
    )


def told(error: BesomError, *words: str) -> str:
    """Return what a terminal shows of an error of the user's: one printable line of some size, with these words."""
    line = shown(error)
    assert isinstance(error, UserError), repr(error)
    assert line.isprintable(), repr(line)
    assert "expected" in line, f"it does not say what was expected: {line}"
    assert len(line) < MOST_SHOWN
    for word in words:
        assert word in line, f"{word!r} is not in: {line}"
    return line


def contents(folder: Path) -> dict[str, bytes | int | None]:
    """Return every file below a folder with its bytes, the size of a large one, None for what is no plain file."""
    return {str(path.relative_to(folder)): _content(path) for path in sorted(folder.rglob("*"))}


def _content(path: Path) -> bytes | int | None:
    if path.is_symlink() or not path.is_file():
        return None
    size = path.stat().st_size
    return size if size > 10_000_000 else path.read_bytes()
