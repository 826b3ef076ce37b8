"""`besom reproduce`: what a person sees of it: what differs beforehand, progress, verdicts, exit code."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from besom.errors import ConfigError, NotFound
from besom.paths import REPRODUCTIONS
from besom.reproduce.again import reproduce
from besom.reproduce.causes import Difference
from besom.reproduce.exported import request_of
from besom.reproduce.request import Options, Request
from besom.reproduce.verdict import Verdict, worst
from besom.tables import print_json, print_rows, say

if TYPE_CHECKING:
    from besom.compare.catalog import StoredRun
    from besom.paths import Store

COLUMNS = ("trial", "state", "verdict", "differs", "first_epoch", "cause", "run_id")


def one(run: StoredRun, arguments: Namespace) -> int:
    """Reproduce one run; exit 0 only up to the accepted verdict."""
    options = _options(arguments)
    return _judge(Request.of(run, options), options, arguments)


def exported(folder: Path, store: Store, arguments: Namespace) -> int:
    """Reproduce what somebody has exported, into this store, which is made where there is none."""
    if arguments.all or arguments.from_model:
        raise ConfigError(f"--{'all' if arguments.all else 'from-model'} needs a store; {folder} is an exported folder")
    options = _options(arguments)
    return _judge(request_of(folder, store, options, lambda run_id: _home(store, run_id)), options, arguments)


def _home(store: Store, run_id: str) -> StoredRun:
    """Return what stands for a run of somebody else's store: a new run has its place in an experiment of its own."""
    from besom.app.store import create_store
    from besom.compare.catalog import StoredRun
    from besom.tracking import open_experiment, uri_of

    uri = uri_of(store, None)
    if uri == store.mlflow_uri:
        create_store(store)
    client, experiment_id = open_experiment(uri, REPRODUCTIONS, store)
    return StoredRun(uri, run_id, experiment_id, {}, None, {}, client, store)


def _judge(request: Request, options: Options, arguments: Namespace) -> int:
    _foretell(request.foreseen)
    [verdict] = [verdict for _, verdict in _verdicts([request], options, from_model=arguments.from_model)]
    found = verdict.to_json()
    if arguments.format == "json":
        print_json(found)
    elif arguments.format == "csv":
        del found["differences"]
        print_rows([found], list(found), "csv")
    else:
        say(verdict.sentence())
    return 0 if verdict.is_accepted(arguments.accept) else 1


@dataclass(frozen=True)
class Trials:
    """The trials of a sweep that can be reproduced, by number, and why the others cannot."""

    runs: dict[int, StoredRun]
    skipped: dict[int, str]

    @classmethod
    def of(cls, store: Store, sweep: str) -> Trials:
        """Return all trials that ended by themselves.

        Raises:
            NotFound: there is no such sweep.
        """
        from besom.compare.catalog import open_run, open_study
        from besom.sweep.run_ids import known_ids, run_id_of
        from besom.sweep.tally import OWN, outcome
        from besom.tracking import uri_of

        study = open_study(store, sweep)
        became = known_ids(study)
        ended = [trial for trial in study.get_trials(deepcopy=False) if outcome(trial) in OWN]
        runs = {trial.number: run_id_of(trial, became) for trial in ended}
        never = {one.number: one for one in ended if outcome(one) == "infeasible" or runs[one.number] is None}
        uri = uri_of(store, sweep)
        return cls(
            {
                trial.number: open_run(store, uri, str(runs[trial.number]))
                for trial in ended
                if trial.number not in never
            },
            {number: str(trial.user_attrs.get("reason", "it has no run")) for number, trial in never.items()},
        )


def every(store: Store, sweep: str, arguments: Namespace) -> int:
    """Reproduce every trial of a sweep; exit 0 only where all verdicts are accepted."""
    trials, options = Trials.of(store, sweep), _options(arguments)
    if not trials.runs:
        raise NotFound(f"sweep '{sweep}' has no trial yet that could be reproduced; see 'besom status {sweep}'")
    found = _requests(trials, options, from_model=arguments.from_model)
    numbers, requests = list(found), list(found.values())
    if not found:
        raise NotFound(f"no trial of sweep '{sweep}' can be reproduced: {next(iter(trials.skipped.values()))}")
    _foretell(one for request in requests for one in request.foreseen)
    verdicts: dict[int, Verdict] = {}
    for place, verdict in _verdicts(requests, options, from_model=arguments.from_model):
        verdicts[numbers[place]] = verdict
        _progress(f"{len(verdicts)}/{len(numbers)} trial {numbers[place]}: {verdict.verdict}")
    _print_all(sweep, {number: verdicts[number] for number in numbers}, trials.skipped, arguments.format)
    return 0 if all(verdict.is_accepted(arguments.accept) for verdict in verdicts.values()) else 1


def _requests(trials: Trials, options: Options, *, from_model: bool) -> dict[int, Request]:
    """Return what can be asked for; of what cannot, a trial whose run or artifact is gone, the reason is noted."""
    found: dict[int, Request] = {}
    for number, run in trials.runs.items():
        try:
            request = Request.of(run, options)
            if from_model and request.original.state != "COMPLETE":
                raise NotFound(f"it is {request.original.state} and has no model")
            found[number] = request
        except NotFound as error:
            trials.skipped[number] = str(error)
    return found


def _options(arguments: Namespace) -> Options:
    for name in ("threads", "jobs"):
        if (given := getattr(arguments, name)) is not None and given < 1:
            raise ConfigError(f"--{name} {given} is too small; expected at least 1")
    return Options(
        allow=arguments.allow,
        threads=arguments.threads,
        onednn=arguments.onednn == "on",
        data_path=arguments.data_path,
        n_lanes=arguments.jobs,
    )


def _verdicts(requests: Sequence[Request], options: Options, *, from_model: bool) -> Iterable[tuple[int, Verdict]]:
    if not from_model:
        return reproduce(requests, options)
    from besom.reproduce.from_model import reevaluate

    return ((place, reevaluate(request, options)) for place, request in enumerate(requests))


def _foretell(found: Iterable[Difference]) -> None:
    """Say before anything is trained what is not as it was; each thing once."""
    lines = list(dict.fromkeys(str(one) for one in found))
    if lines:
        _progress("\n  ".join(["not as it was when this was trained (then → now):", *lines]))


def _progress(text: str) -> None:
    sys.stderr.write(f"besom: {text}\n")
    sys.stderr.flush()


def _print_all(sweep: str, verdicts: dict[int, Verdict], skipped: dict[int, str], form: str) -> None:
    rows = [{"trial": number, **verdict.to_json()} for number, verdict in verdicts.items()]
    if form == "json":
        left_out = [{"trial": number, "reason": reason} for number, reason in skipped.items()]
        verdict = worst(list(verdicts.values()))
        print_json({"name": sweep, "verdict": verdict, "reproductions": rows, "skipped": left_out})
        return
    print_rows([{**row, "differs": ", ".join(row["differs"]) or None} for row in rows], COLUMNS, form)
    if form == "table":
        same = sum(verdict.verdict == "bit-identical" for verdict in verdicts.values())
        say(f"\n{same} of {len(verdicts)} trials of sweep '{sweep}' are bit-identical")
        for number, reason in skipped.items():
            say(f"trial {number} is left out: {reason}")
