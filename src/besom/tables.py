"""Rows on a screen or in a pipe: an aligned table, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that move a terminal's cursor, colour it, or turn the direction of what follows."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the start of something to be worked out, or run."""


def visible(text: str) -> str:
    """Return a text, of a store that may be anybody's, in which what a terminal would obey is written out."""
    return UNSEEN.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def inert(value: Any) -> Any:
    """Return a value for a CSV file: text that a spreadsheet would run gets an apostrophe before it, numbers none."""
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def say(text: str) -> None:
    """Print one line, whatever it contains."""
    sys.stdout.write(f"{visible(text)}\n")


def print_json(value: Any) -> None:
    """Print a value as JSON; nan and inf, which JSON lacks, are refused."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], form: str) -> None:
    """Print rows as ``table`` or ``csv``; JSON has its own envelope at each command."""
    if form == "csv":
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: inert(value) for key, value in row.items()} for row in rows)
        sys.stdout.write(visible(buffer.getvalue()))
    else:
        print_table(rows, columns)


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print an aligned table; a pipe gets every column whole, however wide."""
    console = Console(highlight=False) if sys.stdout.isatty() else Console(width=10_000, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = all(isinstance(row.get(column), int | float | None) for row in rows)
        table.add_column(Text(visible(title(column))), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell(row.get(column)))) for column in columns))
    with console.capture() as capture:
        console.print(table)
    sys.stdout.write("\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n")) + "\n")


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
