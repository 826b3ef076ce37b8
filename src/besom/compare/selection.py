"""Which trials of a sweep are shown, and in which order: filters, sorting.

A filter is ``COLUMN OPERATOR VALUE`` and nothing more. pandas' own ``query`` can call what it likes, and a filter may
come out of somebody else's script.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pandas.api.types import is_bool_dtype, is_float_dtype, is_numeric_dtype, is_object_dtype

from besom.compare.columns import column_named
from besom.errors import ConfigError
from besom.sweep.rows import OBJECTIVE

EQUAL = {"=": operator.eq, "==": operator.eq, "!=": operator.ne}
ORDER = {"<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}
OPERATORS = EQUAL | ORDER
FILTER = re.compile(r"\s*([^<>=!]+?)\s*(<=|>=|!=|==|=|<|>)\s*(.+?)\s*")
NONE = "null"
"""The value of a trial that has none."""
SAME = 1e-6
"""Fractions that differ by less, relatively, are equal: most metrics have the 7 digits of float32."""


@dataclass(frozen=True)
class Selection:
    """What is asked for.

    Args:
        filters: a trial is shown when all hold, such as ``n_params<=200000``, ``activation=swish``.
        sort: names of columns, the first one first; an objective has its best value first.
        descending: the other way round.
        limit: how many rows at most.
    """

    filters: Sequence[str] = ()
    sort: Sequence[str] = ("number",)
    descending: bool = False
    limit: int | None = None

    def of(self, table: pd.DataFrame, directions: Sequence[str]) -> pd.DataFrame:
        """Return the rows of `besom.compare.frame.frame` that are asked for; those without a value come last.

        Args:
            directions: ``maximize`` or ``minimize``, one for each objective.

        Raises:
            ConfigError: a column or a value is unknown.
        """
        for text in self.filters:
            table = table[holds(table, text)]
        names = [column_named(name, table.columns) for name in self.sort]
        upwards = [_is_upwards(name, directions) is not self.descending for name in names]
        found = table.sort_values(names, ascending=upwards, kind="stable", key=_sortable)
        return found if self.limit is None else found.head(self.limit)


def holds(table: pd.DataFrame, text: str) -> pd.Series[bool]:
    """Return for each row whether a filter holds; of a trial without a value only ``!=`` does, and ``=null``.

    Raises:
        ConfigError: it is no filter, or its value does not fit the column.
    """
    parts = FILTER.fullmatch(text)
    if parts is None:
        raise ConfigError(f"filter {text!r} is not understood; expected COLUMN=VALUE, or one of != < <= > >= for =")
    name, sign, value = parts.groups()
    column = table[column_named(name, table.columns)]
    missing = column.isna()
    if value == NONE and sign in EQUAL:
        return ~missing if sign == "!=" else missing
    return _compared(column, text, sign, value).where(~missing, sign == "!=").astype(bool)


def _compared(column: pd.Series[Any], text: str, sign: str, value: str) -> pd.Series[bool]:
    compare = OPERATORS[sign]
    if is_numeric_dtype(column) and not is_bool_dtype(column):
        number = _number(text, value)
        nearby = abs(number) * SAME if is_float_dtype(column) else 0.0
        distance = column.astype("float64") - number
        return _as_bools(compare(distance.where(distance.abs() > nearby, 0.0), 0.0))
    if sign in ORDER:
        raise ConfigError(f"filter {text!r} orders {column.name}, which holds no numbers; expected = or !=")
    return _as_bools(compare(column.astype(object).map(_word), _word(value)))


def _as_bools(found: Any) -> pd.Series[bool]:
    return pd.Series(found, dtype=bool)


def _number(text: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ConfigError(f"filter {text!r} compares numbers; expected one such as 200000 or 1e-3") from None


def _word(value: Any) -> str:
    """Return a value as one writes it, in small letters: ``true``, ``swish``, ``[3,3]``."""
    return str(value).replace(" ", "").casefold()


def _is_upwards(name: str, directions: Sequence[str]) -> bool:
    """Return whether a column's smallest value comes first."""
    of_objectives = {f"{OBJECTIVE}_{place}": direction for place, direction in enumerate(directions)}
    return {OBJECTIVE: directions[0], **of_objectives}.get(name) != "maximize"


def _sortable(column: pd.Series[Any]) -> pd.Series[Any]:
    return column.map(_word, na_action="ignore") if is_object_dtype(column) else column
