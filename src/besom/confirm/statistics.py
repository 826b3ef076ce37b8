"""What can be said of a few numbers for each contender: a mean with its interval, paired comparisons, a share.

SciPy computes; only Holm's correction, which SciPy lacks, is written here. Knows nothing of trials and of runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95
"""Of every interval; a comparison is decided at 1 - LEVEL, two-sided."""

FLOAT32_STEP = 2.0**-22
"""Metrics are computed as float32: differences that are closer than this share of the values are the same number."""


@dataclass(frozen=True)
class Estimate:
    """A mean, or a share, with its interval."""

    value: float
    low: float
    high: float

    @property
    def margin(self) -> float:
        """Half of the interval, which for a mean lies around it."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Paired:
    """Two contenders on the same seeds.

    Args:
        difference: mean of first minus second.
        p: two-sided, before any correction.
    """

    difference: float
    low: float
    high: float
    p: float


def mean_of(values: Sequence[float]) -> Estimate:
    """Return the mean of at least two values with Student's interval, which takes them for normally distributed.

    Student (1908), The probable error of a mean, Biometrika 6(1), 1-25.
    """
    from scipy import stats

    mean = sum(values) / len(values)
    margin = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * stats.sem(values))
    return Estimate(mean, mean - margin, mean + margin)


def compare(first: Sequence[float], second: Sequence[float]) -> Paired:
    """Compare two rows of at least two values, those at one place having one seed, by the paired t-test.

    It takes the differences for normally distributed. Where all of them are the same there is no spread to judge by:
    then the p of the exact sign test is given, 2 ** (1 - n), or 1 where nothing differs, and the interval is the
    difference itself.
    """
    from scipy import stats

    differences = [one - other for one, other in zip(first, second, strict=True)]
    mean = sum(differences) / len(differences)
    step = FLOAT32_STEP * max(map(abs, (*first, *second)))
    if max(differences) - min(differences) <= step:
        is_nothing = abs(mean) <= step
        p = 1.0 if is_nothing else float(stats.binomtest(len(differences), len(differences)).pvalue)
        return Paired(mean, mean, mean, p)
    found = stats.ttest_rel(first, second)
    interval = found.confidence_interval(LEVEL)
    return Paired(mean, float(interval.low), float(interval.high), float(found.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number by Holm's step-down procedure, in the order given.

    The smallest of m is multiplied by m, the next by m - 1, …; none gets below one before it, none above 1. All that
    are then below 0.05 hold together: the chance that any of them is false is at most 0.05, whatever they have to do
    with each other, and whichever is looked at afterwards.

    Holm (1979), A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6(2),
    65-70.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for step, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - step) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def share_of(correct: int, n: int) -> Estimate:
    """Return a share of n images with Wilson's score interval, which stays within 0 and 1.

    Wilson (1927), Probable inference, the law of succession, and statistical inference, Journal of the American
    Statistical Association 22(158), 209-212.
    """
    from scipy import stats

    interval = stats.binomtest(correct, n).proportion_ci(LEVEL, method="wilson")
    return Estimate(correct / n, float(interval.low), float(interval.high))
