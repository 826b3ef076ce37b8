"""The MLflow run of a trial, by the id that it has now: the one place where it is looked up.

A trial that ran while MLflow was away has a provisional id, which Optuna does not let anybody change once it has ended.
Which run it became is kept with the study. Knows nothing of MLflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from optuna.study import Study

NONE: Mapping[str, str] = MappingProxyType({})
ATTRIBUTE = "run_ids"
"""User attribute of the study: {provisional id: MLflow's id}."""


def known_ids(study: Study) -> dict[str, str]:
    """Return the runs that trials with provisional ids became."""
    return ids_in(study.user_attrs)


def ids_in(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Return the same out of a study's user attributes."""
    found = attributes.get(ATTRIBUTE)
    return dict(found) if isinstance(found, dict) else {}


def run_id_of(trial: Any, known: Mapping[str, str]) -> str | None:
    """Return the id of a trial's run, None where it has none; a provisional one where MLflow was not told yet.

    Args:
        trial: a ``FrozenTrial``.
        known: as `known_ids` gives it.
    """
    run_id = trial.user_attrs.get("run_id")
    return None if run_id is None else known.get(str(run_id), str(run_id))


def note(study: Study, run_ids: Mapping[str, str]) -> None:
    """Store which runs provisional ids became; the caller holds the sweep's lock."""
    study.set_user_attr(ATTRIBUTE, {**known_ids(study), **run_ids})
