"""What a reproduction is held against: how a run ended, its hashes, its epochs and what its result depends on.

All of it is data that somebody may have changed; nothing here is imported or called.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from besom.compare.catalog import StoredRun
from besom.errors import ConfigError, NotFound, quoted

HASHES = ("weights_sha256", "history_sha256", "predictions_sha256")
STATES = ("COMPLETE", "PRUNED", "FAIL")

History = Mapping[str, Sequence[float]]
"""Metrics by name, one value an epoch."""


@dataclass(frozen=True)
class Original:
    """A run that ended by itself.

    Args:
        state: COMPLETE, PRUNED or FAIL.
        reason: why it failed or was pruned; None of a complete one.
        hashes: every stored copy of the result's hashes, the tags' first; empty unless COMPLETE.
        fingerprint: empty where the run failed before it had its data.
        params: of the config, as MLflow has them.
    """

    run_id: str
    state: str
    reason: str | None
    hashes: tuple[Mapping[str, str], ...]
    history: History
    fingerprint: Mapping[str, Any]
    params: Mapping[str, str]

    @classmethod
    def of(cls, run: StoredRun) -> Original:
        """Read what a run left.

        Raises:
            NotFound: it has not ended, its process died, nothing of it was trained, or an artifact is gone.
            ConfigError: an artifact is not what it must be.
        """
        stored, state = run.client.get_run(run.run_id), run.tags.get("state", "")
        if stored.info.status == "RUNNING":
            raise NotFound(f"run {run.run_id} is RUNNING, or its process has died; expected one that has ended")
        if state not in STATES or (state, stored.info.status) == ("FAIL", "KILLED"):  # it died with its process
            raise NotFound(f"run {run.run_id} ended before it had a result; expected one that is {', '.join(STATES)}")
        return cls(
            run_id=run.run_id,
            state=state,
            reason=run.tags.get("reason"),
            hashes=_hashes(run) if state == "COMPLETE" else (),
            history=run.history(),
            fingerprint=fingerprint_of(run),
            params=dict(stored.data.params),
        )

    @property
    def n_epochs(self) -> int:
        """How many epochs were trained, those that went wrong included."""
        return max(map(len, self.history.values()), default=0)


def _hashes(run: StoredRun) -> tuple[Mapping[str, str], ...]:
    if any(name not in run.tags for name in HASHES):
        raise NotFound(f"run {run.run_id} ended before it had a result; expected one that is COMPLETE")
    return (run.tags, *([run.study_hashes] if run.study_hashes else []))


def fingerprint_of(run: StoredRun) -> Mapping[str, Any]:
    """Return what a run's result depends on.

    Raises:
        NotFound: it was never trained, or the artifact is gone.
        ConfigError: the artifact is no fingerprint.
    """
    if run.tags.get("state") == "FAIL" and "fingerprint.data" not in run.tags:  # its data never came
        return {}
    if "fingerprint.data" not in run.tags and "reason" in run.tags:
        raise NotFound(f"run {run.run_id} was never trained: {run.tags['reason']}")
    try:
        found = json.loads(run.artifact("fingerprint.json"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"fingerprint.json of run {run.run_id} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"fingerprint.json of run {run.run_id} is a {type(found).__name__}; expected a mapping")
    return checked_fingerprint(found, f"fingerprint.json of run {run.run_id}")


def checked_fingerprint(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a fingerprint whose packages and sources are mappings, where it has them.

    Args:
        name: what to call it in a message.

    Raises:
        ConfigError: they are not.
    """
    for part in ("packages", "sources"):
        if not isinstance(found.get(part) or {}, Mapping):
            raise ConfigError(f"{part} in {name} is {quoted(found[part])}; expected a mapping of names to texts")
    return found
