"""Files that somebody names: whether they are plain files, and no more of them read than one expects.

A pipe is not waited for, a device not read to its end that never comes. Knows nothing of what is in them.
"""

from __future__ import annotations

import stat
from pathlib import Path


class Unusable(ValueError):
    """A file that cannot be read; the message is the reason alone, the caller names the file."""


def expanded(path: str | Path) -> Path:
    """Return a path with the home folder for its ``~``; as it is where there is none of that name."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def kind_of(file: Path) -> str:
    """Return ``file``, ``folder``, ``missing`` or ``other`` (a pipe, a device); links are followed.

    Raises:
        Unusable: it cannot be looked at: a name that is too long, links in a circle, a folder without rights.
    """
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise Unusable(getattr(error, "strerror", None) or str(error)) from error
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"


def read_bounded(file: Path, most: int) -> bytes:
    """Return the content of a plain file of at most so many bytes.

    Raises:
        Unusable: it is missing, larger, no plain file, or cannot be read.
    """
    refuse_all_but_plain(file)
    try:
        with file.open("rb") as opened:
            content = opened.read(most + 1)
    except OSError as error:
        raise Unusable(str(error.strerror)) from error
    if len(content) > most:
        raise Unusable(f"it has more than {most:,} bytes")
    return content


def refuse_all_but_plain(file: Path) -> None:
    """Raise `Unusable` unless there is a plain file."""
    reasons = {"missing": "it does not exist", "folder": "it is a folder", "other": "it is no plain file"}
    if reason := reasons.get(kind_of(file)):
        raise Unusable(reason)
