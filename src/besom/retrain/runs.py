"""The MLflow runs of configurations that are trained again: beside the original's, and told apart by their ``kind``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from besom.compare.catalog import StoredRun
from besom.contained import refuse_outside
from besom.lock import is_dead
from besom.results import TrialResult
from besom.tracking import STATUS, create_run, is_given, log_tags


def start_run(original: StoredRun, name: str, content: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    """Create a RUNNING run in the original's experiment, below the same parent run, and return its id.

    Args:
        tags: at least its ``kind``.

    Raises:
        ConfigError: its artifacts would lie outside the store.
    """
    if original.uri.startswith("sqlite:") and not is_given(original.uri):
        experiment = original.client.get_experiment(original.experiment_id)
        refuse_outside(original.store, str(experiment.artifact_location), everything=False)
    parent = original.tags.get("mlflow.parentRunId")
    nested = {"mlflow.parentRunId": parent} if parent else {}
    own = {"state": "RUNNING", **nested, **tags}
    return create_run(original.client, original.experiment_id, name, content, own)


def end_run(client: Any, run_id: str, result: TrialResult) -> None:
    """End a run as its training ended."""
    log_tags(client, run_id, {"state": result.state, **({"reason": result.reason} if result.reason else {})})
    client.set_terminated(run_id, STATUS[result.state])


def abandon_run(client: Any, run_id: str) -> None:
    """End a run that nobody works on any more: Ctrl-C, or a death."""
    log_tags(client, run_id, {"state": "FAIL", "reason": "interrupted"})
    client.set_terminated(run_id, "KILLED")


def abandon_runs(client: Any, run_ids: Iterable[str]) -> None:
    """End several runs; one that cannot be ended keeps nobody from ending the others."""
    for run_id in run_ids:
        with suppress(Exception):  # MLflow's, of any kind; whoever starts next closes it
            abandon_run(client, run_id)


def close_dead(client: Any, experiment_id: str, kind: str) -> None:
    """End the RUNNING runs of a kind whose process, on this host, lives no more: ``kill -9`` leaves them."""
    query = f"tags.kind = '{kind}' and attributes.status = 'RUNNING'"
    for run in client.search_runs([experiment_id], query):
        if is_dead(run.data.tags):
            abandon_run(client, run.info.run_id)
