"""Checks what waits on disk until MLflow can be reached, see `besom.spool`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from besom.paths import OUTSIDE_SWEEPS, Store
from besom.spool.deliver import Waiting, pending
from besom.upkeep.books import Books
from besom.upkeep.findings import Finding, note, warning


def waiting(books: Books) -> Iterator[Finding]:
    """What MLflow was not told of a sweep's runs: they are delivered by its next start, or by `besom repair`."""
    if books.waiting and books.holder is None:
        yield from _finding(f"sweep {books.name}", list(books.waiting.values()), f"besom repair {books.name}")


def of_none(store: Store) -> Iterator[Finding]:
    """The same of the runs of ``besom train``."""
    if found := pending(store, OUTSIDE_SWEEPS):
        yield from _finding("besom train", found, "besom repair")


def _finding(where: str, found: Sequence[Waiting], mend: str) -> Iterator[Finding]:
    free = [one for one in found if one.is_free]
    if free:
        yield warning(where, f"MLflow was not told {told(free)}, which wait on disk", mend)
    if len(free) < len(found):
        yield note(where, f"{len(found) - len(free)} living runs wait on disk until MLflow can be reached")


def told(found: Sequence[Waiting]) -> str:
    """Return how much waits, as words."""
    n, size = sum(one.n_operations for one in found), sum(one.bytes for one in found)
    return f"{n} operations of {len(found)} runs ({size / 1e6:,.1f} MB)"
