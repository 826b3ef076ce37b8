"""Rows on a screen or in a pipe: an aligned table, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def say(text: str) -> None:
    """Print one line, whatever it contains."""
    sys.stdout.write(f"{text}\n")


def print_json(value: Any) -> None:
    """Print a value as JSON; nan and inf, which JSON lacks, are refused."""
    say(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], form: str) -> None:
    """Print rows as ``table`` or ``csv``; JSON has its own envelope at each command."""
    if form == "csv":
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        sys.stdout.write(buffer.getvalue())
    else:
        print_table(rows, columns)


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print an aligned table; a pipe gets every column whole, however wide."""
    console = Console(highlight=False) if sys.stdout.isatty() else Console(width=10_000, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = all(isinstance(row.get(column), int | float | None) for row in rows)
        table.add_column(title(column), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(row.get(column))) for column in columns))
    with console.capture() as capture:
        console.print(table)
    say("\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n")))


def title(column: str) -> str:
    """Return what a table calls a column: a param of the model or the training without its group."""
    return column.removeprefix("model.").removeprefix("train.")


def cell(value: Any) -> str:
    """Return a value as a person reads it: thousands apart, four digits of a fraction."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 0.001 and value else f"{value:.4f}".rstrip("0").rstrip(".") or "0"
    return str(value)
