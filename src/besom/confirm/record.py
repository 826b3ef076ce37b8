"""What a confirmation leaves in MLflow: the champion with what it stands on, and the same on the sweep's own run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from besom.compare import champion
from besom.confirm.evidence import Evidence, Score
from besom.confirm.openings import Opening
from besom.confirm.words import sentence
from besom.tracking import log_tags, log_values


def record(study: str, evidence: Evidence, winner: Score, opening: Opening | None) -> None:
    """Give the winner the alias, if it is a trial, and write down what is known of it.

    Raises:
        BesomError: the registry has a model of the sweep's name that the sweep did not register.
    """
    client, parent = winner.contender.home.client, winner.contender.home.tags.get("mlflow.parentRunId")
    tags = {**_confirmed(evidence, winner), **(_tested(opening) if opening else {})}
    if parent:
        own = {"confirmed_winner": winner.contender.label, "confirmed_sentence": tags["confirmed_sentence"]}
        opened = {"test_opened": opening.opened_at, "test_run_id": opening.run_id} if opening else {}
        log_tags(client, parent, {**own, **opened})
        if opening is not None:
            log_values(client, parent, _numbers(opening))
    one = winner.contender
    if one.number is not None and one.sweep_value is not None:
        champion.confirm(client, evidence.sweep, study, one.home.run_id, one.number, one.sweep_value, tags)


def _confirmed(evidence: Evidence, winner: Score) -> dict[str, str]:
    mean = winner.mean
    assert mean is not None, "a winner has a mean"
    against = [pair for score in evidence.scores if score.contender.is_baseline and score != winner
               if (pair := evidence.comparison(winner, score)) is not None]  # fmt: skip
    return {
        champion.CONFIRMED: "true",
        "confirmed_mean": repr(mean.value),
        "confirmed_low": repr(mean.low),
        "confirmed_high": repr(mean.high),
        "confirmed_seeds": ",".join(map(str, winner.seeds)),
        "confirmed_sentence": sentence(evidence),
        "confirmed_p_against_baseline": repr(against[0].p_holm) if against else "none",
        "confirmed_against_baseline": against[0].verdict if against else "none",
    }


def _tested(opening: Opening) -> dict[str, str]:
    return {key: repr(value) for key, value in _numbers(opening).items()}


def _numbers(opening: Opening) -> Mapping[str, Any]:
    share = opening.share
    assert share is not None, "only an opening with a result is recorded"
    return {
        **{"test_accuracy": share.value, "test_low": share.low, "test_high": share.high},
        **{"test_n": opening.n, "test_correct": opening.correct},
    }
