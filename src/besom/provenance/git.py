"""Git, asked without being trusted: nothing that a repository's own config names is run, nothing is written or fetched.

Knows nothing of what is done with the answers.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Timer

SECONDS = 5.0
"""After so long an answer is no longer waited for: a folder on a network that is down hangs for ever."""

OPTIONS = (
    *("--no-pager", "--no-optional-locks", "-c", "diff.autoRefreshIndex=false"),  # the index is not written
    *("-c", "core.fsmonitor=false"),  # else a program of the repository's choice
    *("-c", "protocol.allow=never"),  # a partial clone would fetch what it has not
    *("-c", "core.quotePath=false"),  # Korean names stay readable
)
KEPT = ("GIT_CONFIG", "GIT_CEILING_DIRECTORIES", "GIT_DISCOVERY_ACROSS_FILESYSTEM")
"""How the variables of Git start that still count; others, such as a hook's ``GIT_DIR``, name another repository."""


class GitFailed(Exception):
    """Git gave no answer, or not in time."""


@dataclass(frozen=True)
class WorkTree:
    """A Git work tree with a commit.

    Args:
        top: its folder, without symbolic links.
        commit: the 40 or 64 hex digits of ``HEAD``.
    """

    top: Path
    commit: str
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, folder: Path) -> WorkTree | None:
        """Return the work tree that a folder is in; None where there is none, it has no commit, or there is no Git."""
        asked = ("rev-parse", "--show-toplevel", "HEAD")
        try:
            top, commit = _output(folder, asked, _environment({})).decode(errors="surrogateescape").splitlines()
        except (GitFailed, ValueError):  # ValueError: a folder with a newline in its name
            return None
        # a config can name any folder as the work tree, such as /
        return cls(Path(top), commit) if (Path(top) / ".git").exists() else None

    def output(self, *arguments: str, limit: int = 1 << 26, codes: tuple[int, ...] = (0,)) -> bytes:
        """Return what a Git command prints, run in the work tree's folder.

        Args:
            limit: of bytes; what is beyond it is not read.
            codes: how it may exit.

        Raises:
            GitFailed: it failed or took longer than `SECONDS`.
        """
        return _output(self.top, arguments, self._without_filters, limit, codes)

    @cached_property
    def _without_filters(self) -> dict[str, str]:
        """Return an environment in which the programs that the config puts between files and Git are switched off."""
        plain = _environment({})
        try:
            listed = _output(self.top, ("config", "-z", "--name-only", "--get-regexp", r"^filter\."), plain)
        except GitFailed:  # there is none
            return plain
        drivers = {name.rpartition(".")[0] for name in listed.decode(errors="surrogateescape").split("\0") if name}
        off = {"clean": "", "process": "", "required": "false"}
        return _environment({f"{driver}.{key}": value for driver in sorted(drivers) for key, value in off.items()})


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for Git with further settings, which may have any character in their names."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_") or key.startswith(KEPT)}
    there = kept.get("GIT_CONFIG_COUNT", "")
    first = int(there) if there.isdecimal() else 0
    for place, (name, value) in enumerate(settings.items(), first):
        kept |= {f"GIT_CONFIG_KEY_{place}": name, f"GIT_CONFIG_VALUE_{place}": value}
    return {**kept, "GIT_CONFIG_COUNT": str(first + len(settings)), "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


def _output(
    folder: Path,
    arguments: tuple[str, ...],
    environment: Mapping[str, str],
    limit: int = 1 << 26,
    codes: tuple[int, ...] = (0,),
) -> bytes:
    nowhere = subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            ["git", *OPTIONS, *arguments], cwd=folder, env=environment, stdin=nowhere, stdout=subprocess.PIPE,
            stderr=nowhere,
        )  # fmt: skip
    except OSError as error:  # no Git, or no folder
        raise GitFailed(str(error)) from error
    assert process.stdout is not None, "it is a pipe"
    timer = Timer(SECONDS, process.kill)
    timer.start()
    try:
        with process:
            found: bytes = process.stdout.read(limit)
            if len(found) == limit:
                process.kill()  # it would wait for ever for somebody to read the rest
                return found
    finally:
        timer.cancel()
    if process.returncode not in codes:
        raise GitFailed(f"git {arguments[0]} ended with {process.returncode}")
    return found
