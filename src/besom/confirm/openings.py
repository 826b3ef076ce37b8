"""The book of a sweep's locked test set: who opened it when, for which trial, and what came out.

It is a user attribute of the study, written before anything is opened, so that no crash can hide it. Knows nothing of
models and images.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from besom.confirm.statistics import Estimate, share_of
from besom.errors import ConfigError

if TYPE_CHECKING:
    from optuna import Study

ATTRIBUTE = "test_openings"


class Refused(ConfigError):
    """The test set was opened for another trial; it is not opened again without the user's word."""


@dataclass(frozen=True)
class Opening:
    """One time that the test images were looked at.

    Args:
        opened_at: ISO 8601 with the offset of the time zone.
        n_seeds: over how many the winner was confirmed.
        forced: whether they had been opened for another trial before.
        correct: how many of ``n`` test images the model named rightly, None while nobody knows: it may have crashed.
    """

    opened_at: str
    host: str
    trial: int
    run_id: str
    n_seeds: int
    forced: bool
    correct: int | None = None
    n: int | None = None

    @property
    def share(self) -> Estimate | None:
        """The accuracy with Wilson's interval, None while nobody knows it."""
        return None if self.correct is None or self.n is None else share_of(self.correct, self.n)

    def to_json(self) -> dict[str, Any]:
        share = self.share
        assert share is not None, "only an opening with a result is told"
        return {
            **{"accuracy": share.value, "low": share.low, "high": share.high, "n": self.n, "correct": self.correct},
            **{"run_id": self.run_id, "opened_at": self.opened_at, "forced": self.forced},
        }


class Openings:
    """The book; its writer holds the sweep's lock."""

    def __init__(self, study: Study) -> None:
        self._study = study

    @property
    def all(self) -> list[Opening]:
        return [_read(one) for one in self._study.user_attrs.get(ATTRIBUTE, [])]

    def result_of(self, run_id: str) -> Opening | None:
        """Return what is known of a run's model on the test images, None where it was never evaluated to the end."""
        return next((one for one in self.all if one.run_id == run_id and one.correct is not None), None)

    def refuse_another(self, run_id: str) -> None:
        """Raise `Refused` where the test images were opened for another trial, be it without a result."""
        if others := [one for one in self.all if one.run_id != run_id]:
            last = others[-1]
            raise Refused(
                f"the test set was opened for trial {last.trial} on {last.opened_at[:10]} and is opened for no other "
                "winner: a test set that decides between trials is one more validation set; --open-test-again does it "
                "all the same, and records that"
            )

    def begin(self, trial: int, run_id: str, n_seeds: int) -> None:
        """Write down that the test images are opened now; one for the same run that was never ended goes on."""
        before = self.all
        if any(one.run_id == run_id for one in before):
            return
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        self._write([*before, Opening(now, socket.gethostname(), trial, run_id, n_seeds, forced=bool(before))])

    def end(self, run_id: str, correct: int, n: int) -> Opening:
        """Write down what came out, and return the whole entry."""
        self._write([replace(one, correct=correct, n=n) if one.run_id == run_id else one for one in self.all])
        found = self.result_of(run_id)
        assert found is not None, "it was written just now"
        return found

    def _write(self, openings: list[Opening]) -> None:
        self._study.set_user_attr(ATTRIBUTE, [{**asdict(one), "accuracy": _accuracy(one)} for one in openings])


def _accuracy(one: Opening) -> float | None:
    return one.share.value if one.share is not None else None


def _read(entry: Mapping[str, Any]) -> Opening:
    return Opening(**{key: value for key, value in entry.items() if key != "accuracy"})
