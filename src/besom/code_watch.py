"""Tells when an app's code changed under its sweep: trials of one sweep should be trials of one program.

Watched are the Python files of the app that this process has imported. Knows nothing of sweeps and of Hydra.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

LIBRARIES = ("site-packages", "dist-packages", "__pycache__", "node_modules")


class CodeWatch:
    """The files of the app that a task belongs to: its own and all imported ones below the same folder.

    In a package that is the package's outermost folder. Which files are watched is settled at the start, so that
    a digest changes with what is in them only.

    Args:
        task_function: the app's task, wrapped or not.
    """

    def __init__(self, task_function: Callable[..., Any]) -> None:
        file = _file_of(task_function)
        self.root = _root_of(file) if file is not None else Path.cwd()
        self._files = sorted(set(_imported_files(self.root, file))) if file is not None else []
        self._known: dict[Path, tuple[tuple[int, int], str]] = {}  # file → ((mtime, size), sha256)

    def state(self) -> dict[str, str]:
        """Return the SHA-256 of every watched file, by its path below the app's folder; a file that is gone has ''."""
        return {file.relative_to(self.root).as_posix(): self._sha256(file) for file in self._files}

    def digest(self) -> str:
        """Return one SHA-256 for all of them; files that were not touched are not read again."""
        lines = [f"{sha256} {name}\n" for name, sha256 in self.state().items()]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def changed_files(self, since: Mapping[str, str]) -> list[str]:
        """Return the names of the files that are not as they were.

        Args:
            since: an earlier `state`, also of another start: files that are not imported now are looked at too.
        """
        return [name for name, sha256 in sorted(since.items()) if self._sha256(self.root / name) != sha256]

    def _sha256(self, file: Path) -> str:
        try:
            status = file.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            known = self._known.get(file)
            if known is None or known[0] != stamp:
                known = self._known[file] = (stamp, hashlib.sha256(file.read_bytes()).hexdigest())
        except OSError:
            return ""
        return known[1]


def _file_of(task_function: Callable[..., Any]) -> Path | None:
    """Return the file that a task is written in, None where it is in none, as in a notebook."""
    while isinstance(task_function, partial):
        task_function = task_function.func
    task_function = inspect.unwrap(task_function)
    named = task_function if hasattr(task_function, "__qualname__") else type(task_function)
    module = sys.modules.get(str(named.__module__))
    found = getattr(module, "__file__", None)
    return Path(os.path.realpath(found)) if found and Path(found).is_file() else None


def _root_of(file: Path) -> Path:
    folder = file.parent
    while (folder / "__init__.py").is_file() and (folder.parent / "__init__.py").is_file():
        folder = folder.parent
    return folder


def _imported_files(root: Path, own: Path) -> Iterator[Path]:
    yield own
    if root.name in LIBRARIES:  # a module right among the libraries: its neighbours are not its own
        return
    for module in list(sys.modules.values()):
        found = getattr(module, "__file__", None)
        if isinstance(found, str) and found.endswith(".py"):
            file = Path(os.path.realpath(found))
            if file.is_relative_to(root) and not _is_library(file, root):
                yield file


def _is_library(file: Path, root: Path) -> bool:
    inner = file.relative_to(root).parent.parts
    if any(name in LIBRARIES or name.startswith(".") for name in inner):
        return True
    return any((root.joinpath(*inner[:depth]) / "pyvenv.cfg").exists() for depth in range(1, len(inner) + 1))
