"""``optimization_results.yaml`` in the sweep's folder: the best trial so far, under the official plugin's keys.

Beside ``name best_params best_value`` (``solutions`` with several objectives) it says which trial that is,
where its job's folder is and, where runs are tracked, which run. Written anew after every trial.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from optuna.trial import FrozenTrial

from besom.paths import write_atomically
from besom.search.space import Space
from besom.sweep.run_ids import NONE, run_id_of

FILE_NAME = "optimization_results.yaml"


def results(
    front: Sequence[FrozenTrial],
    n_objectives: int,
    space: Space,
    home: str = os.curdir,
    run_ids: Mapping[str, str] = NONE,
) -> dict[str, Any]:
    """Return the content of the file.

    Args:
        front: the best trial, or with several objectives those that no other dominates; may be empty.
        home: where the folders of jobs are counted from, as seen from the file.
        run_ids: which runs provisional ids became, see `besom.sweep.run_ids`.
    """
    if n_objectives > 1:
        return {"name": "optuna", "solutions": [_solution(trial, space, home, run_ids) for trial in front]}
    if not front:
        return {"name": "optuna", "best_params": {}, "best_value": None}
    best = _solution(front[0], space, home, run_ids)
    return {
        "name": "optuna",
        "best_params": best.pop("params"),
        "best_value": best.pop("values")[0],
        **{f"best_{key}": value for key, value in best.items()},
    }


def write(
    folder: Path,
    front: Sequence[FrozenTrial],
    n_objectives: int,
    space: Space,
    home: str = os.curdir,
    run_ids: Mapping[str, str] = NONE,
) -> None:
    """Write the file into the sweep's folder."""
    content = results(front, n_objectives, space, home, run_ids)
    write_atomically(folder / FILE_NAME, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _solution(trial: FrozenTrial, space: Space, home: str, run_ids: Mapping[str, str]) -> dict[str, Any]:
    run_id = run_id_of(trial, run_ids)
    return {
        "params": space.decode(trial.params),
        "values": list(trial.values),
        "trial": trial.number,
        "job": os.path.normpath(os.path.join(home, trial.user_attrs.get("job", str(trial.number)))),  # noqa: PTH118
        **({} if run_id is None else {"run_id": run_id}),
    }
