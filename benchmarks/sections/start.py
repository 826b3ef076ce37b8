"""How long one waits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from summary import spread

from sections.parts import markdown_table, measured_on


def start_section(report: Mapping[str, Any], page: Path) -> str:
    """Return the section."""
    body = [[name, spread(values, 2)] for name, values in report["seconds"].items()]
    runs = len(next(iter(report["seconds"].values())))
    return "\n\n".join(
        [
            f"Seconds from Enter, {runs} runs, median (lowest-highest). {measured_on(report)}. "
            "`python benchmarks/start.py`",
            markdown_table(["waiting for", "s"], body),
        ]
    )
