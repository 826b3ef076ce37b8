"""What a run is expected to give again: its numbers to the bit, its hashes, and where it comes from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from besom.compare.catalog import StoredRun
from besom.errors import BesomError, NotFound
from besom.fingerprint import history_sha256
from besom.reproduce.original import HASHES, Original


def expected_of(run: StoredRun, original: Original) -> dict[str, Any]:
    """Return the content of ``expected.json``: plain values; floats come back exactly from JSON.

    ``history`` has one list of values by metric, one value an epoch; ``data`` and ``split`` are the fingerprint's.

    Raises:
        NotFound: the run is not COMPLETE.
        BesomError: copies of its hashes, or its history, say different things.
    """
    if original.state != "COMPLETE":
        raise NotFound(f"run {run.run_id} is {original.state}; expected one that is COMPLETE, for it to have a model")
    metrics = run.client.get_run(run.run_id).data.metrics
    hashes = {name: _agreed(name, original) for name in HASHES}
    history = {name: list(values) for name, values in original.history.items()}
    _refuse_another_history(run.run_id, history, hashes["history_sha256"])
    return {
        "run_id": run.run_id,
        "sweep": run.tags.get("sweep"),
        "trial": int(run.tags["trial"]) if run.tags.get("trial", "").isdecimal() else None,
        "objective": metrics.get("objective"),
        "best_epoch": _whole(metrics.get("best_epoch")),
        "n_params": _whole(metrics.get("n_params")),
        **hashes,
        "data": original.fingerprint.get("data"),
        "split": original.fingerprint.get("split"),
        "commit": original.fingerprint.get("commit"),
        "besom": (original.fingerprint.get("packages") or {}).get("besom"),
        "history": history,
    }


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _agreed(name: str, original: Original) -> str:
    """Return the one value that all stored copies of a hash have."""
    found = {str(copy[name]) for copy in original.hashes if name in copy}
    if len(found) != 1 or not re.fullmatch(r"[0-9a-f]{64}", min(found)):
        raise BesomError(
            f"{name} of run {original.run_id} is not the same in the run and in its study, or is no SHA-256: one of "
            f"them was changed since; 'besom reproduce {original.run_id}' shows what it really gives"
        )
    return min(found)


def _refuse_another_history(run_id: str, history: Mapping[str, list[float]], sha256: str) -> None:
    if history_sha256(history) != sha256:
        raise BesomError(
            f"the metrics of run {run_id} by epoch have not the hash that was stored with them ({sha256[:12]}…): "
            f"one or the other was changed since; 'besom reproduce {run_id}' trains it again"
        )
