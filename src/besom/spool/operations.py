"""What besom tells MLflow about one run: seven operations, each as JSON in a journal and as calls of a client.

Each may be repeated: what a killed delivery or a lost answer did twice is there once. ``again`` tells an operation that
it may have been done before, so that it looks first; the first time that would be a call for nothing. All times are
those of the trial, never of the delivery.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from besom.contained import refuse_outside
from besom.experiments import PARAMS_PER_CALL, milliseconds, open_experiment, params_of, process_tags, run_tags
from besom.paths import Store
from besom.spool.attempt import once
from besom.spool.logged_model import log_model

CREATED_AS = "created_as"
"""Tag of each run of a trial: the id by which it is found where MLflow made it and its answer was lost."""

Point = tuple[str, float, int, int]
"""A metric: name, value, milliseconds since 1970, step."""


@dataclass(frozen=True)
class Target:
    """Where operations go.

    Args:
        client: an ``MlflowClient``.
        run_id: MLflow's id of the run, '' before it is made.
        files: the folder of the operation's files, where it has some.
        experiments: ids by name, of those that were opened.
        is_stored: what is told was kept on disk, and somebody else may have put it there: its files go into the store.
    """

    client: Any
    uri: str
    store: Store
    run_id: str = ""
    files: Path | None = None
    experiments: dict[str, str] = field(default_factory=dict)
    is_stored: bool = False

    def check_place(self, location: str) -> None:
        """Raise `ConfigError` where files would be written outside the store, as its database or a link says."""
        if self.is_stored:
            refuse_outside(self.store, location)

    def experiment(self, name: str) -> str:
        """Return the id of an experiment, made where it is missing."""
        if name not in self.experiments:
            self.experiments[name] = open_experiment(self.uri, name, self.store)[1]
        return self.experiments[name]


class Operation(Protocol):
    """One thing to be told."""

    name: ClassVar[str]

    def apply(self, target: Target, *, again: bool) -> str | None:
        """Tell MLflow; return the id of a run that was made.

        Raises:
            Exception: of any kind, see `besom.spool.classes`.
        """


@dataclass(frozen=True)
class Create:
    """Make the run.

    Args:
        experiment: its name.
        known_by: a query that finds this run and no other.
        is_child: whether it lies below the sweep's own run, which is made where it is missing.
    """

    name: ClassVar[str] = "create"
    experiment: str
    run_name: str
    start_time: int
    tags: Mapping[str, str]
    known_by: str
    is_child: bool = False

    def apply(self, target: Target, *, again: bool) -> str | None:
        experiment_id = target.experiment(self.experiment)
        if again and (found := target.client.search_runs([experiment_id], self.known_by, max_results=1)):
            return str(found[0].info.run_id)
        tags = {tag.key: tag.value for tag in run_tags(self.tags)}
        if self.is_child and "mlflow.parentRunId" not in tags:
            tags["mlflow.parentRunId"] = str(sweeps_own_run(self.experiment).apply(target, again=True))
        with once():
            made = target.client.create_run(
                experiment_id, run_name=self.run_name, start_time=self.start_time, tags=tags
            )
        return str(made.info.run_id)


def sweeps_own_run(sweep: str, start_time: int = 0) -> Create:
    """Return what makes the parent run of a sweep, or finds it."""
    tags = {**source_tags(), "kind": "sweep", "sweep": sweep}
    return Create(sweep, sweep, start_time or milliseconds(), tags, "tags.kind = 'sweep'")


def source_tags() -> dict[str, str]:
    """Return the tags that say what made a run, and which process works on it."""
    return {"mlflow.source.name": "besom", "mlflow.source.type": "LOCAL", **process_tags()}


@dataclass(frozen=True)
class Batch:
    """Params, metrics and tags in one call."""

    name: ClassVar[str] = "batch"
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Sequence[Point] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    def apply(self, target: Target, *, again: bool) -> str | None:
        from mlflow.entities import Metric, Param

        target.client.log_batch(
            target.run_id,
            metrics=[Metric(key, value, at, step) for key, value, at, step in self.metrics],
            params=[Param(key, value) for key, value in self.params.items()],
            tags=run_tags(self.tags),
        )
        return None


def param_batches(config: Mapping[str, Any]) -> list[Batch]:
    """Return a config as params, as many in one call as MLflow takes."""
    params = list(params_of(config).items())
    parts = [params[start : start + PARAMS_PER_CALL] for start in range(0, len(params), PARAMS_PER_CALL)]
    return [Batch(params=dict(part)) for part in parts]


@dataclass(frozen=True)
class Input:
    """The dataset that is trained on; ``tags`` are what may differ between runs with the same one."""

    name: ClassVar[str] = "input"
    dataset: Mapping[str, str]
    tags: Mapping[str, str]

    def apply(self, target: Target, *, again: bool) -> str | None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        tags = [InputTag(key, value) for key, value in self.tags.items()]
        target.client.log_inputs(target.run_id, datasets=[DatasetInput(Dataset(**self.dataset), tags)])
        return None


@dataclass(frozen=True)
class Artifacts:
    """The files of a folder."""

    name: ClassVar[str] = "artifacts"

    def apply(self, target: Target, *, again: bool) -> str | None:
        if target.is_stored:
            target.check_place(target.client.get_run(target.run_id).info.artifact_uri)
        target.client.log_artifacts(target.run_id, str(target.files))
        return None


@dataclass(frozen=True)
class Model:
    """A trained model, with the numbers and tags of its training; see `besom.spool.logged_model`."""

    name: ClassVar[str] = "model"
    model_name: str
    dataset_name: str
    dataset_digest: str
    metrics: Sequence[Point]
    tags: Mapping[str, str]

    def apply(self, target: Target, *, again: bool) -> str | None:
        from mlflow.entities import Metric

        def metrics(model_id: str) -> list[Any]:
            about = {"model_id": model_id, "dataset_name": self.dataset_name, "dataset_digest": self.dataset_digest}
            return [Metric(key, value, at, step, **about) for key, value, at, step in self.metrics]

        assert target.files is not None, "a model is a folder"
        log_model(
            target.client,
            target.run_id,
            self.model_name,
            target.files,
            metrics,
            run_tags(self.tags),
            target.check_place,
            again=again,
        )
        return None


@dataclass(frozen=True)
class Note:
    """Why something of the run is missing: what MLflow refused."""

    name: ClassVar[str] = "note"
    text: str

    def apply(self, target: Target, *, again: bool) -> str | None:
        target.client.set_tag(target.run_id, "refused", self.text)
        return None


@dataclass(frozen=True)
class End:
    """The end of the run, in MLflow's word; one that has ended so already stays as it is."""

    name: ClassVar[str] = "end"
    status: str
    end_time: int
    tags: Mapping[str, str]

    def apply(self, target: Target, *, again: bool) -> str | None:
        run = target.client.get_run(target.run_id)
        if run.info.status == self.status and self.tags.items() <= run.data.tags.items():
            return None
        if self.tags:
            target.client.log_batch(target.run_id, tags=run_tags(self.tags))
        target.client.set_terminated(target.run_id, self.status, self.end_time)
        return None


KINDS: dict[str, type[Any]] = {kind.name: kind for kind in (Create, Batch, Input, Artifacts, Model, Note, End)}


def to_json(operation: Any) -> dict[str, Any]:
    """Return an operation as a journal keeps it."""
    return {"op": operation.name, **asdict(operation)}


def from_json(content: Mapping[str, Any]) -> Any:
    """Return what a journal kept.

    Raises:
        ValueError: it is of a besom that knew more operations, or no operation.
    """
    fields = {key: value for key, value in content.items() if key not in ("op", "files")}
    try:
        kind = KINDS[content["op"]]
        if "metrics" in fields:
            fields["metrics"] = tuple(tuple(one) for one in fields["metrics"])
        return kind(**fields)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{str(content)[:200]} is no operation that this version of besom knows") from error
