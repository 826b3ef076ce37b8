"""How much memory lanes take, and whether it stays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memory import text_of_one

from sections.parts import OURS, chart, measured_on


def memory_section(report: Mapping[str, Any], page: Path) -> str:
    """Return the section and draw the memory of one lane over its trials."""
    picture = page.with_name(f"{page.stem}-memory.png")
    with chart(picture, 2.4) as axes:
        axes.plot(range(1, len(report["one_lane"]) + 1), report["one_lane"], color=OURS)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("trials that the lane has run")
        axes.set_ylabel("resident MB")
    lines = [f"- {text_of_one(report['one_lane'])}."]
    if "two_lanes" in report:
        lines.append(
            f"- two lanes that train the peers' networks on 50,000 images: {report['two_lanes']:,.0f} MB together at "
            "the most, what they share counted once."
        )
    return "\n\n".join(
        [f"{measured_on(report)}. `python benchmarks/memory.py`", "\n".join(lines),
         f"![Resident memory of one lane over its trials]({picture.name})"]
    )  # fmt: skip
