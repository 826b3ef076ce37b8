"""A new folder that appears whole or not at all. Knows nothing of what is in it."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from besom.errors import ConfigError


def refuse_taken(folder: Path) -> None:
    """Raise `ConfigError` unless a folder is empty or not there."""
    if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already; expected a new or an empty folder")


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write into, which becomes ``folder`` at the end, or nothing does.

    Raises:
        ConfigError: ``folder`` is taken, or cannot be made.
    """
    refuse_taken(folder)
    folder = Path(os.path.abspath(folder))
    draft = folder.parent / f".{folder.name}.{secrets.token_hex(6)}"
    made = [draft, *(parent for parent in draft.parents if not parent.exists())]
    try:
        draft.mkdir(parents=True)
        yield draft
        draft.rename(folder)  # over an empty folder, too
    except BaseException as error:
        shutil.rmtree(draft, ignore_errors=True)
        for parent in made[1:]:
            with suppress(OSError):  # somebody else has put something there
                parent.rmdir()
        if isinstance(error, OSError) and str(error.filename).startswith(str(draft)):
            raise ConfigError(f"{folder} cannot be written: {error.strerror}; expected a folder that can") from error
        raise
