"""Whose a sweep's folder and study are: locks while it runs, and the mark in the folder for ever.

Folder and study may each be shared without the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import optuna

from besom.errors import ConfigError
from besom.lock import parent_lock
from besom.paths import remove_drafts, write_atomically
from besom.storage import database_file
from besom.study_lock import StudyLock, study_lock
from besom.sweep.settings import SweepSettings

OWNER = ".study"
"""In a sweep's folder: the id of the study whose jobs it holds."""


@contextmanager
def locked(settings: SweepSettings, folder: Path, is_own: bool) -> Iterator[StudyLock | None]:
    """Hold the locks of the sweep's folder, of a study in a server and, in other people's apps, of the study's file.

    Raises:
        SweepLocked: a living process holds one of them.
    """
    with ExitStack() as locks:
        locks.enter_context(parent_lock(folder / "parent.lock", settings.study_name))
        file = None if is_own else database_file(settings.storage)
        if file is not None:
            lock = file.parent.resolve() / f".{file.name}-{settings.study_name}.lock"
            locks.enter_context(parent_lock(lock, settings.study_name))
        yield locks.enter_context(study_lock(settings.storage, settings.study_name))


def is_elsewhere(storage: str, folder: Path) -> bool:
    """Tell whether the study is kept outside the sweep's folder, so that each start may have another one."""
    file = database_file(storage)
    return file is None or file.parent.resolve() != folder.resolve()


def refuse_folder_of_another(name: str, folder: Path, study: optuna.Study | None) -> None:
    """Raise `ConfigError` where the folder has the jobs of another study: theirs would be overwritten."""
    owner = folder / OWNER
    own = study.user_attrs.get("id") if study is not None else None
    if owner.is_file() and owner.read_text(encoding="utf-8", errors="replace") != own:
        raise ConfigError(
            f"hydra.sweep.dir={folder} holds the jobs of another study than '{name}'; "
            "expected another hydra.sweep.dir, or remove that folder"
        )


def own(folder: Path, study: str) -> None:
    """Mark the folder as this study's, and clear away what was being written into it when a start was killed."""
    owner = folder / OWNER
    if not owner.is_file() or owner.read_text(encoding="utf-8") != study:
        write_atomically(owner, study)
    remove_drafts(folder)
