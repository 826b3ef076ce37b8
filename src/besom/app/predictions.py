"""`besom predict`: the seed's table of the first five predictions, as the trial stored it."""

from __future__ import annotations

import csv
import io
from typing import Any

from besom.compare.catalog import StoredRun
from besom.errors import StoreDamaged


def prediction_rows(run: StoredRun) -> list[dict[str, Any]]:
    """Return one row an image: probabilities of each class (2 digits) and the one-hot truth, numbers as numbers.

    Raises:
        NotFound: the trial ended before it wrote the table.
        StoreDamaged: it is not whole.
    """
    rows = list(csv.DictReader(io.StringIO(run.artifact("predictions.csv")), restkey="more"))
    if not rows or any("more" in row or None in row.values() for row in rows):
        raise StoreDamaged(
            f"predictions.csv of run {run.run_id} is empty or cut off; 'besom reproduce' trains it again"
        )
    return [{key: _number(value) for key, value in row.items()} for row in rows]


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
