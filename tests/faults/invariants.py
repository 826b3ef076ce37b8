"""What must hold of a store after any fault and a resume, read by own SQL and own eyes: nothing here imports besom.

    python tests/faults/invariants.py mlruns quick        prints what is broken, one line each; exit code 1 if any

    before = finished(Books.of_store(store, "quick"))     # after the fault, while nothing runs
    ...                                                   # resume
    assert not broken(Books.of_store(store, "quick"), before=before, n_trials=4, mark=mark, tmp=tmp)

A *book* is one place that remembers trials: Optuna's study, MLflow's database, the folders of jobs. `broken` returns
sentences, each with the trial, run, file or process that it is about; an empty list is what every test wants.
`mark` is the value of the environment variable `MARK` that the harness gave to the sweep's parent: every process that
descends from it has it too, so that orphans are found whatever has become of their parents.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psutil

MARK = "BESOM_FAULTS_MARK"
OWN = {"complete": "COMPLETE", "pruned": "PRUNED", "infeasible": "PRUNED", "failed": "FAIL"}
"""Outcomes that are a trial's own → the state that Optuna has for them."""
LOST = ("lane_died", "batch_lost", "parent_died", "interrupted", "unasked")
STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
OPEN = ("RUNNING", "SCHEDULED")
PER_EPOCH = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
ONCE = ("objective", "n_params", "best_epoch", "fit_seconds")
ARTIFACTS = ("config.yaml", "fingerprint.json", "layers.csv", "trial.log")
DRAFT = re.compile(r"\.[^/]+\.[0-9a-f]{12}")
"""The name of a file or folder that is written before it gets its own name."""
STRANGERS = ("tmp*", "pymp-*")
"""What Python and MLflow leave of a killed process in TMPDIR, whose names are not besom's to choose."""


@dataclass(frozen=True)
class Books:
    """Where a sweep is written down.

    Args:
        study_db: the SQLite file of Optuna's storage.
        name: the study's.
        jobs: the folder with one folder a trial.
        mlflow_db: MLflow's SQLite file; None where nothing is tracked.
        store: the folder in which leftovers are looked for.
        locks: files that nobody may hold locked.
    """

    study_db: Path
    name: str
    jobs: Path
    mlflow_db: Path | None
    store: Path
    locks: tuple[Path, ...] = ()

    @classmethod
    def of_store(cls, store: Path, sweep: str) -> Books:
        """Return the books of a sweep of besom's own app."""
        jobs = store / "jobs" / sweep
        locks = (store / "jobs" / ".locks" / sweep, jobs / "parent.lock", store / ".creating.lock")
        return cls(store / "studies.db", sweep, jobs, store / "mlflow.db", store, locks)

    @classmethod
    def of_app(cls, folder: Path, study: str) -> Books:
        """Return the books of somebody else's app that keeps its study in the sweep's folder, as it does by default."""
        locks = (folder / "parent.lock", folder / f".study.db-{study}.lock")
        return cls(folder / "study.db", study, folder, None, folder, locks)


@dataclass(frozen=True)
class Trial:
    """What Optuna's database has of a trial."""

    number: int
    state: str
    params: Mapping[str, Any]
    values: tuple[Any, ...]
    attributes: Mapping[str, Any]
    began_as: str | None = None
    """The id of its run as it was stored at its start; ``attributes`` have what it became."""

    @property
    def outcome(self) -> str | None:
        return self.attributes.get("outcome")

    @property
    def is_own(self) -> bool:
        return self.state != "RUNNING" and self.outcome in OWN


@dataclass(frozen=True)
class Run:
    """What MLflow's database has of a run."""

    id: str
    name: str
    status: str
    tags: Mapping[str, str]
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[tuple[str, int], float | None] = field(default_factory=dict)
    twice: tuple[tuple[str, int], ...] = ()
    """Metrics and steps that it has more than one value of."""
    artifacts: Path | None = None

    @property
    def last(self) -> dict[str, float | None]:
        return {key: value for (key, _), value in sorted(self.metrics.items(), key=lambda item: item[0][1])}


@dataclass(frozen=True)
class Kept:
    """What must stay of a trial that had ended: its result to the byte, its numbers to the bit."""

    result: bytes | None
    state: str
    values: tuple[Any, ...]
    params: Mapping[str, Any]
    hashes: Mapping[str, Any]
    metrics: Mapping[tuple[str, int], float | None] | None
    """None where it has no run, or MLflow was not told all of it yet."""


def finished(books: Books) -> dict[int, Kept]:
    """Return what must stay as it is: trials that the study has finished, and those with a whole ``result.json``."""
    runs = {run.id: run for run in read_runs(books)}
    kept = {}
    for trial in read_trials(books):
        file = result_file(books, trial)
        text = file.read_bytes() if file.is_file() else None
        if not trial.is_own and (trial.state != "RUNNING" or not _is_whole(file)):
            continue
        told = json.loads(text) if text is not None and not trial.is_own else {}
        run = runs.get(trial.attributes.get("run_id", ""))
        waits = (books.store / "spool" / books.name / str(trial.began_as)).exists()
        kept[trial.number] = Kept(
            text,
            trial.state if trial.is_own else told["state"],
            trial.values if trial.is_own else tuple(told["values"]),
            trial.params,
            _hashes(trial.attributes if trial.is_own else told["facts"]),
            run.metrics if run is not None and not waits else None,
        )
    return kept


def broken(
    books: Books,
    *,
    before: Mapping[int, Kept] | None = None,
    n_trials: int | None = None,
    mark: str | None = None,
    tmp: Path | None = None,
) -> list[str]:
    """Return what is broken, one sentence each.

    Args:
        before: of `finished`, taken before the resume.
        n_trials: how many trials the sweep has to have ended by themselves; None: it need not be done.
        mark: see `MARK`; None: processes are not looked for.
        tmp: the folder for temporary files that the sweep had, None: not looked into.
    """
    trials, runs = read_trials(books), read_runs(books)
    found = [*_wrong_states(trials), *_twice(trials), *_wrong_results(books, trials)]
    found += changed(books, before or {})
    if books.mlflow_db is not None:
        found += [*_wrong_runs(trials, runs), *_incomplete(trials, runs), *_wrong_parent(runs, n_trials is not None)]
    if n_trials is not None and (n := sum(trial.is_own for trial in trials)) != n_trials:
        found.append(f"{n} trials have ended by themselves, not {n_trials}")
    return [*found, *held_locks(books), *leftovers(books, tmp), *orphans(mark)]


# Reading the books


def read_trials(books: Books) -> list[Trial]:
    """Return the trials of the study in order of number; none where there is no study."""
    if not books.study_db.is_file():
        return []
    with closing(_opened(books.study_db)) as db:
        rows = db.execute(
            "select trial_id, number, state from trials join studies using (study_id) where study_name = ? "
            "order by number", (books.name,),
        ).fetchall()  # fmt: skip
        params = _grouped(db, "select trial_id, param_name, param_value, distribution_json from trial_params")
        values = _grouped(db, "select trial_id, objective, value, value_type from trial_values order by objective")
        attributes = _grouped(db, "select trial_id, key, value_json from trial_user_attributes")
        became = db.execute(
            "select value_json from study_user_attributes join studies using (study_id) "
            "where study_name = ? and key = 'run_ids'", (books.name,),
        ).fetchone()  # fmt: skip
    known = json.loads(became[0]) if became else {}  # the runs of trials that began while MLflow was away
    return [
        Trial(
            number,
            state,
            {name: _param(value, json.loads(text)) for name, value, text in params.get(id_, [])},
            tuple(value if kind == "FINITE" else kind for _, value, kind in values.get(id_, []))
            if state == "COMPLETE"
            else (),  # of a pruned one Optuna keeps what it reported last
            {
                key: known.get(value, value) if key == "run_id" else value
                for key, value in ((key, json.loads(text)) for key, text in attributes.get(id_, []))
            },
            next((json.loads(text) for key, text in attributes.get(id_, []) if key == "run_id"), None),
        )
        for id_, number, state in rows
    ]


def read_runs(books: Books) -> list[Run]:
    """Return the runs of the sweep's experiment, the deleted ones not; none where there is no such experiment."""
    if books.mlflow_db is None or not books.mlflow_db.is_file():
        return []
    with closing(_opened(books.mlflow_db)) as db:
        rows = db.execute(
            "select run_uuid, runs.name, status, artifact_uri from runs join experiments using (experiment_id) "
            "where experiments.name = ? and runs.lifecycle_stage = 'active'", (books.name,),
        ).fetchall()  # fmt: skip
        tags = _grouped(db, "select run_uuid, key, value from tags")
        params = _grouped(db, "select run_uuid, key, value from params")
        metrics = _grouped(db, "select run_uuid, key, step, value, is_nan from metrics order by timestamp")
    return [
        Run(
            id_,
            name,
            status,
            dict(tags.get(id_, [])),
            dict(params.get(id_, [])),
            {(key, step): None if is_nan else value for key, step, value, is_nan in metrics.get(id_, [])},
            tuple(one for one, n in Counter((key, step) for key, step, *_ in metrics.get(id_, [])).items() if n > 1),
            Path(unquote(urlsplit(artifacts).path)) if artifacts else None,
        )
        for id_, name, status, artifacts in rows
    ]


def result_file(books: Books, trial: Trial) -> Path:
    """Return where a trial's ``result.json`` is."""
    return books.jobs / str(trial.attributes.get("job", trial.number)) / "result.json"


def _opened(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)


def _grouped(db: sqlite3.Connection, query: str) -> dict[Any, list[tuple[Any, ...]]]:
    found: dict[Any, list[tuple[Any, ...]]] = {}
    for id_, *rest in db.execute(query):
        found.setdefault(id_, []).append(tuple(rest))
    return found


def _param(stored: float, distribution: Mapping[str, Any]) -> Any:
    """Return a param's value: of a choice Optuna stores the place."""
    choices = distribution["attributes"].get("choices")
    return stored if choices is None else choices[int(stored)]


def _hashes(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if key.endswith("_sha256")}


# What must hold


def _wrong_states(trials: Iterable[Trial]) -> Iterator[str]:
    for place, trial in enumerate(trials):
        if trial.number != place:
            yield f"trial {trial.number} stands at place {place} of the study"
        if trial.state == "RUNNING":
            yield f"trial {trial.number} is RUNNING in the study"
        elif trial.outcome not in OWN and trial.outcome not in LOST:
            yield f"trial {trial.number} is {trial.state} without an outcome"
        elif trial.state != OWN.get(str(trial.outcome), "FAIL"):
            yield f"trial {trial.number} is {trial.state} and its outcome {trial.outcome}"
        if trial.state == "COMPLETE" and not trial.values:
            yield f"trial {trial.number} is COMPLETE without a value"


def _twice(trials: Iterable[Trial]) -> Iterator[str]:
    own = [trial for trial in trials if trial.is_own]
    points = Counter(trial.attributes.get("point") for trial in own)
    params = Counter(json.dumps(trial.params, sort_keys=True) for trial in own if trial.params)
    yield from (f"point {point} has {n} finished trials" for point, n in points.items() if n > 1)
    yield from (f"{text} was trained {n} times to its end" for text, n in params.items() if n > 1)
    run_ids = Counter(run_id for trial in trials if (run_id := trial.attributes.get("run_id")))
    yield from (f"run {run_id} belongs to {n} trials" for run_id, n in run_ids.items() if n > 1)


def _wrong_results(books: Books, trials: Iterable[Trial]) -> Iterator[str]:
    for trial in trials:
        file = result_file(books, trial)
        if trial.outcome in ("complete", "pruned") and not file.is_file():
            yield f"trial {trial.number} is {trial.state} and has no {file.name}"
        if trial.outcome in LOST and _is_whole(file):
            yield f"trial {trial.number} was given up ({trial.outcome}), and its {file.name} is whole"
        if not trial.is_own or not file.is_file():
            continue
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            yield f"{file} is no JSON"
            continue
        if (told["number"], told["state"], tuple(told["values"])) != (trial.number, trial.state, trial.values):
            yield f"trial {trial.number} is {trial.state} {trial.values} in the study and otherwise in {file}"
        if differing := [key for key, fact in told["facts"].items() if trial.attributes.get(key) != fact]:
            yield f"trial {trial.number} has other {', '.join(differing)} in the study than in {file}"


def _is_whole(file: Path) -> bool:
    try:
        return "state" in json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def changed(books: Books, before: Mapping[int, Kept]) -> Iterator[str]:
    """Yield what is no longer as `finished` has seen it."""
    now = finished(books)
    for number, old in before.items():
        new = now.get(number)
        if new is None:
            yield f"trial {number} had ended and is no longer there"
            continue
        for what in ("result", "state", "values", "params", "hashes", "metrics"):
            was, is_ = getattr(old, what), getattr(new, what)
            if was != is_ and (what not in ("result", "metrics") or was is not None):
                yield f"trial {number} had ended and its {what} changed from {was!r} to {is_!r}"


def _wrong_runs(trials: Iterable[Trial], runs: Iterable[Run]) -> Iterator[str]:
    by_id = {run.id: run for run in runs}
    own_runs = {trial.attributes["run_id"]: trial for trial in trials if "run_id" in trial.attributes}
    yield from (f"run {run.name} ({run.id}) is {run.status}" for run in runs if run.status in OPEN)
    yield from _wrong_strangers(run for run in runs if run.id not in own_runs)
    for run_id, trial in own_runs.items():
        if run_id not in by_id:
            yield f"trial {trial.number} has a run that is not there, {run_id}"
        elif trial.state != "RUNNING":
            yield from _other_end(trial, by_id[run_id])
    for trial in trials:
        if trial.state == "COMPLETE" and "run_id" not in trial.attributes:
            yield f"trial {trial.number} is COMPLETE and has no run"


def _wrong_strangers(runs: Iterable[Run]) -> Iterator[str]:
    """Of a trial's run whose id was not stored with the trial, because the parent died before: it has to be closed."""
    for run in runs:
        state = run.tags.get("state")
        if run.tags.get("kind") == "trial" and run.status not in OPEN and (run.status, state) != ("KILLED", "FAIL"):
            yield f"run {run.name} ({run.id}) is no trial's and {run.status}, state {state}"


def _other_end(trial: Trial, run: Run) -> Iterator[str]:
    expected = "KILLED" if trial.outcome in LOST else STATUS[trial.state]
    if run.status not in (expected, *OPEN):  # of an open one all is said
        yield f"trial {trial.number} is {trial.state} ({trial.outcome}) and its run {run.status}, not {expected}"
    if run.tags.get("state") != trial.state:
        yield f"trial {trial.number} is {trial.state} and its run's tag state {run.tags.get('state')}"
    if run.tags.get("trial") != str(trial.number):
        yield f"trial {trial.number} has the run of trial {run.tags.get('trial')}"
    for name, value in trial.params.items():
        if name in run.params and not _is_same(run.params[name], value):
            yield f"trial {trial.number} has {name}={value!r} in the study and {run.params[name]!r} in its run"


def _is_same(text: str, value: Any) -> bool:
    if isinstance(value, float) and not isinstance(value, bool):
        return float(text) == value
    return text == (value if isinstance(value, str) else json.dumps(value))


def _incomplete(trials: Iterable[Trial], runs: Iterable[Run]) -> Iterator[str]:
    by_id = {run.id: run for run in runs}
    for trial in trials:
        run = by_id.get(trial.attributes.get("run_id", ""))
        if run is None:
            continue
        yield from (f"trial {trial.number} has several values of {key} in step {step}" for key, step in run.twice)
        if trial.outcome not in ("complete", "pruned"):
            continue
        yield from _missing_epochs(trial, run)
        if run.artifacts is not None:
            lacking = [name for name in ARTIFACTS if not (run.artifacts / name).is_file()]
            yield from (f"trial {trial.number} has no artifact {name}" for name in lacking)
        if reason := run.tags.get("reason") if trial.state == "COMPLETE" else None:
            yield f"trial {trial.number} is COMPLETE and its run tells a reason: {reason}"
        if trial.state == "COMPLETE":
            yield from _wrong_values(trial, run)


def _missing_epochs(trial: Trial, run: Run) -> Iterator[str]:
    epochs = int(run.params.get("train.epochs", 0))
    for key in PER_EPOCH:
        steps = sorted(step for name, step in run.metrics if name == key)
        if trial.state == "COMPLETE" and steps != list(range(epochs)):
            yield f"trial {trial.number} has {key} of epochs {steps}, not of all {epochs}"
        elif not steps or steps != list(range(len(steps))):
            yield f"trial {trial.number} is {trial.state} and has {key} of epochs {steps}"


def _wrong_values(trial: Trial, run: Run) -> Iterator[str]:
    missing = [key for key in ONCE if key not in run.last]
    yield from (f"trial {trial.number} has no metric {key} in its run" for key in missing)
    if len(trial.values) == 1 and "objective" not in missing and run.last["objective"] != trial.values[0]:
        yield f"trial {trial.number} is {trial.values[0]} in the study and {run.last['objective']} in its run"
    if wrong := [key for key, sha in _hashes(trial.attributes).items() if run.tags.get(key) != sha]:
        yield f"trial {trial.number} has other {', '.join(wrong)} in its run than in the study"


def _wrong_parent(runs: Iterable[Run], is_done: bool) -> Iterator[str]:
    parents = [run for run in runs if run.tags.get("kind") == "sweep"]
    if len(parents) > 1 or (is_done and not parents):
        yield f"the sweep has {len(parents)} runs of its own"
    yield from (f"the sweep's own run is {run.status}" for run in parents if is_done and run.status != "FINISHED")


# What nobody may leave behind


def held_locks(books: Books) -> list[str]:
    """Return the locks that somebody holds."""
    held = []
    for path in books.locks:
        if path.exists():
            with path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    held.append(f"{path} is locked by {path.read_text()}")
    return held


def leftovers(books: Books, tmp: Path | None) -> list[str]:
    """Return the temporary files that are still there."""
    drafts = [path for path in books.store.rglob(".*") if DRAFT.fullmatch(path.name)]
    spool = [path for path in (books.store / "spool").rglob("*") if path.is_file()]
    folders = [path for path in (books.store / ".creating", books.jobs / "images") if path.exists()]
    folders += books.jobs.glob("tmp*")
    temporary = [path for path in tmp.iterdir() if not any(map(path.match, STRANGERS))] if tmp is not None else []
    return [f"{path} was left behind" for path in (*drafts, *spool, *folders, *temporary)]


def orphans(mark: str | None) -> list[str]:
    """Return the processes that a sweep left behind."""
    return [f"process {one.pid} lives on: {' '.join(_command(one))[:200]}" for one in marked(mark)]


def marked(mark: str | None) -> list[psutil.Process]:
    """Return the living processes that have the mark in their environment, this one not."""
    found = []
    for process in psutil.process_iter() if mark is not None else ():
        try:
            is_marked = process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if is_marked and process.pid != os.getpid():
            found.append(process)
    return found


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return ["gone meanwhile"]


def main(arguments: list[str]) -> int:
    """Say what is broken in a store and a sweep of it."""
    found = broken(Books.of_store(Path(arguments[0]), arguments[1]))
    sys.stdout.writelines(f"{line}\n" for line in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
