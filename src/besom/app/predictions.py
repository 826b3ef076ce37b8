"""`besom predict`: the seed's table of the first five predictions, as the trial stored it."""

from __future__ import annotations

import csv
import io
from typing import Any

from besom.compare.catalog import StoredRun


def prediction_rows(run: StoredRun) -> list[dict[str, Any]]:
    """Return one row an image: probabilities of each class (2 digits) and the one-hot truth, numbers as numbers."""
    reader = csv.DictReader(io.StringIO(run.artifact("predictions.csv")))
    return [{key: _number(value) for key, value in row.items()} for row in reader]


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
