"""Trains each contender with each new seed, in warm lanes, each into a run of its own; what is there already is reused.

The caller holds the sweep's lock, so that a RUNNING run of this study is one whose process has died. Knows nothing of
what is made of the values.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from besom.confirm.contender import Contender
from besom.engines.launcher import lane_count
from besom.results import TrialResult
from besom.retrain.lanes import Training, train_all
from besom.retrain.runs import abandon_run, abandon_runs, end_run, start_run
from besom.signals import put_off

KIND = "confirmation"
OWN_FAILURE = "NonFinite"
"""What a training always fails of again; anything else that a run failed of is tried once more."""

Key = tuple[str, int]
"""A contender's identity and a seed."""


@dataclass(frozen=True)
class Ended:
    """How one training ended: with a value of the objective, or with a reason."""

    value: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Rounds:
    """All trainings that a confirmation needs.

    Args:
        study: the id of the sweep's study, which tells its runs from those of another one of that name.
        seeds: values of ``train.seed``, the same for all contenders, so that their values pair up.
    """

    sweep: str
    study: str
    contenders: Sequence[Contender]
    seeds: Sequence[int]

    @property
    def keys(self) -> list[tuple[Contender, int]]:
        """Every contender with every seed, seed by seed: what is stopped has compared some seeds at least."""
        return [(one, seed) for seed in self.seeds for one in self.contenders]

    def run(self, n_lanes: int | None, on_end: Callable[[Contender, int, Ended, bool], None]) -> dict[Key, Ended]:
        """Train what is not there yet and return how all ended; Ctrl-C ends the runs that are on their way.

        Args:
            n_lanes: how many are trained at the same time, None for what fits.
            on_end: is told each training as it ends, and whether it was there already.
        """
        known = self._left()
        ended: dict[Key, Ended] = {}
        missing = []
        for one, seed in self.keys:
            key = (one.identity, seed)
            if key in known:
                ended[key] = known[key]
                on_end(one, seed, known[key], True)
            else:
                missing.append((one, seed))
        with closing(self._trained(missing, n_lanes)) as trained:
            for (one, seed), result in trained:
                ended[one.identity, seed] = _ended(result)
                on_end(one, seed, ended[one.identity, seed], False)
        return ended

    def _left(self) -> dict[Key, Ended]:
        """Return what earlier confirmations have trained, and close what those that died have left RUNNING."""
        home = self.contenders[0].home
        known: dict[Key, Ended] = {}
        for run in _all_runs(home.client, home.experiment_id, f"tags.kind = '{KIND}' and tags.study = '{self.study}'"):
            if run.info.status == "RUNNING":
                abandon_run(home.client, run.info.run_id)
            elif (left := _left(run)) is not None:
                known.setdefault((run.data.tags["config_sha256"], int(run.data.tags["seed"])), left)
        return known

    def _trained(
        self, missing: Sequence[tuple[Contender, int]], n_lanes: int | None
    ) -> Generator[tuple[tuple[Contender, int], TrialResult]]:
        if not missing:
            return
        client, threads = self.contenders[0].home.client, self.contenders[0].threads
        run_ids: dict[int, str] = {}

        def trainings() -> Iterator[Training]:
            for place, (one, seed) in enumerate(missing):
                with put_off():
                    run_ids[place] = self._start(one, seed)
                yield Training(one.with_seed(seed), one.home.uri, run_ids[place])

        lanes = min(n_lanes or lane_count("auto", threads), len(missing))
        try:
            for place, result in train_all(trainings(), n_lanes=lanes, threads=threads, fresh=False):
                end_run(client, run_ids[place], result)
                del run_ids[place]  # only now: what could not be ended is abandoned below
                yield missing[place], result
        finally:
            abandon_runs(client, run_ids.values())

    def _start(self, one: Contender, seed: int) -> str:
        who = "baseline" if one.number is None else str(one.number)
        tags = {
            **{"kind": KIND, "sweep": self.sweep, "study": self.study, "confirms": one.run_id or "baseline"},
            **{"seed": str(seed), "config_sha256": one.identity},
        }
        return start_run(one.home, f"{self.sweep}-{who}-seed-{seed}", one.with_seed(seed), tags)


def _all_runs(client: Any, experiment_id: str, query: str) -> Iterator[Any]:
    """Yield every run that a query finds, the first one first."""
    token = None
    while True:
        page = client.search_runs([experiment_id], query, order_by=["attributes.start_time ASC"], page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _left(run: Any) -> Ended | None:
    """Return how a run ended, None where it has to be trained again."""
    tags: Mapping[str, str] = run.data.tags
    if run.info.status == "FINISHED" and "objective" in run.data.metrics:
        return Ended(float(run.data.metrics["objective"]))
    reason = tags.get("reason", "")
    return Ended(None, reason) if run.info.status == "FAILED" and reason.startswith(OWN_FAILURE) else None


def _ended(result: TrialResult) -> Ended:
    return Ended(result.values[0]) if result.state == "COMPLETE" else Ended(None, result.reason)
