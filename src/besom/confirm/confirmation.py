"""`besom confirm` as a whole: contenders, trainings, evidence, the locked test set, the champion.

Prints nothing: what happens on the way is told to a function. The caller holds the sweep's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from besom.compare.trials import SweepTrials
from besom.confirm import record, test_set
from besom.confirm.contender import Contender
from besom.confirm.contenders import Finder, Trust
from besom.confirm.evidence import Evidence, Score
from besom.confirm.openings import Opening, Openings, Refused
from besom.confirm.trainings import Ended, Rounds
from besom.confirm.words import sentence
from besom.errors import BesomError, one_line
from besom.paths import Store
from besom.withheld import without_password

if TYPE_CHECKING:
    from optuna import Study

Tell = Callable[[str], None]
"""Takes one line of progress."""


@dataclass(frozen=True)
class Options:
    """What is asked for.

    Args:
        top: so many leaders.
        seeds: so many new seeds.
        n_lanes: trainings at the same time, None for what fits.
        may_test: whether the test set may be opened for the winner.
        again: whether even when it was opened for another trial.
    """

    top: int
    seeds: int
    n_lanes: int | None = None
    may_test: bool = True
    again: bool = False
    trust: Trust = field(default_factory=Trust)


@dataclass(frozen=True)
class Confirmation:
    """What was found.

    Args:
        opening: what is known of the winner on the test images.
        problem: why the winner could not be tested, to be raised once all else is told.
    """

    evidence: Evidence
    opening: Opening | None = None
    problem: BesomError | None = None

    def to_json(self) -> dict[str, Any]:
        winner = self.evidence.winner
        return {
            "name": self.evidence.sweep,
            "contenders": [score.to_json() for score in self.evidence.scores],
            "comparisons": [pair.to_json() for pair in self.evidence.comparisons],
            "winner": winner.contender.label if winner else None,
            "sentence": sentence(self.evidence),
            "test": self.opening.to_json() if self.opening else None,
        }


def confirm(store: Store, study: Study, options: Options, tell: Tell) -> Confirmation:
    """Train, compare, open the test set for the winner and make it the champion.

    Raises:
        UserError: no trial can be a contender; nothing was trained then.
    """
    finder = Finder(store, study, options.trust)
    contenders = finder.find(options.top)
    for note in finder.notes:
        tell(note)
    evidence = _trained(study, contenders, options, tell)
    winner = evidence.winner
    if winner is None:
        return Confirmation(evidence)
    try:
        opening, problem = _tested(study, winner, options, tell), None
    except Refused as refused:
        opening, problem = None, refused
    except BesomError as error:  # the stored model is not what it was: no champion
        return Confirmation(evidence, None, error)
    _recorded(study, evidence, winner, opening, tell)
    return Confirmation(evidence, opening, problem)


def new_seeds(contenders: Sequence[Contender], n: int) -> list[int]:
    """Return seeds that no contender was trained with."""
    first = max(one.seed for one in contenders) + 1
    return [(first + place) % 2**32 for place in range(n)]


def _trained(study: Study, contenders: Sequence[Contender], options: Options, tell: Tell) -> Evidence:
    trials, seeds = SweepTrials.of(study), new_seeds(contenders, options.seeds)
    n_ended = 0

    def on_end(one: Contender, seed: int, ended: Ended, was_there: bool) -> None:
        nonlocal n_ended
        n_ended += 1
        what = f"{trials.objective} {ended.value:.4f}" if ended.value is not None else f"failed: {ended.reason}"
        there = ", as trained before" * was_there
        tell(f"{n_ended}/{len(contenders) * len(seeds)} {one.label}, seed {seed}: {what}{there}")

    rounds = Rounds(trials.name, str(study.user_attrs.get("id")), contenders, seeds)
    ended = rounds.run(options.n_lanes, on_end)
    evidence = Evidence.of(trials.name, trials.objective, contenders, seeds, ended, is_maximized=trials.is_maximized)
    for score in evidence.scores:
        if not score.is_whole:
            tell(f"{score.contender.label} failed with {len(seeds) - len(score.good)} of {len(seeds)} seeds; it is "
                 "compared on those that are left, where there are 2")  # fmt: skip
    return evidence


def _tested(study: Study, winner: Score, options: Options, tell: Tell) -> Opening | None:
    """Return what the winner's stored model makes of the test images; they are opened once for a sweep."""
    one, book = winner.contender, Openings(study)
    if one.number is None:
        tell("the base config won and was no trial, so the store has no model of it: the test set stays closed")
        return None
    if (known := book.result_of(one.home.run_id)) is not None or not options.may_test:
        return known
    if one.content["data"].get("n_test") == 0:
        tell("data.n_test=0 left no test images; expected at least 1, to say how good the winner is")
        return None
    if not options.again:
        book.refuse_another(one.home.run_id)
    number, run_id = one.number, one.home.run_id
    correct, n = test_set.evaluate(one, lambda: book.begin(number, run_id, len(winner.good)))
    return book.end(run_id, correct, n)


def _recorded(study: Study, evidence: Evidence, winner: Score, opening: Opening | None, tell: Tell) -> None:
    if winner.contender.number is None:
        tell(f"the base config won and was no trial: MLflow's registered model '{evidence.sweep}' is left as it is")
    try:
        record.record(str(study.user_attrs.get("id")), evidence, winner, opening)
    except BesomError as error:  # a model of that name that somebody else registered
        tell(str(error))
    except Exception as error:  # MLflow's, of any kind: the runs and the test set's book have all that counts
        tell(f"the champion may not be in MLflow: {without_password(one_line(error))}; the same command tries again")
