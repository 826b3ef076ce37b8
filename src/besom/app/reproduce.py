"""`besom reproduce`: train a stored run again in a fresh process and say how equal it came out.

The rerun is a run of its own in the original's experiment, with its own process, epochs and metrics.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from besom.compare.catalog import StoredRun
from besom.configs.config import typed
from besom.configs.project import Project
from besom.configs.schema import TrialConfig
from besom.data import OWN_SOURCES
from besom.engines.lane import LaneSetup
from besom.engines.lanes import LanePool
from besom.errors import BesomError, ConfigError, NotFound
from besom.reporting import TrialHandle, running
from besom.seeding import fix_runtime

VERDICTS = ("bit-identical", "same-predictions", "within-noise", "different")
PARTS = ("weights", "history", "predictions")
CAUSES = ("data", "split", "code", "config", "packages", "threads", "steps_per_execution", "cpu", "seeds")
"""Parts of a fingerprint in the order in which they are looked at for the cause of a difference."""


TRUSTED = {
    "data": OWN_SOURCES,
    "model": ("besom.model.cnn",),
}
"""The only targets that a config out of a store may name unasked."""


@dataclass(frozen=True)
class Verdict:
    """What a reproduction found.

    Args:
        verdict: one of `VERDICTS`.
        cause: the first part of the fingerprint that differs, None where nothing differs.
        differs: which of weights, history and predictions came out otherwise.
        first_epoch: the first epoch, from 0, whose metrics differ; None where all are equal.
        run_id: the MLflow run of the reproduction.
    """

    verdict: str
    cause: str | None
    differs: list[str]
    first_epoch: int | None
    run_id: str
    original_run_id: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def sentence(self) -> str:
        """Return the verdict for a person."""
        line = f"{self.verdict}: run {self.run_id} repeats {self.original_run_id}"
        if not self.differs:
            return f"{line} in weights, history and predictions"
        where = f", from epoch {self.first_epoch} on" if self.first_epoch is not None else ""
        why = self.cause or "nothing that the fingerprint knows of; a stored hash may have been changed"
        return f"{line}; {', '.join(self.differs)} differ{where}; first cause: {why}"


@dataclass(frozen=True)
class Rerun:
    """What a reproduction gave.

    Args:
        facts: what the trial told: hashes, ``n_params``, ….
        fingerprint: what it depended on, part by part.
    """

    objective: float
    facts: Mapping[str, Any]
    history: Mapping[str, Sequence[float]]
    fingerprint: Mapping[str, Any]


def reproduce_run(original: StoredRun, allow: Sequence[str]) -> Verdict:
    """Train a run's frozen config again in a fresh process and compare.

    Args:
        allow: packages that the config may import a loader or builder from, besides besom itself.

    Raises:
        NotFound: the run ended before it had a result.
        ConfigError: its config names code of a package that is not allowed.
        DataError: the data is gone or no longer what it must be.
    """
    hashes = _stored_hashes(original)
    content = original.config()
    refuse_foreign_targets(content, allow)
    config = typed(content)
    _load_data(config)
    fix_runtime(config.train.threads)
    with _own_run(original, content) as run_id:
        rerun = _train_again(original, content, run_id)
    return compare(original, hashes, rerun, run_id)


def _stored_hashes(original: StoredRun) -> list[Mapping[str, str]]:
    """Return every stored copy of the result's hashes: the run's tags, and the study's."""
    names = [f"{part}_sha256" for part in PARTS]
    if any(name not in original.tags for name in names):
        raise NotFound(f"run {original.run_id} ended before it had a result; expected one that is COMPLETE")
    return [original.tags, *([original.study_hashes] if original.study_hashes else [])]


def refuse_foreign_targets(content: Mapping[str, Any], allow: Sequence[str]) -> None:
    """Raise `ConfigError` where a stored config would import code that nobody here allowed.

    A config from a store is data that somebody may have written; only besom's own targets are trusted.
    """
    for group, own in TRUSTED.items():
        target = str((content.get(group) or {}).get("_target_", own[0]))
        package = target.split(".", 1)[0]
        if target not in own and (package == "besom" or package not in allow):
            mend = f"; to import that code, give --allow {package}" if package != "besom" else ""
            raise ConfigError(f"the run's {group} is built by {target!r}; expected {', '.join(own)}{mend}")


def _load_data(config: TrialConfig) -> None:
    from besom import data

    sys.path.insert(0, str(Project.around(Path.cwd()).root))  # where a user's own loader is found
    data.load(config.data)


@contextmanager
def _own_run(original: StoredRun, content: Mapping[str, Any]) -> Iterator[str]:
    from besom.tracking import create_run

    tags = {"kind": "reproduction", "reproduces": original.run_id, "state": "RUNNING"}
    parent = original.tags.get("mlflow.parentRunId")
    tags |= {"mlflow.parentRunId": parent} if parent else {}
    name = f"{original.tags.get('mlflow.runName', original.run_id)}-again"
    run_id = create_run(original.client, original.experiment_id, name, content, tags)
    status = "FAILED"
    try:
        yield run_id
        status = "FINISHED"
    finally:
        original.client.set_tag(run_id, "state", "COMPLETE" if status == "FINISHED" else "FAIL")
        original.client.set_terminated(run_id, status)


def _train_again(original: StoredRun, content: Mapping[str, Any], run_id: str) -> Rerun:
    """Run the trial in a lane of its own, which is a fresh process."""
    here = {**content, "paths": {**content["paths"], "store": str(original.store.root)}}
    with (
        TemporaryDirectory(prefix="besom-") as log,  # what TensorFlow says at its start is no part of a verdict
        closing(LanePool(1, LaneSetup(run_again, log_folder=Path(log)))) as lanes,
    ):
        future = lanes.submit((here, run_id, original.uri), lambda step, value: False)
        while not future.done():
            lanes.wait(1.0)
    if error := future.exception():
        raise BesomError(f"the reproduction failed: {str(error).strip().splitlines()[-1]}") from error
    objective, facts = future.result()
    again = StoredRun(original.uri, run_id, original.experiment_id, {}, None, {}, original.client, original.store)
    return Rerun(objective, facts, again.history(), json.loads(again.artifact("fingerprint.json")))


def run_again(
    job: tuple[dict[str, Any], str, str], channel: Callable[[int, float], bool]
) -> tuple[float, dict[str, Any]]:
    """Train in this process into a run that exists; return the objective and what the trial told."""
    import os

    content, run_id, uri = job
    os.environ["MLFLOW_TRACKING_URI"] = uri
    content["tracking"] = {**content.get("tracking", {}), "uri": None}
    from besom.trial.trial import run

    with running(TrialHandle(-1, run_id, channel)) as handle:
        return run(content), handle.facts


def compare(original: StoredRun, stored: Sequence[Mapping[str, str]], rerun: Rerun, run_id: str) -> Verdict:
    """Judge a rerun against every stored copy of the original's hashes."""
    differs = [
        part
        for part in PARTS
        if any(copy.get(f"{part}_sha256") != rerun.facts.get(f"{part}_sha256") for copy in stored)
    ]
    history = original.history()
    return Verdict(
        verdict=_verdict(differs, history, rerun),
        cause=_cause(json.loads(original.artifact("fingerprint.json")), rerun.fingerprint) if differs else None,
        differs=differs,
        first_epoch=first_difference(history, rerun.history) if differs else None,
        run_id=run_id,
        original_run_id=original.run_id,
    )


def _verdict(differs: Sequence[str], history: Mapping[str, Sequence[float]], rerun: Rerun) -> str:
    if not differs:
        return "bit-identical"
    if "predictions" not in differs:
        return "same-predictions"
    n_val = rerun.facts.get("n_val") or 1
    return "within-noise" if within_noise(history, rerun.history, int(n_val)) else "different"


def within_noise(one: Mapping[str, Sequence[float]], other: Mapping[str, Sequence[float]], n_val: int) -> bool:
    """Return whether the best validation accuracies lie within two standard errors of a difference of proportions."""
    first, second = (max(history["val_accuracy"], default=0.0) for history in (one, other))
    pooled = (first + second) / 2
    return abs(first - second) <= 2 * math.sqrt(2 * pooled * (1 - pooled) / n_val)


def _cause(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    return next((part for part in CAUSES if before.get(part) != now.get(part)), None)


def first_difference(one: Mapping[str, Sequence[float]], other: Mapping[str, Sequence[float]]) -> int | None:
    """Return the first epoch, from 0, at which two histories differ; None where they do not."""
    names = sorted({*one, *other})
    length = max((len(history.get(name, ())) for history in (one, other) for name in names), default=0)
    for epoch in range(length):
        if any(
            list(one.get(name, ()))[epoch : epoch + 1] != list(other.get(name, ()))[epoch : epoch + 1] for name in names
        ):
            return epoch
    return None
