"""How long one waits to see a sweep of many trials."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from summary import spread

from sections.parts import markdown_table, measured_on

WAITS = {
    "runs": "`besom runs`, s",
    "report": "`besom report`, s",
    "ui": "`besom ui` until it says where, s",
    "ui_megabytes": "memory of its processes, MB",
}


def looking_section(report: Mapping[str, Any], page: Path) -> str:
    """Return the section."""
    body = [[label, spread(report[name], 2)] for name, label in WAITS.items()]
    body.append(["the report's page, MB", f"{report['report_bytes'] / 1e6:.1f}"])
    return "\n\n".join(
        [
            f"A sweep of {report['trials']} trials, {len(report['runs'])} runs, median (lowest-highest). "
            f"{measured_on(report)}. `python benchmarks/looking.py`",
            markdown_table(["to look at it", ""], body),
        ]
    )
