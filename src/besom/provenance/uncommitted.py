"""The code that no commit has: what differs from ``HEAD``, and untracked Python files that are imported, as one diff.

``git apply`` on the commit gives the code back. Knows nothing of trials.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from besom.code_watch import LIBRARIES
from besom.provenance.git import GitFailed, WorkTree
from besom.provenance.redaction import is_secret_file, redacted

MOST_BYTES = 1_000_000
"""Of a diff; a larger one is not code that somebody is working on."""
MOST_NAMES = 20
"""Named at the head of one kind."""

PLAIN = (
    *("--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--no-relative"),
    *("--ignore-submodules=dirty", "--submodule=short"),  # else Git runs in there, and by that config
)
PATCH = (*PLAIN, "--src-prefix=a/", "--dst-prefix=b/", "--unified=3", "--inter-hunk-context=0")
"""A diff as ``git apply`` reads it, whatever the user's config makes of one."""


def uncommitted(folder: Path, imported: Iterable[Path] = ()) -> bytes | None:
    """Return what differs from the commit of the work tree that a folder is in, with a head of ``#`` lines.

    Files that hold secrets by their name are left out and named at the head, binary ones too. A line that looks like a
    secret is replaced; the head then says to which files the diff no longer applies.

    Args:
        imported: Python files of which those that Git does not know are in it as new files.

    Returns:
        None where nothing differs, and where there is no Git, no work tree or no commit.
    """
    tree = WorkTree.of(folder)
    if tree is None:
        return None
    try:
        return _diff(tree, imported)
    except GitFailed as error:
        return f"# what differs from commit {tree.commit} is not known: {error}\n".encode()


def imported_files() -> list[Path]:
    """Return the Python files that this process has imported from outside of its libraries, the script included."""
    names = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    paths = (Path(name) for name in names if isinstance(name, str) and name.endswith(".py"))
    return sorted(path for path in paths if not any(part in LIBRARIES for part in path.parts))


@dataclass
class _Head:
    """The lines above a diff: what it is, and what is not in it."""

    commit: str
    secret: list[str] = field(default_factory=list)
    binary: list[str] = field(default_factory=list)
    too_large: list[str] = field(default_factory=list)
    not_applying: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"what differs from commit {self.commit}"]
        if self.not_applying:
            lines[0] += f"; it no longer applies to {_names(self.not_applying)}: lines that may be secrets are left out"
        else:
            lines[0] += ", for 'git apply'"
        kinds = {"a secret by its name": self.secret, "binary": self.binary}
        lines += [f"left out, {kind}: {_names(files)}" for kind, files in kinds.items() if files]
        if self.too_large:
            lines += [f"left out, more than {MOST_BYTES:,} bytes together: {_names(self.too_large)}"]
        return "".join(f"# {line}\n" for line in lines)


def _names(files: list[str]) -> str:
    shown = [name if name.isprintable() else repr(name) for name in files[:MOST_NAMES]]
    more = [f"and {len(files) - MOST_NAMES} more"] if len(files) > MOST_NAMES else []
    return ", ".join([*shown, *more])


def _diff(tree: WorkTree, imported: Iterable[Path]) -> bytes | None:
    head, changed = _Head(tree.commit), dict(_changed(tree))
    new = _untracked(tree, imported)
    head.secret = [name for name in (*changed, *new) if is_secret_file(name)]
    head.binary = [name for name, is_binary in changed.items() if is_binary and name not in head.secret]
    out = {*head.secret, *head.binary}
    names = [name for name in (*changed, *new) if name not in out]
    parts = [_tracked(tree, out)] if any(name in changed for name in names) else []
    parts += [_new_file(tree, name) for name in new if name not in out]
    text = b"".join(parts)
    if len(text) > MOST_BYTES:
        text, head.too_large = b"", names
    text, head.not_applying = redacted(text)
    return str(head).encode("utf-8", "replace") + text if changed or new else None


def _changed(tree: WorkTree) -> Iterator[tuple[str, bool]]:
    """Yield the name of each tracked file that differs, and whether it is binary."""
    for entry in tree.output("diff", "--numstat", "-z", *PLAIN, "HEAD").split(b"\0"):
        numbers, _, name = entry.rpartition(b"\t")
        if name:
            yield name.decode(errors="surrogateescape"), numbers == b"-\t-"


def _tracked(tree: WorkTree, but: Iterable[str]) -> bytes:
    excluded = [f":(top,exclude,literal){name}" for name in sorted(but)]
    return tree.output("diff", *PATCH, "HEAD", "--", ":(top)", *excluded, limit=MOST_BYTES + 1)


def _untracked(tree: WorkTree, files: Iterable[Path]) -> list[str]:
    """Return the names of those files that lie in the work tree, and that Git does not know."""
    top = tree.top.resolve()
    real = {file.resolve() for file in files}
    inside = sorted(file.relative_to(top).as_posix() for file in real if file.is_relative_to(top) and file.is_file())
    if not inside:
        return []
    listed = tree.output("ls-files", "-z", "--others", "--", *(f":(top,literal){name}" for name in inside))
    return [name for name in listed.decode(errors="surrogateescape").split("\0") if name]


def _new_file(tree: WorkTree, name: str) -> bytes:
    # exit code 1: they differ
    return tree.output("diff", "--no-index", *PATCH, "--", "/dev/null", name, limit=MOST_BYTES + 1, codes=(0, 1))
