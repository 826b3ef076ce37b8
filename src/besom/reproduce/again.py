"""Trains stored trials again, each in a fresh process and in a run of its own, and holds them against the originals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from besom.compare.catalog import open_run
from besom.engines.launcher import lane_count
from besom.errors import ConfigError
from besom.reproduce.causes import Circumstances, differences
from besom.reproduce.original import fingerprint_of
from besom.reproduce.request import Options, Request
from besom.reproduce.verdict import Rerun, Verdict, judged
from besom.results import TrialResult
from besom.retrain.lanes import Training, train_all
from besom.retrain.runs import abandon_run, end_run, start_run


def reproduce(requests: Sequence[Request], options: Options) -> Iterator[tuple[int, Verdict]]:
    """Yield the place and the verdict of each request as its training ends.

    A pruned trial is stopped after its last epoch; a failed one is expected to fail again. Ctrl-C ends the runs that
    are on their way.
    """
    threads = requests[0].threads
    if any(request.threads != threads for request in requests):
        raise ConfigError("these runs were trained with different train.threads; expected runs of one sweep")
    run_ids: dict[int, str] = {}

    def trainings() -> Iterator[Training]:
        for place, request in enumerate(requests):
            run_ids[place] = _start(request)
            yield _training(request, run_ids[place])

    n_lanes = min(options.n_lanes or lane_count("auto", threads), len(requests))
    try:
        ended = train_all(trainings(), n_lanes=n_lanes, threads=threads, onednn=options.onednn, fresh=True)
        for place, result in ended:
            run_id = run_ids.pop(place)
            end_run(requests[place].run.client, run_id, result)
            yield place, _verdict(requests[place], run_id, result)
    finally:
        for place, run_id in run_ids.items():
            abandon_run(requests[place].run.client, run_id)


def _start(request: Request) -> str:
    run = request.run
    name = f"{run.tags.get('mlflow.runName', run.run_id)}-again"
    return start_run(run, name, request.content, {"kind": "reproduction", "reproduces": run.run_id})


def _training(request: Request, run_id: str) -> Training:
    original = request.original
    stop_at = max(0, original.n_epochs - 1) if original.state == "PRUNED" else None
    return Training(request.content, request.run.uri, run_id, stop_at)


def _verdict(request: Request, run_id: str, result: TrialResult) -> Verdict:
    """Judge a reproduction, and leave the verdict with its run."""
    run, original = request.run, request.original
    again = open_run(run.store, run.uri, run_id)
    before = Circumstances(original.fingerprint, original.params)
    now = Circumstances(fingerprint_of(again), again.params())
    verdict = judged(original, Rerun(run_id, result, again.history()), differences(before, now))
    run.client.set_tag(run_id, "verdict", verdict.verdict)
    if verdict.cause:
        run.client.set_tag(run_id, "cause", verdict.cause)
    return verdict
