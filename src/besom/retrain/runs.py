"""The MLflow runs of configurations that are trained again: beside the original's, and told apart by their ``kind``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from besom.compare.catalog import StoredRun
from besom.results import TrialResult
from besom.tracking import STATUS, create_run, log_tags


def start_run(original: StoredRun, name: str, content: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    """Create a RUNNING run in the original's experiment, below the same parent run, and return its id.

    Args:
        tags: at least its ``kind``.
    """
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
