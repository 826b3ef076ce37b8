"""What a task's return means: the one place where a value, an exception or a strange object becomes a result.

A task returns its objective, a list of them, or a mapping of ``objective`` and facts to tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from besom.errors import TrialPruned, discreet
from besom.reporting import TrialHandle
from besom.results import TrialResult

OBJECTIVE = "objective"


def judge(value: Any, handle: TrialHandle, n_objectives: int = 1) -> TrialResult:
    """Judge what a task returned: as many finite numbers as there are objectives are COMPLETE, all else FAILs.

    Args:
        value: a number; a list of numbers with several objectives; or ``{"objective": either, "n_params": …}``,
            whose other entries are told as facts.
    """
    try:
        if isinstance(value, Mapping):
            handle.tell(**{str(key): item for key, item in value.items() if key != OBJECTIVE})
            value = value.get(OBJECTIVE)
        values = _numbers(value, n_objectives)
    except ValueError as error:
        return TrialResult(handle.number, "FAIL", reason=str(error), facts=handle.facts)
    return TrialResult(handle.number, "COMPLETE", values, facts=handle.facts)


def failed(error: BaseException, handle: TrialHandle) -> TrialResult:
    """Judge what a task raised: PRUNED where the sweep asked for it, else FAIL with its reason."""
    if is_pruned(error):
        return TrialResult(handle.number, "PRUNED", reason=str(error), facts=handle.facts)
    return TrialResult(handle.number, "FAIL", reason=reason_of(error), facts=handle.facts)


def is_pruned(error: BaseException) -> bool:
    """Tell whether an exception says that the trial was pruned: besom's, or Optuna's."""
    return any(kind.__name__ == TrialPruned.__name__ for kind in type(error).__mro__)


def reason_of(error: BaseException) -> str:
    """Return an exception on one line, without secrets."""
    text = discreet(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _numbers(value: Any, n_objectives: int) -> list[float]:
    expected = "a finite number" if n_objectives == 1 else f"a list of {n_objectives} finite numbers"
    items = [value] if n_objectives == 1 else _items(value)
    if len(items) != n_objectives:
        raise ValueError(f"the task returned {_short(value)}; expected {expected}")
    return [_number(item, value, expected) for item in items]


def _items(value: Any) -> list[Any]:
    """Return the items of a list, tuple or array; none of anything else."""
    return list(value) if hasattr(value, "__len__") and not isinstance(value, str | bytes | Mapping) else []


def _number(item: Any, value: Any, expected: str) -> float:
    try:
        number = float(cast(Any, item))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"the task returned {_short(value)}; expected {expected}") from error
    if not math.isfinite(number):
        raise ValueError(f"the objective is {number}; expected {expected}")
    return number


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 200 else f"{text[:200]}…"
