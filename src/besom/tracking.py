"""What MLflow is told of a sweep: where runs go, how they are made and ended, and `MlflowTracker`.

Every call names its run: MLflow's global stack of active runs is never used. MLflow itself is
imported on first use (2 s). Knows nothing of Optuna, Hydra and Keras.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from besom.configs.config import tracked_leaves
from besom.configs.schema import TrialConfig
from besom.errors import ConfigError, NotFound
from besom.lock import process_identity
from besom.paths import Store, write_atomically
from besom.uris import HTTP, absolute_uri, check_no_password, without_password

ENVIRONMENT = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # a bar for one small file hides what is worth reading
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # of 7: a server that is down costs 5 s a call, not 4 minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_TRUNCATE_LONG_VALUES": "false",  # MLflow cuts in silence; `clipped` leaves a mark
}
PARAM_LENGTH = 6000
TAG_LENGTH = 8000
PARAMS_PER_CALL = 100
"""MLflow's own limits: characters of a param's and a tag's value, params in one ``log_batch``."""

STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
"""Optuna's word for the end of a trial → MLflow's."""


def fix_environment(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what MLflow reads when it is imported, where the user has not; call before it is."""
    for name, value in ENVIRONMENT.items():
        environment.setdefault(name, value)


def tracking_uri(config: TrialConfig, environ: Mapping[str, str] = os.environ) -> str:
    """Return where runs go: ``tracking.uri``, else ``MLFLOW_TRACKING_URI``, else the store's database.

    Raises:
        ConfigError: the URI holds a password, or is a folder, which MLflow no longer takes.
    """
    return _uri(config.tracking.uri, Store.at(config.paths.store), environ)


def uri_of(store: Store, sweep: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """Return where the runs of a sweep went: what it was started with, else ``MLFLOW_TRACKING_URI``, else the store."""
    kept = store.tracking_uri(sweep) if sweep else None
    return _uri(kept.read_text(encoding="utf-8") if kept and kept.is_file() else None, store, environ)


def keep_uri(store: Store, sweep: str, given: str | None) -> None:
    """Store the ``tracking.uri`` of a sweep for those who read it later; it holds no password."""
    if given:
        write_atomically(store.tracking_uri(sweep), given)
    else:
        store.tracking_uri(sweep).unlink(missing_ok=True)


def _uri(given: str | None, store: Store, environ: Mapping[str, str]) -> str:
    if given:
        check_no_password(given, "tracking.uri")
    uri = given or environ.get("MLFLOW_TRACKING_URI") or store.mlflow_uri
    if urlsplit(uri).scheme in ("", "file") and uri != "databricks":
        name = "tracking.uri" if given else "MLFLOW_TRACKING_URI"
        raise ConfigError(f"{name}={uri!r} is a folder; MLflow takes sqlite:///FILE, postgresql://…, http://…")
    return absolute_uri(uri)


def clipped(value: str, length: int) -> str:
    """Return ``value``, or its start with a mark and its hash, so that two long values still differ."""
    if len(value) <= length:
        return value
    mark = f"… ({len(value)} characters, sha256 {hashlib.sha256(value.encode()).hexdigest()[:16]})"
    return value[: length - len(mark)] + mark


def as_text(value: Any) -> str:
    """Return a config value as YAML and overrides write it: ``null``, ``true``, ``0.001``, ``swish``."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def params_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the MLflow params of a config: every leaf but URLs and paths, in forms that MLflow takes."""
    return {
        re.sub(r"[^\w./: -]", "_", key): clipped(as_text(value), PARAM_LENGTH)
        for key, value in tracked_leaves(config).items()
    }


def process_tags() -> dict[str, str]:
    """Return the tags ``host pid process_start`` of this process: who to look for when a run stays RUNNING."""
    return {name: str(value) for name, value in process_identity().items()}


def milliseconds() -> int:
    """Return now as MLflow counts it."""
    return time.time_ns() // 1_000_000


def open_experiment(uri: str, name: str, store: Store) -> tuple[Any, str]:
    """Return an ``MlflowClient`` and the id of the experiment, made where it is missing.

    A server decides itself where artifacts go; for a database they go into the store.

    Raises:
        ConfigError: MLflow cannot be reached there, or the experiment lies in its trash.
    """
    fix_environment()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(name) or _new_experiment(client, uri, name, store)
    except MlflowException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"MLflow at {without_password(uri)} cannot be used: {without_password(reason)}") from error
    if experiment.lifecycle_stage != "active":
        raise ConfigError(
            f"MLflow experiment '{name}' is in the trash; restore it (mlflow experiments restore "
            f"-x {experiment.experiment_id}), remove it for good (besom delete {name}), or use another --name"
        )
    return client, str(experiment.experiment_id)


def _new_experiment(client: Any, uri: str, name: str, store: Store) -> Any:
    from mlflow.exceptions import MlflowException

    location = None if uri.startswith((*HTTP, "databricks")) else (store.artifacts / name).as_uri()
    try:
        client.create_experiment(name, artifact_location=location)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was faster
            raise
    return client.get_experiment_by_name(name)


def find_experiment(uri: str, name: str) -> Any:
    """Return an experiment that is there.

    Raises:
        NotFound: there is none of that name.
    """
    fix_environment()
    from mlflow import MlflowClient

    experiment = MlflowClient(uri).get_experiment_by_name(name)
    if experiment is None:
        raise NotFound(f"MLflow at {without_password(uri)} has no experiment '{name}'; 'besom sweep' lists the sweeps")
    return experiment


def create_run(client: Any, experiment_id: str, name: str, config: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    """Create a RUNNING run with the config as its params and return its id."""
    from mlflow.entities import Param

    given = {key: clipped(value, TAG_LENGTH) for key, value in tags.items()}
    source = {"mlflow.source.name": "besom", "mlflow.source.type": "LOCAL"}
    run_id = str(
        client.create_run(experiment_id, run_name=name, tags={**source, **process_tags(), **given}).info.run_id
    )
    params = [Param(key, value) for key, value in params_of(config).items()]
    for start in range(0, len(params), PARAMS_PER_CALL):
        client.log_batch(run_id, params=params[start : start + PARAMS_PER_CALL])
    return run_id


def log_tags(client: Any, run_id: str, tags: Mapping[str, str]) -> None:
    """Set several tags of a run in one call."""
    client.log_batch(run_id, tags=run_tags(tags))


def run_tags(tags: Mapping[str, str]) -> list[Any]:
    """Return tags as MLflow takes them, cut where they would be too long for it."""
    from mlflow.entities import RunTag

    return [RunTag(key, clipped(value, TAG_LENGTH)) for key, value in tags.items()]


def log_values(client: Any, run_id: str, values: Mapping[str, float], step: int = 0) -> None:
    """Log several metrics of one step in one call."""
    from mlflow.entities import Metric

    now = milliseconds()
    client.log_batch(run_id, metrics=[Metric(key, float(value), now, step) for key, value in values.items()])


class MlflowTracker:
    """Records a sweep in MLflow: one experiment, one parent run, one child run a trial.

    See `besom.tracker.Tracker` for the contract. It is told everything in `open_sweep`, so Hydra
    can build it without arguments.
    """

    _client: Any
    _experiment_id: str
    _sweep: str
    _parent_id: str

    def open_sweep(self, name: str, config: Mapping[str, Any]) -> None:
        store = Store.at(config["paths"]["store"])
        uri = _uri(config["tracking"]["uri"], store, os.environ)
        self._sweep = name
        self._client, self._experiment_id = open_experiment(uri, name, store)
        self._parent_id = self._take_up_parent() or create_run(
            self._client, self._experiment_id, name, {}, {"kind": "sweep", "sweep": name}
        )

    def start_trial(self, number: int, config: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        own = {
            "kind": "trial",
            "sweep": self._sweep,
            "trial": str(number),
            "state": "RUNNING",
            "mlflow.parentRunId": self._parent_id,
        }
        return create_run(self._client, self._experiment_id, f"{self._sweep}-{number}", config, {**tags, **own})

    def end_trial(self, run_id: str, state: str, reason: str | None, died: bool) -> None:
        status = "KILLED" if died and state == "FAIL" else STATUS[state]
        run = self._living(run_id)
        if run is None or (run.info.status, run.data.tags.get("state")) == (status, state):
            return
        log_tags(self._client, run_id, {"state": state, **({"reason": reason} if reason else {})})
        self._client.set_terminated(run_id, status)

    def running_trials(self) -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        token = None
        while True:
            page = self._search("tags.kind = 'trial' and attributes.status = 'RUNNING'", token)
            found += [(run.info.run_id, int(run.data.tags["trial"])) for run in page]
            token = page.token
            if not token:
                return found

    def close_sweep(self, summary: Mapping[str, float], best_number: int | None, finished: bool) -> None:
        log_values(self._client, self._parent_id, summary)
        if best_number is not None:
            log_tags(self._client, self._parent_id, {"best_trial": str(best_number)})
        self._client.set_terminated(self._parent_id, "FINISHED" if finished else "KILLED")

    def _take_up_parent(self) -> str | None:
        """Return the parent run of an earlier start, RUNNING again, or None."""
        for run in self._search("tags.kind = 'sweep'"):
            run_id = str(run.info.run_id)
            log_tags(self._client, run_id, process_tags())
            self._client.update_run(run_id, status="RUNNING")
            return run_id
        return None

    def _search(self, query: str, token: str | None = None) -> Any:
        return self._client.search_runs([self._experiment_id], query, page_token=token)

    def _living(self, run_id: str) -> Any:
        """Return a run, or None where somebody has deleted it: a sweep does not stop for that."""
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run if run.info.lifecycle_stage == "active" else None
