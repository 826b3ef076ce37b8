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

from besom.paths import write_atomically

FORMAT = 1


@dataclass(frozen=True)
class Journal:
    """The journal of one run.

    Args:
        folder: named by the run's id; it is there from the first operation that waits to the last one delivered.
    """

    folder: Path

    @property
    def exists(self) -> bool:
        return self._file.is_file()

    @property
    def _file(self) -> Path:
        return self.folder / "operations.jsonl"

    @property
    def _progress(self) -> Path:
        return self.folder / "progress.json"

    def begin(self, head: Mapping[str, Any]) -> None:
        """Make the journal where there is none.

        Args:
            head: what is known of the run, see `besom.spool.client`.

        Raises:
            OSError: it cannot be written: the disk is full, or the store can only be read.
        """
        if not self.exists:
            write_atomically(self._file, json.dumps({"format": FORMAT, **head}) + "\n")

    def append(self, operation: Mapping[str, Any], files: Path | None = None) -> None:
        """Add an operation, and return once it is on the disk.

        Args:
            files: a folder that the operation is about; it is copied.

        Raises:
            OSError: as `begin`; what was there before is whole.
        """
        kept = {} if files is None else {"files": self._keep(files)}
        line = json.dumps({**operation, **kept}).encode() + b"\n"
        handle = os.open(self._file, os.O_RDWR)
        try:
            os.lseek(handle, self._drop_torn_line(handle), os.SEEK_SET)
            while line:  # a disk that gets full takes a part of it first
                line = line[os.write(handle, line) :]
            os.fsync(handle)
        finally:
            os.close(handle)

    @staticmethod
    def _drop_torn_line(handle: int) -> int:
        """Cut off a last line that was being written when its process was killed; return where the next one goes."""
        content = os.pread(handle, os.fstat(handle).st_size, 0)
        end = content.rfind(b"\n") + 1
        os.ftruncate(handle, end)
        return end

    def _keep(self, files: Path) -> str:
        """Copy a folder, under its final name only when it is whole; return that name."""
        home = self.folder / "files"
        home.mkdir(exist_ok=True)
        name = str(max((int(one.name) for one in home.iterdir() if one.name.isdecimal()), default=-1) + 1)
        draft = home / f".{name}"
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(files, draft, copy_function=_copied)
        draft.rename(home / name)
        return name

    def head(self) -> dict[str, Any]:
        """Return what is known of the run; empty where the journal is gone, or no journal."""
        return next(self._lines(), {})

    def operations(self) -> list[dict[str, Any]]:
        """Return the operations in order; a last one that was being written when its process was killed is none."""
        return list(self._lines())[1:]

    def _lines(self) -> Iterator[dict[str, Any]]:
        try:
            content = self._file.read_bytes()
        except OSError:  # delivered meanwhile
            return
        for line in content.split(b"\n")[:-1]:
            try:
                found = json.loads(line)
            except ValueError:  # a disk that lost a power cut's last blocks: what follows is not in order
                return
            if not isinstance(found, dict):
                return
            yield found

    def files(self, name: str) -> Path:
        """Return the folder of an operation's files."""
        return self.folder / "files" / Path(name).name

    @property
    def n_bytes(self) -> int:
        return sum(one.stat().st_size for one in self.folder.rglob("*") if one.is_file())

    def progress(self) -> tuple[int, str | None]:
        """Return how many operations were delivered, and the id of the run where MLflow made it for them."""
        try:
            found = json.loads(self._progress.read_text(encoding="utf-8"))
            return int(found["done"]), found["run_id"]
        except (OSError, ValueError, KeyError, TypeError):
            return 0, None

    def note_progress(self, done: int, run_id: str) -> None:
        """Write down how far the delivery came; whoever goes on repeats at most one operation."""
        write_atomically(self._progress, json.dumps({"done": done, "run_id": run_id}))

    def remove(self) -> None:
        """Remove the journal: first what makes it one, so that a kill leaves nothing that looks undelivered."""
        self._file.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def _copied(source: str, target: str) -> str:
    shutil.copyfile(source, target)
    with Path(target).open("rb+") as file:
        os.fsync(file.fileno())
    return target
