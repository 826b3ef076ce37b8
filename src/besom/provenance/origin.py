"""What code and which packages a trial ran with, as two files beside its config: taken when it starts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from besom.provenance.requirements import requirements
from besom.provenance.sources import source_files
from besom.provenance.uncommitted import imported_files, uncommitted

DIFF = "uncommitted.diff"
REQUIREMENTS = "requirements.txt"


@dataclass(frozen=True)
class Origin:
    """The code that no commit has, and the installed packages.

    Args:
        diff: None where nothing differs from the commit, or where there is none.
        requirements: ``name==version``, a line each.
    """

    diff: bytes | None
    requirements: str

    @classmethod
    def taken(cls, targets: tuple[str, ...]) -> Origin:
        """Return it as it was when this process first asked: the code that runs is the one that was there then.

        Args:
            targets: the dotted names of a user's builder and loader, which may not be imported yet.
        """
        return cls(_uncommitted(Path.cwd(), targets), requirements())

    def write(self, folder: Path) -> None:
        """Write the two files, or the second alone, into a folder that is there."""
        (folder / REQUIREMENTS).write_text(self.requirements, encoding="utf-8")
        if self.diff is not None:
            (folder / DIFF).write_bytes(self.diff)


@cache
def _uncommitted(folder: Path, targets: tuple[str, ...]) -> bytes | None:
    named = [file for target in targets for file in source_files(target).values()]
    return uncommitted(folder, [*imported_files(), *named])
