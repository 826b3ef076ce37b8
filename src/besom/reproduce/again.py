"""Trains stored trials again, each in a fresh process and in a run of its own, and holds them against the originals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from besom.compare.catalog import open_run
from besom.engines.launcher import lane_count
from besom.errors import BesomError, ConfigError
from besom.reproduce.causes import Circumstances, differences
from besom.reproduce.original import fingerprint_of
from besom.reproduce.request import Options, Request
from besom.reproduce.verdict import Rerun, Verdict, judged
from besom.results import TrialResult
from besom.retrain.lanes import Training, train_all
from besom.retrain.runs import abandon_runs, close_dead, end_run, start_run
from besom.signals import put_off
from besom.tracking import log_tags

KIND = "reproduction"


def reproduce(requests: Sequence[Request], options: Options) -> Iterator[tuple[int, Verdict]]:
    """Yield the place and the verdict of each request as its training ends.

    A pruned trial is stopped after its last epoch; a failed one is expected to fail again. Ctrl-C ends the runs that
    are on their way.
    """
    threads = requests[0].threads
    if any(request.threads != threads for request in requests):
        raise ConfigError("these runs were trained with different train.threads; expected runs of one sweep")
    close_dead(requests[0].run.client, requests[0].run.experiment_id, KIND)
    run_ids: dict[int, str] = {}

    def trainings() -> Iterator[Training]:
        for place, request in enumerate(requests):
            with put_off():
                run_ids[place] = _start(request)
            yield _training(request, run_ids[place])

    n_lanes = min(options.n_lanes or lane_count("auto", threads), len(requests))
    try:
        ended = train_all(trainings(), n_lanes=n_lanes, threads=threads, onednn=options.onednn, fresh=True)
        for place, result in ended:
            end_run(requests[place].run.client, run_ids[place], result)
            yield place, _verdict(requests[place], run_ids.pop(place), result)
    finally:
        abandon_runs(requests[0].run.client, run_ids.values())


def _start(request: Request) -> str:
    run = request.run
    name = f"{run.tags.get('mlflow.runName', run.run_id)}-again"
    return start_run(run, name, request.content, {"kind": KIND, "reproduces": run.run_id})


def _training(request: Request, run_id: str) -> Training:
    original = request.original
    stop_at = max(0, original.n_epochs - 1) if original.state == "PRUNED" else None
    return Training(request.content, request.run.uri, run_id, stop_at)


def _verdict(request: Request, run_id: str, result: TrialResult) -> Verdict:
    """Judge a reproduction, and leave the verdict with its run."""
    run, original = request.run, request.original
    again = open_run(run.store, run.uri, run_id)
    before = Circumstances(original.fingerprint, original.params)
    try:
        found = differences(before, Circumstances(fingerprint_of(again), again.params()))
    except BesomError:  # it died before it could write down what it depends on
        found = []
    verdict = judged(original, Rerun(run_id, result, again.history()), found or request.foreseen)
    keep_verdict(run.client, verdict)
    return verdict


def keep_verdict(client: Any, verdict: Verdict) -> None:
    """Leave a verdict with the reproduction's run."""
    cause = {"cause": verdict.cause} if verdict.cause else {}
    log_tags(client, verdict.run_id, {"verdict": verdict.verdict, **cause})
