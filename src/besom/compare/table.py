"""A table of a page: texts in columns, ready to be shown. Knows nothing of HTML."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from besom.tables import cell, title

LONG = ("reason", "value")
"""Columns whose texts are broken into lines."""


@dataclass(frozen=True)
class Row:
    """One row; ``is_best`` of the one that stands out."""

    cells: Sequence[str]
    is_best: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        caption: what it holds.
        columns: their titles.
        numeric: titles of the columns whose texts are set to the right.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Row]
    numeric: Collection[str] = ()

    @classmethod
    def of(
        cls, caption: str, found: Sequence[Mapping[str, Any]], columns: Sequence[str], best: int | None = None
    ) -> Table:
        """Return a table of flat rows, as `besom.sweep.rows` gives them.

        Args:
            columns: keys of the rows.
            best: number of the trial that stands out.
        """
        numeric = [
            title(column) for column in columns if all(isinstance(row.get(column), int | float | None) for row in found)
        ]
        rows = [
            Row([_text(column, row.get(column)) for column in columns], best is not None and row.get("number") == best)
            for row in found
        ]
        return cls(caption, [title(column) for column in columns], rows, numeric)

    def kind(self, place: int) -> str:
        """Return what a column holds: ``number``, ``reason`` (long) or ``text``."""
        column = self.columns[place]
        return "number" if column in self.numeric else "reason" if column in LONG else "text"


def _text(column: str, value: Any) -> str:
    """Return a value as a table shows it; of what a clock gave the digits that mean something."""
    if isinstance(value, float) and column.endswith(("_seconds", "_ms")):
        return f"{value:,.{1 if column.endswith('_seconds') else 2}f}"
    return cell(value)
