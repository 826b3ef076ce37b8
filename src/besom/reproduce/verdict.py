"""The verdict of a reproduction: how equal two results are, from where on they differ, and why.

Pure functions over what both left; knows nothing of how the second one came to be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from besom.reproduce.causes import Difference, first_cause
from besom.reproduce.original import History, Original
from besom.results import TrialResult
from besom.tracking import TAG_LENGTH, clipped

VERDICTS = ("bit-identical", "same-predictions", "within-noise", "different")
"""From the best to the worst."""
PARTS = ("weights", "history", "predictions")
"""What is compared of a complete trial, by hash."""
ENDING = ("state", "reason", "history")
"""What is compared of a failed one; of a pruned one all but the reason, which repeats its last value."""


@dataclass(frozen=True)
class Rerun:
    """What a reproduction gave.

    Args:
        result: how it ended; its facts hold the hashes and ``n_val``.
    """

    run_id: str
    result: TrialResult
    history: History


@dataclass(frozen=True)
class Verdict:
    """What a reproduction found.

    Args:
        verdict: one of `VERDICTS`.
        cause: the first part of the fingerprint that differs, None where the result does not differ, or nothing that
            the fingerprint knows of does.
        differs: what came out otherwise: weights, history, predictions, state, reason.
        first_epoch: the first epoch, from 0, whose metrics differ; None where all are equal.
        run_id: the MLflow run of the reproduction.
        state: how the reproduction ended.
        reason: why it did not end COMPLETE.
        compared: what was held against the original.
        differences: all that is not as it was, whether the result differs or not.
    """

    verdict: str
    cause: str | None
    differs: list[str]
    first_epoch: int | None
    run_id: str
    original_run_id: str
    state: str = "COMPLETE"
    reason: str | None = None
    compared: Sequence[str] = PARTS
    differences: Sequence[Difference] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the contract of ``besom reproduce --format json``."""
        rows = [found.to_json() for found in self.differences]
        return {**vars(self), "compared": list(self.compared), "differences": rows}

    def is_accepted(self, level: str) -> bool:
        """Tell whether the verdict is at least as good as ``level``."""
        return VERDICTS.index(self.verdict) <= VERDICTS.index(level)

    def sentence(self) -> str:
        """Return the verdict for a person."""
        line = f"{self.verdict}: run {self.run_id} repeats {self.original_run_id}"
        if not self.differs:
            ended = "" if self.state == "COMPLETE" else f", {self.state} as before"
            *others, last = self.compared
            return f"{line} in {', '.join(others)} and {last}{ended}"
        where = f", from epoch {self.first_epoch} on" if self.first_epoch is not None else ""
        ended = f"; it ended {self.state}: {self.reason}" if self.state == "FAIL" else ""
        return f"{line}; {', '.join(self.differs)} differ{where}; first cause: {self._why()}{ended}"

    def _why(self) -> str:
        if self.cause is None and self.state == "FAIL":
            return "it did not come to its end"
        if self.cause is None:
            return "nothing that the fingerprint knows of; a stored hash may have been changed"
        of_cause = [found for found in self.differences if found.part == self.cause]
        more = f"; and {len(of_cause) - 1} more" if len(of_cause) > 1 else ""
        return f"{of_cause[0]}{more}"


def judged(original: Original, rerun: Rerun, found: list[Difference], compared: Sequence[str] | None = None) -> Verdict:
    """Hold a rerun against the original.

    Args:
        found: what their fingerprints have different.
        compared: what to compare; None for all that there is in the original's state.
    """
    compared = compared or _comparable(original)
    differs = [part for part in compared if not _is_same(part, original, rerun)]
    return Verdict(
        verdict=_verdict(differs, original, rerun),
        cause=first_cause(found) if differs else None,
        differs=differs,
        first_epoch=first_difference(original.history, rerun.history) if "history" in differs else None,
        run_id=rerun.run_id,
        original_run_id=original.run_id,
        state=rerun.result.state,
        reason=rerun.result.reason,
        compared=compared,
        differences=found,
    )


def _comparable(original: Original) -> Sequence[str]:
    if original.state == "COMPLETE":
        return PARTS
    return ENDING if original.state == "FAIL" else ("state", "history")


def _is_same(part: str, original: Original, rerun: Rerun) -> bool:
    result = rerun.result
    if part == "state":
        return original.state == result.state
    if part == "reason":
        return _kept(original.reason) == _kept(result.reason)
    if original.state != "COMPLETE":
        return first_difference(original.history, rerun.history) is None
    name = f"{part}_sha256"
    return all(copy.get(name) == result.facts.get(name) for copy in original.hashes)


def _kept(reason: str | None) -> str:
    """Return a reason as MLflow keeps it, which cuts long ones."""
    return clipped(reason or "", TAG_LENGTH)


def _verdict(differs: Sequence[str], original: Original, rerun: Rerun) -> str:
    if not differs:
        return "bit-identical"
    if original.state != rerun.result.state or "reason" in differs:
        return "different"
    if "predictions" not in differs and original.state == "COMPLETE":
        return "same-predictions"
    n_val = int(rerun.result.facts.get("n_val") or 1)
    return "within-noise" if within_noise(original.history, rerun.history, n_val) else "different"


def within_noise(one: History, other: History, n_val: int) -> bool:
    """Return whether the best validation accuracies lie within two standard errors of a difference of proportions."""
    first, second = (max(history.get("val_accuracy", ()), default=0.0) for history in (one, other))
    pooled = (first + second) / 2
    return abs(first - second) <= 2 * math.sqrt(max(0.0, 2 * pooled * (1 - pooled)) / n_val)


def first_difference(one: History, other: History) -> int | None:
    """Return the first epoch, from 0, at which two histories differ; None where they do not. nan equals nan."""
    names = sorted({*one, *other})
    length = max((len(history.get(name, ())) for history in (one, other) for name in names), default=0)
    for epoch in range(length):
        if any(_at(one, name, epoch) != _at(other, name, epoch) for name in names):
            return epoch
    return None


def _at(history: Mapping[str, Sequence[float]], name: str, epoch: int) -> list[float | str]:
    """Return a metric at an epoch, none where there is none; nan as text, which equals itself."""
    return ["nan" if math.isnan(value) else value for value in history.get(name, ())[epoch : epoch + 1]]


def worst(verdicts: Sequence[Verdict]) -> str:
    """Return the worst of several verdicts."""
    return max((one.verdict for one in verdicts), key=VERDICTS.index)
