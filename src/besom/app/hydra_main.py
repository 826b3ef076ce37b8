"""The one place that starts Hydra's main: on a staged folder, with errors let through."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra

from besom.configs.compose import VERSION_BASE, register
from besom.trial.task import task


def run_hydra(project_root: Path, overrides: Sequence[str], *, multirun: bool) -> None:
    """Run besom's task under Hydra, as ``python app.py OVERRIDES`` would.

    Args:
        project_root: a folder with ``conf/`` and ``sweeps/``: a stage, or a sweep's snapshot.
    """
    register(project_root)
    main = hydra.main(str(project_root / "conf"), "config", version_base=VERSION_BASE)(task)
    with _command_line([*overrides, *(["--multirun"] if multirun else [])]):
        main()


@contextmanager
def _command_line(arguments: Sequence[str]) -> Iterator[None]:
    """Give Hydra its command line; HYDRA_FULL_ERROR makes it raise instead of print and exit 1."""
    before = sys.argv
    sys.argv = ["besom", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = before
