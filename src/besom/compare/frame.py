"""A sweep's trials as a pandas DataFrame, one row a trial, each column of one kind.

Knows nothing of how trials are chosen and shown: see `besom.compare.selection`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from optuna.study import Study
from optuna.trial import FrozenTrial

from besom.sweep.rows import FIXED_COLUMNS, OBJECTIVE, leaderboard, parted_objectives, rows
from besom.sweep.run_ids import known_ids
from besom.sweep.tally import directions_of
from besom.tables import inert

KINDS = {
    "number": "int64",
    "state": "str",
    OBJECTIVE: "float64",
    "n_params": "Int64",
    "n_macs": "Int64",
    "fit_seconds": "float64",
    "run_id": "str",
    "weights_sha256": "str",
}
"""The fixed columns' kinds as long as no trial has a value."""


def frame(study: Study, *, lost_too: bool = False) -> pd.DataFrame:
    """Return the trials of a study in order of number, the columns those of ``besom runs``.

    First ``number state objective n_params n_macs fit_seconds run_id weights_sha256``, then the params by their
    dotted names. Several objectives are columns of their own, ``objective_0``, ``objective_1``, …. Integers stay
    integers, ``Int64`` where some trial has none; text is ``str``; lists, and what is now a number and now a word,
    are ``object``.

    Args:
        study: also one that is being run.
        lost_too: with the attempts that died with their lane or parent.
    """
    return framed(rows(study.get_trials(deepcopy=False), lost_too=lost_too), len(study.directions))


def framed(found: Sequence[Mapping[str, Any]], n_objectives: int) -> pd.DataFrame:
    """Return rows as `besom.sweep.rows` makes them as a DataFrame, see `frame`."""
    parted = [parted_objectives(one, n_objectives) for one in found]
    fixed = parted_objectives(dict.fromkeys(FIXED_COLUMNS), n_objectives)
    names = dict.fromkeys([*fixed, *(name for one in parted for name in one)])
    return pd.DataFrame({name: _column(name, [one.get(name) for one in parted]) for name in names})


def board_csv(study: Study, trials: Sequence[FrozenTrial]) -> str:
    """Return trials of a study as CSV, best first; integers stay integers where some trial has none."""
    board = leaderboard(rows(trials, known_ids(study)), directions_of(study))
    frame = framed(board, len(study.directions))
    texts = frame.select_dtypes(include=["object", "str"]).columns
    return frame.assign(**{name: frame[name].map(inert, na_action="ignore") for name in texts}).to_csv(
        index=False, lineterminator="\n"
    )


def _column(name: str, values: list[Any]) -> pd.Series[Any]:
    known = [value for value in values if value is not None]
    kind = _kind(known, some_lack=len(known) < len(values)) if known else KINDS.get(name, "float64")
    return pd.Series(values, dtype=kind)


def _kind(known: Sequence[Any], *, some_lack: bool) -> str:
    """Return the narrowest of pandas' dtypes that holds every value as it is."""
    types = {type(value) for value in known}
    if types == {bool}:
        return "boolean" if some_lack else "bool"
    if types == {int}:
        fits = all(abs(value) < 2**63 for value in known)
        return ("Int64" if some_lack else "int64") if fits else "object"
    if types <= {int, float}:
        return "float64"
    return "str" if types == {str} else "object"
