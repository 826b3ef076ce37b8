"""What the values of all contenders come to: means, every two compared, a winner.

Only arithmetic over values; knows nothing of how they came to be and of how it is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from besom.confirm.contender import Contender
from besom.confirm.statistics import LEVEL, Estimate, Paired, compare, holm, mean_of
from besom.confirm.trainings import Ended, Key

AT_LEAST = 2
"""Seeds that two contenders must have in common to be compared."""


@dataclass(frozen=True)
class Score:
    """A contender with what its trainings gave.

    Args:
        values: of the objective, one for each seed, None where the training failed.
        mean: over the values there are, None of fewer than two.
    """

    contender: Contender
    seeds: Sequence[int]
    values: Sequence[float | None]

    @property
    def good(self) -> list[float]:
        return [value for value in self.values if value is not None]

    @property
    def is_whole(self) -> bool:
        return len(self.good) == len(self.seeds)

    @property
    def mean(self) -> Estimate | None:
        return mean_of(self.good) if len(self.good) >= AT_LEAST else None

    def to_json(self) -> dict[str, Any]:
        one, mean = self.contender, self.mean
        return {
            "number": one.number,
            "run_id": one.run_id,
            "label": one.label,
            "values": list(self.values),
            "seeds": list(self.seeds),
            "mean": mean.value if mean else None,
            "low": mean.low if mean else None,
            "high": mean.high if mean else None,
            "sweep_value": one.sweep_value,
        }


@dataclass(frozen=True)
class Comparison:
    """Two contenders on the seeds that both have; the first one's mean is the better one.

    Args:
        p_holm: adjusted for all comparisons of the confirmation.
    """

    first: Score
    second: Score
    paired: Paired
    p_holm: float = 1.0

    @property
    def is_decided(self) -> bool:
        return self.p_holm < 1 - LEVEL

    @property
    def verdict(self) -> str:
        return "beats" if self.is_decided else "within noise"

    def is_of(self, *scores: Score) -> bool:
        return all(score in (self.first, self.second) for score in scores)

    def to_json(self) -> dict[str, Any]:
        return {
            "first": self.first.contender.label,
            "second": self.second.contender.label,
            "difference": self.paired.difference,
            "low": self.paired.low,
            "high": self.paired.high,
            "p": self.paired.p,
            "p_holm": self.p_holm,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Evidence:
    """All that a confirmation found.

    Args:
        objective: its name, such as ``val_accuracy``.
        scores: the leaders as the sweep ranks them, then the baseline.
        comparisons: of every two that can be compared.
    """

    sweep: str
    objective: str
    is_maximized: bool
    scores: Sequence[Score]
    comparisons: Sequence[Comparison]

    @classmethod
    def of(
        cls, sweep: str, objective: str, contenders: Sequence[Contender], seeds: Sequence[int],
        ended: Mapping[Key, Ended], *, is_maximized: bool,
    ) -> Evidence:  # fmt: skip
        """Judge what all trainings gave."""
        scores = [Score(one, seeds, [ended[one.identity, seed].value for seed in seeds]) for one in contenders]
        pairs = [_compared(*two, is_maximized) for two in combinations(scores, 2)]
        found = [pair for pair in pairs if pair is not None]
        adjusted = holm([pair.paired.p for pair in found])
        return cls(
            sweep, objective, is_maximized, scores,
            [replace(pair, p_holm=p) for pair, p in zip(found, adjusted, strict=True)],
        )  # fmt: skip

    @property
    def is_possible(self) -> bool:
        """Whether there is an answer: two contenders could be compared, or there was but one, and it has a mean."""
        return bool(self.comparisons) or (len(self.scores) == 1 and self.scores[0].mean is not None)

    @property
    def winner(self) -> Score | None:
        """The best mean, the sweep's better one of equals; one that failed with a seed wins only where all did.

        None where nothing could be compared.
        """
        if not self.is_possible:
            return None
        sign = -1.0 if self.is_maximized else 1.0
        able = [(not score.is_whole, sign * score.mean.value, score) for score in self.scores if score.mean]
        return min(able, key=lambda one: one[:2])[2] if able else None

    def comparison(self, one: Score, other: Score) -> Comparison | None:
        """Return the comparison of two, None where there is none."""
        return next((pair for pair in self.comparisons if pair.is_of(one, other)), None)


def _compared(one: Score, other: Score, is_maximized: bool) -> Comparison | None:
    pairs = [
        (mine, theirs) for mine, theirs in zip(one.values, other.values, strict=True)
        if mine is not None and theirs is not None
    ]  # fmt: skip
    if len(pairs) < AT_LEAST:
        return None
    mine, theirs = zip(*pairs, strict=True)
    is_behind = sum(mine) < sum(theirs) if is_maximized else sum(mine) > sum(theirs)
    return Comparison(other, one, compare(theirs, mine)) if is_behind else Comparison(one, other, compare(mine, theirs))
