"""A confirmation in one plain sentence, and its test result in another."""

from __future__ import annotations

from collections.abc import Sequence

from besom.confirm.evidence import Comparison, Evidence, Score
from besom.confirm.openings import Opening


def sentence(evidence: Evidence) -> str:
    """Return what was found: the winner against the baseline first, then against all others."""
    winner = evidence.winner
    if winner is None:
        return "too many trainings failed: nothing can be compared"
    main = _main(evidence, winner)
    if main is None:
        return f"{winner.contender.label} has {_mean(winner)} over {len(winner.good)} seeds; it was compared with none"
    others = [pair for pair in evidence.comparisons if pair is not main and pair.is_of(winner)]
    return "; ".join([_compared(evidence, main), *_rest(winner, main, others)])


def _main(evidence: Evidence, winner: Score) -> Comparison | None:
    """Return the comparison that is told at length: with the baseline, or where that won with the best of the rest."""
    mine = [pair for pair in evidence.comparisons if pair.is_of(winner)]
    of_baseline = [pair for pair in mine if _other(pair, winner).contender.is_baseline]
    sign = -1.0 if evidence.is_maximized else 1.0
    return min(of_baseline or mine, key=lambda pair: sign * _value(_other(pair, winner)), default=None)


def _other(pair: Comparison, score: Score) -> Score:
    return pair.second if pair.first == score else pair.first


def _value(score: Score) -> float:
    return sum(score.good) / len(score.good)


def _mean(score: Score) -> str:
    mean = score.mean
    return "no mean" if mean is None else f"{mean.value:.4f} ± {mean.margin:.4f}"


def _compared(evidence: Evidence, pair: Comparison) -> str:
    first, second = pair.first.contender.label, pair.second.contender.label
    head = f"{first} beats {second}" if pair.is_decided else f"within noise: {first} and {second}"
    means = f"{_mean(pair.first)} against {_mean(pair.second)}"
    n = len(evidence.comparisons)
    p = f"p {'< 0.001' if pair.p_holm < 0.001 else f'= {pair.p_holm:.3f}'}"
    return f"{head}: {means}, {_difference(evidence, pair)}, {p}" + (f" after Holm over {n} comparisons" * (n > 1))


def _difference(evidence: Evidence, pair: Comparison) -> str:
    """Return a difference with its interval: percentage points of an accuracy."""
    is_share = evidence.objective.endswith("accuracy")
    numbers = (pair.paired.difference, pair.paired.low, pair.paired.high)
    value, low, high = (f"{100 * one:+.2f}" if is_share else f"{one:+.4f}" for one in numbers)
    return f"{value}{' points' * is_share} (95 % CI {low} to {high})"


def _rest(winner: Score, main: Comparison, others: Sequence[Comparison]) -> list[str]:
    beaten = [pair.second for pair in others if pair.is_decided and pair.first == winner]
    level = [_other(pair, winner) for pair in others if not pair.is_decided]
    label = winner.contender.label
    who, also = ("it", " also") if main.is_decided and main.first == winner else (label, "")
    parts = [f"{who}{also} beats {_listed(beaten)}"] if beaten else []
    return [*parts, *([f"{who} is within noise of {_listed(level)}"] if level else [])]


def _listed(scores: Sequence[Score]) -> str:
    labels = [score.contender.label for score in scores]
    return " and ".join([", ".join(labels[:-1]), labels[-1]] if len(labels) > 1 else labels)


def test_text(opening: Opening) -> str:
    """Return what came out on the test images."""
    share = opening.share
    assert share is not None, "only an opening with a result is told"
    again = ", after they had been opened for another trial," * opening.forced
    found = f"accuracy {share.value:.4f}, {opening.correct:,} of {opening.n:,}"
    return (
        f"test images, opened on {opening.opened_at[:10]}{again} for trial {opening.trial}: {found} "
        f"(95 % CI {share.low:.4f} to {share.high:.4f})"
    )
