"""besom's command beside this Python, and what a sweep that it ran has left in a store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BESOM = str(Path(sys.executable).with_name("besom"))


def trials_with_history(sweep: str, store: Path) -> Iterator[tuple[dict[str, Any], Any, list[Any]]]:
    """Yield each trial's row of ``besom runs``, MLflow's info of its run and the metrics ``val_accuracy``, by epoch."""
    command = [BESOM, "runs", sweep, "--store", str(store), "--format", "json"]
    rows = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["trials"]
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient  # noqa: PLC0415  # takes 2 s, and nobody's clock is running

    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    for row in rows:
        history = client.get_metric_history(row["run_id"], "val_accuracy")
        yield row, client.get_run(row["run_id"]).info, sorted(history, key=lambda metric: metric.step)
