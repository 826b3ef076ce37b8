"""SQLite databases read without a byte of them changed, those of their ``-wal`` and ``-shm`` files included.

SQLite itself writes when it reads a database in write-ahead mode: into ``-shm``, which it makes where it is missing.
So what is read is a copy. Another process makes it: for one that has the database open through SQLite, to open and
close the file itself takes away SQLite's locks (sqlite.org/howtocorrupt.html). Knows nothing of tables.
"""

from __future__ import annotations

import sqlite3
import subprocess
from pathlib import Path

BESIDE = ("-wal", "-journal")
"""How the files end that hold what is not in the database yet."""
TRIES = 5


class Untouched:
    """Reads databases as they are at the first look.

    Args:
        folder: an empty one, for copies; the caller removes it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._copies: dict[Path, Path | None] = {}
        self._busy: set[Path] = set()

    def connect(self, file: Path) -> sqlite3.Connection:
        """Return a connection to a database; the caller closes it.

        Raises:
            sqlite3.Error: it cannot be opened.
        """
        copy = self._copy(file)
        # where nothing can be copied, as on a full disk: the file, as if nobody changed it; where somebody writes all
        # the while, as SQLite reads it: what that touches is being changed anyway
        here = f"{file.as_uri()}?mode=ro" if file in self._busy else f"{file.as_uri()}?mode=ro&immutable=1"
        uri = here if copy is None else copy.as_uri()
        return sqlite3.connect(uri, uri=True, check_same_thread=False)

    def begin(self, file: Path, n: int) -> bytes:
        """Return the first bytes of a file.

        Raises:
            OSError: it cannot be read.
        """
        with (self._copy(file) or file).open("rb") as opened:
            return opened.read(n)

    def _copy(self, file: Path) -> Path | None:
        """Copy a database with what is not in it yet, until nobody has written meanwhile; None where that fails."""
        if file not in self._copies:
            copy = self._folder / f"{len(self._copies)}-{file.name}"
            is_copied = _is_copied(file, copy)
            self._copies[file] = copy if is_copied else None
            if is_copied is None:
                self._busy.add(file)
        return self._copies[file]


def _is_copied(file: Path, copy: Path) -> bool | None:
    """Copy a database; None where it was written to each time meanwhile."""
    for _ in range(TRIES):
        before = _stamps(file)
        for one in before:
            command = ["cp", "--", str(one), f"{copy}{one.name.removeprefix(file.name)}"]
            if subprocess.run(command, capture_output=True, check=False).returncode != 0:
                return False
        if _stamps(file) == before:
            return True
    return None


def _stamps(file: Path) -> dict[Path, tuple[int, int]]:
    """Return size and time of a database and of the files beside it that hold something."""
    every = [file, *(file.with_name(file.name + ending) for ending in BESIDE)]
    found = {one: one.stat() for one in every if one.exists()}
    return {one: (stats.st_mtime_ns, stats.st_size) for one, stats in found.items() if stats.st_size or one == file}
