"""How many cores this process may use: those it is bound to, and no more than its container is given.

Python itself knows the first only; a container with 2 of 64 cores would start 64 lanes.
"""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Return the number of cores that this process may use, at least 1.

    Args:
        cgroup: where the kernel shows the limits of this process' container; version 1 or 2.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(bound, int(_quota(cgroup) or bound)))


def _quota(cgroup: Path) -> float | None:
    """Return the cores that a container is given, None where there is no limit; 1.5 is possible."""
    try:
        if (both := cgroup / "cpu.max").is_file():
            quota, period = both.read_text(encoding="ascii").split()
        else:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # "max", no such file, no cgroups at all
        return None
