"""What Ray's lanes cost beside local ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engines import rows

from sections.parts import markdown_table, measured_on


def engines_section(report: Mapping[str, Any], page: Path) -> str:
    """Return the section."""
    rounds = len({run["round"] for run in report["runs"]})
    header, *body = rows(report)
    return "\n\n".join(
        [
            f"2 lanes of this machine, and 2 on a Ray cluster of its own; {rounds} rounds, median (lowest-highest). "
            f"{measured_on(report)}. `python benchmarks/engines.py`",
            markdown_table(header, body),
        ]
    )
