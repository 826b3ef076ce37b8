"""SQLite databases read without a byte of them changed, those of their ``-wal`` and ``-shm`` files included.

SQLite itself writes when it reads a database in write-ahead mode: into ``-shm``, which it makes where it is missing.
So what is read is a copy, see `besom.databases.copied`. Knows nothing of tables.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from besom.databases import copied, stamps_of
from besom.temporary import temporary_folder

NO_ROOM = "there is no room for a copy of it"
MAKE_ROOM = "make room where temporary files go, or name another folder with TMPDIR"


@contextmanager
def looking() -> Iterator[Untouched]:
    """Give a new look at databases, as they are now; one without copies where nothing can be written."""
    with ExitStack() as stack:
        try:
            folder: Path | None = stack.enter_context(temporary_folder())
        except OSError:
            folder = None
        yield Untouched(folder)


class Untouched:
    """Reads databases as they are at the first look.

    Args:
        folder: an empty one, for copies; the caller removes it. None where there is none to be had.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._copies: dict[Path, Path] = {}
        self._busy: set[Path] = set()

    def connect(self, file: Path) -> sqlite3.Connection:
        """Return a connection to a database; the caller closes it.

        Raises:
            sqlite3.Error: it cannot be opened.
        """
        copy = self._copy(file)
        # where nothing can be copied, as on a full disk: the file, as if nobody changed it; where something is not in
        # it yet, or somebody writes all the while, as SQLite reads it, though that may touch what is beside it
        is_whole = file not in self._busy and set(stamps_of(file)) <= {file}
        here = f"{file.as_uri()}?mode=ro{'&immutable=1' if is_whole else ''}"
        uri = here if copy is None else copy.as_uri()
        return sqlite3.connect(uri, uri=True, check_same_thread=False)

    def begin(self, file: Path, n: int) -> bytes:
        """Return the first bytes of a file.

        Raises:
            OSError: it cannot be read.
        """
        with (self._copy(file) or file).open("rb") as opened:
            return opened.read(n)

    def has_room(self, file: Path) -> bool:
        """Tell whether a database could be copied; one that is written to all the while needs no copy."""
        return self._copy(file) is not None or file in self._busy

    def _copy(self, file: Path) -> Path | None:
        """Return a copy of a database, made at the first look at it; None where that fails, tried again then."""
        if file not in self._copies and file not in self._busy and self._folder is not None:
            copy = self._folder / f"{len(self._copies)}-{file.name}"
            try:
                is_copied = copied(file, copy)
            except OSError:  # no process more can be started
                is_copied = False
            if is_copied:
                self._copies[file] = copy
            elif is_copied is None:
                self._busy.add(file)
        return self._copies.get(file)
