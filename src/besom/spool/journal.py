"""What one run waits to tell MLflow, on disk: ``STORE/spool/SWEEP/RUN_ID/``.

``operations.jsonl`` has a head and then one operation a line, in order, each on the disk before the next; ``files/N/``
has the files of an operation; ``progress.json`` says how many were delivered, and into which run. Knows nothing of
MLflow, nor of what an operation means.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from besom.errors import StoreDamaged
from besom.files import Unusable, read_bounded
from besom.paths import Store, write_atomically

FORMAT = 1
MOST_BYTES = 500_000_000
MOST_PROGRESS = 10_000
"""Of a journal and of its ``progress.json``."""
REST = ".removed-"
"""How the name of a journal's folder begins while it is removed."""


@dataclass(frozen=True)
class Journal:
    """The journal of one run.

    Args:
        folder: named by the run's id; it is there from the first operation that waits to the last one delivered.
    """

    folder: Path

    @property
    def exists(self) -> bool:
        """Whether an operation waits; a head alone is what a kill has left of an earlier besom."""
        if self._file.is_symlink() or not self._file.is_file():  # who made the store may have put a pipe there
            return False
        try:
            with self._file.open("rb") as file:
                file.readline()
                return file.readline().endswith(b"\n")
        except OSError:  # there is none
            return False

    @property
    def _file(self) -> Path:
        return self.folder / "operations.jsonl"

    @property
    def _progress(self) -> Path:
        return self.folder / "progress.json"

    def append(self, operation: Mapping[str, Any], files: Path | None = None, *, head: Mapping[str, Any]) -> None:
        """Add an operation, and return once it is on the disk; the first one comes with the journal, or not at all.

        Args:
            files: a folder that the operation is about; it is copied.
            head: what is known of the run, see `besom.spool.client`; of a journal that is there it stays as it is.

        Raises:
            OSError: it cannot be written: the disk is full, or the store can only be read; what was there before is
                whole.
        """
        kept = {} if files is None else {"files": self._keep(files)}
        text = json.dumps({**operation, **kept}) + "\n"
        if not (self.exists or self._file.is_symlink()):  # a link is refused below
            write_atomically(self._file, json.dumps({"format": FORMAT, **head}) + "\n" + text)
            return
        line = text.encode()
        handle = os.open(self._file, os.O_RDWR | os.O_NOFOLLOW)
        try:
            os.lseek(handle, self._drop_torn_line(handle), os.SEEK_SET)
            while line:  # a disk that gets full takes a part of it first
                line = line[os.write(handle, line) :]
            os.fsync(handle)
        finally:
            os.close(handle)

    @staticmethod
    def _drop_torn_line(handle: int) -> int:
        """Cut off what was being written at the end when a kill or a power cut came; return where the next one goes."""
        lines = os.pread(handle, os.fstat(handle).st_size, 0).splitlines(keepends=True)
        while len(lines) > 1 and not (lines[-1].endswith(b"\n") and _read(lines[-1])):
            lines.pop()
        end = sum(map(len, lines))
        os.ftruncate(handle, end)
        return end

    def _keep(self, files: Path) -> str:
        """Copy a folder, under its final name only when it is whole; return that name."""
        home = self.folder / "files"
        home.mkdir(parents=True, exist_ok=True)
        name = str(max((int(one.name) for one in home.iterdir() if one.name.isdecimal()), default=-1) + 1)
        draft = home / f".{name}"
        shutil.rmtree(draft, ignore_errors=True)
        try:
            shutil.copytree(files, draft, copy_function=_copied)
        except OSError:  # a full disk has no room for half a copy
            shutil.rmtree(draft, ignore_errors=True)
            raise
        draft.rename(home / name)
        return name

    def head(self) -> dict[str, Any]:
        """Return what is known of the run; empty where the journal is gone, or no journal."""
        return next(_read_all(self._content()), {})

    def operations(self) -> list[dict[str, Any]]:
        """Return the operations in order; a last one that was being written when its process was killed is none."""
        return self.head_and_operations()[1]

    def head_and_operations(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return both, the file being read once."""
        head, *operations = list(_read_all(self._content())) or [{}]
        return head, operations

    def whole_operations(self) -> list[dict[str, Any]]:
        """Return the same, for those who let the journal go afterwards.

        Raises:
            ValueError: a line is damaged and others follow.
        """
        content = self._content()
        found = list(_read_all(content))
        if not content and self.exists:
            raise ValueError(f"{self._file} cannot be read, or has more than {MOST_BYTES:,} bytes; move it away")
        behind = content.split(b"\n")[:-1][len(found) + 1 :]
        if any(map(_read, behind)):
            raise ValueError(f"line {len(found) + 1} of {self._file} is damaged; put it back from a copy, or remove it")
        return found[1:]

    def _content(self) -> bytes:
        try:
            return read_bounded(self._file, MOST_BYTES)
        except Unusable:  # delivered meanwhile, or no journal of besom's
            return b""

    def files(self, name: str) -> Path:
        """Return the folder of an operation's files.

        Raises:
            StoreDamaged: a link or a pipe is in it, or on the way to it: besom keeps copies.
        """
        found = self.folder / "files" / Path(name).name
        self.refuse_links()
        for one in (found.parent, found, *found.rglob("*")):
            if one.is_symlink() or (one.exists() and not (one.is_dir() or one.is_file())):
                raise StoreDamaged(f"{one} is no plain file and no folder; expected a copy of a run's files")
        return found

    def refuse_links(self) -> None:
        """Raise `StoreDamaged` where the journal is a link, or in a folder of the spool that is one."""
        for one in (self.folder.parent.parent, self.folder.parent, self.folder, self._file):
            if one.is_symlink():
                raise StoreDamaged(f"{one} is a link; expected what besom itself keeps for MLflow")

    @property
    def n_bytes(self) -> int:
        return sum(one.stat().st_size for one in self.folder.rglob("*") if one.is_file())

    def progress(self) -> tuple[int, str | None]:
        """Return how many operations were delivered, and the id of the run where MLflow made it for them."""
        try:
            found = json.loads(read_bounded(self._progress, MOST_PROGRESS))
            return int(found["done"]), found["run_id"]
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return 0, None

    def note_progress(self, done: int, run_id: str) -> None:
        """Write down how far the delivery came; whoever goes on repeats at most one operation."""
        write_atomically(self._progress, json.dumps({"done": done, "run_id": run_id}))

    def remove(self) -> None:
        """Remove the journal: at once what makes it one; what a kill leaves of the rest `remove_rests` finds.

        Raises:
            StoreDamaged: it is a link, or in a folder that is one.
        """
        if not os.path.lexists(self.folder):
            return
        self.refuse_links()
        rest = self.folder.with_name(f"{REST}{self.folder.name}")
        shutil.rmtree(rest, ignore_errors=True)
        self.folder.rename(rest)
        (rest / self._file.name).unlink(missing_ok=True)
        shutil.rmtree(rest, ignore_errors=True)


def _read_all(content: bytes) -> Iterator[dict[str, Any]]:
    for line in content.split(b"\n")[:-1]:
        if (found := _read(line)) is None:  # a disk that lost a power cut's last blocks
            return
        yield found


def _read(line: bytes) -> dict[str, Any] | None:
    """Return what a line says, None where it is damaged; every line says something."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found else None


def n_pending(store: Store, sweep: str) -> int:
    """Return how many runs of a sweep wait."""
    return sum(Journal(file.parent).exists for file in store.spooled(sweep))


def remove_rests(folder: Path) -> None:
    """Remove what is left in a sweep's spool of journals whose removal was killed."""
    for rest in folder.glob(f"{REST}*"):
        shutil.rmtree(rest, ignore_errors=True)


def remove_begun(folder: Path) -> None:
    """Remove what is left in a sweep's spool of journals that never came to be: a kill came, or the disk was full.

    For who knows that nobody begins one now.
    """
    for one in folder.iterdir() if folder.is_dir() and not folder.is_symlink() else ():
        if one.is_dir() and not one.is_symlink() and not os.path.lexists(Journal(one)._file):
            shutil.rmtree(one, ignore_errors=True)


def _copied(source: str, target: str) -> str:
    shutil.copyfile(source, target)
    with Path(target).open("rb+") as file:
        os.fsync(file.fileno())
    return target
