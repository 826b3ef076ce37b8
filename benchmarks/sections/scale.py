"""How far a sweep goes, for docs/scale.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sections.parts import markdown_table, measured_on

HEADER = (
    *("trials from", "study in", "runs in", "trials told", "trials / s", "ask, ms", "slowest", "tell, ms"),
    *("open and end a run, ms", "parent, cores", "machine, cores", "parent, MB"),
)


def scale_section(report: Mapping[str, Any], page: Path) -> str:
    """Return the section: a table, one line for each case and mark."""
    body = [line(case, int(mark), found) for case in report["cases"].values() for mark, found in case["marks"].items()]
    sizes = [
        f"{_called(case)}: study {case['study_mb']:.0f} MB, runs {case['runs_mb']:.0f} MB after {case['told']:,} trials"
        for case in report["cases"].values()
        if case["case"]["what"] == "cnn"
    ]
    seen: dict[str, list[str]] = {}
    for name, case in report["cases"].items():
        seen.setdefault(measured_on(case["about"]), []).append(name)
    by = [where + (f": {', '.join(names)}" if len(seen) > 1 else "") for where, names in seen.items()]
    about = f"64 lanes that train nothing. `python benchmarks/scale.py`. {'. '.join(by)}."
    databases = [f"Databases: {'; '.join(sizes)}."] if sizes else []
    return "\n\n".join([about, markdown_table(HEADER, body), *databases])


def line(case: Mapping[str, Any], mark: int, found: Mapping[str, float]) -> list[str]:
    """Return what was seen around one trial of a case."""
    runs = [found[key] for key in ("open_run_ms", "end_run_ms") if key in found]
    return [
        case["label"],
        case["case"]["storage"],
        case["case"]["runs"],
        f"{mark:,}",
        f"{found['trials_per_second']:.1f}",
        f"{found['ask_ms']:.1f}",
        f"{found['slowest_ask_ms']:.0f}",
        f"{found['tell_ms']:.1f}",
        f"{sum(runs):.0f}" if case["case"]["what"] == "cnn" else "-",
        f"{found['parent_cpu']:.2f}",
        f"{found['machine_cpu']:.2f}",
        f"{found['mb']:.0f}",
    ]


def _called(case: Mapping[str, Any]) -> str:
    return f"{case['label']} on {case['case']['storage']} and {case['case']['runs']}"
