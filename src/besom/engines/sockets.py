"""Where the sockets of `multiprocessing` lie: under TMPDIR, whose name may be too long for the path of one."""

from __future__ import annotations

import os
import tempfile
from multiprocessing import util
from pathlib import Path

from besom.errors import ConfigError

LONGEST = 103 if os.uname().sysname == "Darwin" else 107
"""Bytes that the system takes for a socket's path (``sun_path`` of unix(7), less the byte that ends it)."""
OWN = len("/pymp-12345678/listener-12345678")
"""What multiprocessing puts behind TMPDIR."""
SHORT = ("/tmp", "/var/tmp", "/dev/shm")


def place_for(behind: int) -> str | None:
    """Return TMPDIR, or a folder of the system where that is too long for a socket; None where there is none.

    Args:
        behind: bytes that come behind the folder in the socket's path.
    """
    given = tempfile.gettempdir()
    if len(os.fsencode(given)) + behind <= LONGEST:
        return given
    return next((place for place in SHORT if os.access(place, os.W_OK | os.X_OK) and Path(place).is_dir()), None)


def keep_sockets_short() -> None:
    """Have the sockets of this process in a folder of the system, where under TMPDIR their paths would be too long.

    Raises:
        ConfigError: there is none that can be written.
    """
    given, place = tempfile.gettempdir(), place_for(OWN)
    if place == given:
        return
    if place is None:
        raise ConfigError(
            f"TMPDIR={given} is too long: the system takes {LONGEST} bytes for the path of a socket of lanes, which "
            f"leaves {LONGEST - OWN} for the folder; set a shorter TMPDIR, or hydra.launcher.start_method=spawn"
        )
    before, tempfile.tempdir = tempfile.tempdir, place
    try:
        util.get_temp_dir()  # kept for this process, removed at its end
    finally:
        tempfile.tempdir = before
