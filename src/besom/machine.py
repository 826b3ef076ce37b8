"""Which machine this process is on, told apart from others that share a disk or a cluster with it."""

from __future__ import annotations

import socket
from functools import cache
from pathlib import Path


@cache
def boot() -> str:
    """Return the id of this boot of the kernel; '' where it has none. Containers of one machine have the same."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def this_machine() -> str:
    """Return host name and boot: it differs for another machine, also of the same name, and for another container."""
    return f"{socket.gethostname()}/{boot()}"
