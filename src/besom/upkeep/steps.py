"""What `besom repair` does, one step at a time, and what became of each. Knows nothing of stores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from besom.errors import shown

DONE, WOULD, LEFT, ALONE = "done", "would", "left", "alone"


@dataclass(frozen=True)
class Step:
    """Something to be mended.

    Args:
        what: in the words of a command: ``close it as FAIL``.
        do: mends it; doing it twice is harmless. None where nobody here can.
        is_living: nobody may: it belongs to a process that lives, or may live.
    """

    where: str
    what: str
    do: Callable[[], None] | None = None
    is_living: bool = False


@dataclass(frozen=True)
class Deed:
    """What became of a step: ``done``, ``would`` of a dry run, ``left`` where it cannot be mended, ``alone``."""

    deed: str
    where: str
    what: str

    def to_row(self) -> dict[str, Any]:
        return asdict(self)


def taken(steps: Iterable[Step], *, dry_run: bool) -> Iterator[Deed]:
    """Take steps and yield each as it is done; one that fails is left, and keeps nobody from the next."""
    for step in steps:
        if step.do is None:
            yield Deed(ALONE if step.is_living else LEFT, step.where, step.what)
        elif dry_run:
            yield Deed(WOULD, step.where, step.what)
        else:
            try:
                step.do()
            except Exception as failure:  # of the disk, SQLite, Optuna or MLflow: the next call tries again
                yield Deed(LEFT, step.where, f"{step.what}: {shown(failure)}")
            else:
                yield Deed(DONE, step.where, step.what)
