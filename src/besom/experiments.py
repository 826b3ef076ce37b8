"""MLflow's experiments and runs: how they are found and made, and what it takes as params, tags and metrics.

Every call names its run: MLflow's global stack of active runs is never used. MLflow itself is imported on first use
(2 s). Knows nothing of sweeps, and nothing of where runs go: it is told an address.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from besom.configs.config import tracked_leaves
from besom.contained import refuse_outside
from besom.databases import is_there, readable, refuse_foreign, tables_in
from besom.disk import explain
from besom.errors import ConfigError, NotFound, StoreDamaged, one_line
from besom.lock import process_identity
from besom.paths import Store, checked_experiment
from besom.uris import HTTP
from besom.withheld import without_password

ENVIRONMENT = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # a bar for one small file hides what is worth reading
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # of 7: a server that is down costs 5 s a call, not 4 minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",  # of 120: three attempts into one that never answers take 50 s, not 6 minutes
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "PGCONNECT_TIMEOUT": "10",  # libpq's, a server that accepts and says nothing; else it waits for ever
    "MLFLOW_TRUNCATE_LONG_VALUES": "false",  # MLflow cuts in silence; `clipped` leaves a mark
}
PARAM_LENGTH = 6000
TAG_LENGTH = 8000
PARAMS_PER_CALL = 100
"""MLflow's own limits: characters of a param's and a tag's value, params in one ``log_batch``."""


def fix_environment(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what MLflow reads when it is imported, where the user has not; call before it is."""
    for name, value in ENVIRONMENT.items():
        environment.setdefault(name, value)
    # of a database that fails it logs a traceback, and then raises: once is enough
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


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


def checked_file(uri: str) -> Path | None:
    """Return the SQLite file that is behind a URI; None where there is none, or none yet. Does not import MLflow.

    Raises:
        StoreDamaged: it is no database, empty, or another program's.
        StoreBusy: another program keeps it locked.
    """
    file = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or not is_there(file):
        return None
    tables = tables_in(readable(file))
    if not tables:
        raise StoreDamaged(f"{file} is empty; expected MLflow's database: put it back from a copy, or move it away")
    refuse_foreign(file, tables, "MLflow", {"experiments", "runs"})
    return file


def import_mlflow(uri: str) -> None:
    """Import what a client of ``uri`` needs: on a busy machine that takes longer than an answer of MLflow may."""
    fix_environment()
    import mlflow

    if not uri.startswith((*HTTP, "databricks")):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def mlflow_client(uri: str) -> Any:
    """Return an ``MlflowClient``, after a look at the database behind it: MLflow tries a damaged one for minutes.

    Where the database's folder cannot be written it reads a copy, see `besom.databases.readable`.

    Raises:
        StoreDamaged: the SQLite file is no database, empty, another program's, or of another version of MLflow.
        StoreBusy: another program keeps it locked.
    """
    fix_environment()
    file = checked_file(uri)
    if file is not None:
        uri = f"sqlite:///{readable(file)}"
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        return MlflowClient(uri)
    except MlflowException as error:
        if file is None or explain(error) is not None:
            raise
        raise StoreDamaged(f"{file} cannot be used by this version of MLflow: {one_line(error)}") from error


def open_experiment(uri: str, name: str, store: Store) -> tuple[Any, str]:
    """Return an ``MlflowClient`` and the id of the experiment, made where it is missing.

    A server decides itself where artifacts go; for a database they go into the store.

    Raises:
        ConfigError: MLflow cannot be reached there, the experiment lies in its trash, or the store's database says that
            its artifacts go elsewhere.
    """
    fix_environment()
    from mlflow.exceptions import MlflowException

    try:
        client = mlflow_client(uri)
        experiment = client.get_experiment_by_name(name) or _new_experiment(client, uri, name, store)
    except MlflowException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"MLflow at {without_password(uri)} cannot be used: {without_password(reason)}") from error
    if experiment.lifecycle_stage != "active":
        raise ConfigError(
            f"MLflow experiment '{name}' is in the trash; restore it (mlflow experiments restore "
            f"-x {experiment.experiment_id}), remove it for good (besom delete {name}), or use another --name"
        )
    if uri == store.mlflow_uri:
        refuse_outside(store, str(experiment.artifact_location), everything=False)
    return client, str(experiment.experiment_id)


def _new_experiment(client: Any, uri: str, name: str, store: Store) -> Any:
    from mlflow.exceptions import MlflowException

    location = None if uri.startswith((*HTTP, "databricks")) else (store.artifacts / checked_experiment(name)).as_uri()
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
    experiment = mlflow_client(uri).get_experiment_by_name(name)
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
    try:
        for start in range(0, len(params), PARAMS_PER_CALL):
            client.log_batch(run_id, params=params[start : start + PARAMS_PER_CALL])
    except BaseException:
        with suppress(Exception):  # MLflow's: nobody gets to know the id, so nobody else could end the run
            client.set_terminated(run_id, "FAILED")
        raise
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
