"""Arrays that a parent has decoded and that its workers will want: an engine may carry them to where its workers are.

On one machine workers map files instead, see `besom.datasets.shared`. A parent offers before its engine starts; in a
worker the engine receives, before the first job. Knows nothing of what the arrays are, and of engines.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

Offer = tuple[dict[str, NDArray[Any]], dict[str, Any]]
"""Arrays by name, and a few plain facts about them."""

_offers: dict[str, Offer] = {}


def offer(key: str, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> None:
    """Let engines that start from now on carry arrays to their workers, where `received` finds them under ``key``."""
    _offers[key] = dict(arrays), dict(about)


def offers() -> dict[str, Offer]:
    """Return all that is offered, by key."""
    return dict(_offers)


def size() -> int:
    """Return how many bytes the offered arrays have."""
    return sum(array.nbytes for arrays, _ in _offers.values() for array in arrays.values())


def withdraw() -> None:
    """Offer nothing any more."""
    _offers.clear()


def receive(carried: Mapping[str, Offer]) -> None:
    """Take what the parent of this worker has offered; arrays may lie in memory that others read, too."""
    _offers.update(carried)


def received(key: str) -> Offer | None:
    """Return what was offered under a key, None where nothing was."""
    return _offers.get(key)
