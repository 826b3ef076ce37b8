"""The Ray cluster that lanes run on: one that is there already, or one of this machine's own that ends with its parent.

Knows what a lane needs of it, and nothing of how lanes are served.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from besom.cores import usable_cores
from besom.engines.sockets import place_for
from besom.errors import ConfigError, one_line
from besom.temporary import temporary_folder

SOCKET = "/besom-12345678.tmp/session_2026-11-29_00-53-22_790780_12345678/sockets/plasma_store"
"""What comes behind the place of a cluster's folder, as long as it gets."""
OBJECTS = 256 * 2**20
"""Bytes that a cluster of our own has for objects beside the offered arrays: jobs and their returns."""
WITH_TOKEN = "; where it is there and wants a token: RAY_AUTH_MODE=token, and the token in ~/.ray/auth_token"
"""Ray sends its token to an address that somebody gives only if it is told so."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # what besom starts reports to nobody
    "RAY_process_group_cleanup_enabled": "1",  # what a lane's job has started ends with it
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a lane without a GPU keeps what besom says about GPUs
}
"""Variables of a cluster of our own, where nobody has set them."""


@dataclass(frozen=True)
class Share:
    """What one lane needs of a cluster.

    Args:
        cpus: logical ones, as Ray counts them.
        gpus: 0.5 puts two lanes on one.
        memory: bytes, 0 for any; Ray reserves it and does not limit it.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 0

    def fits(self, resources: Mapping[str, float]) -> int:
        """Return how many lanes there is room for on a node with such resources."""
        needs = {"CPU": self.cpus, "GPU": self.gpus, "memory": float(self.memory)}
        return min(int(resources.get(name, 0.0) / need + 1e-9) for name, need in needs.items() if need)

    def __str__(self) -> str:
        parts = [f"{self.cpus:g} CPUs", f"{self.gpus:g} GPUs" if self.gpus else ""]
        return ", ".join(part for part in [*parts, f"{self.memory} bytes" if self.memory else ""] if part)


def check_ray(address: str | None) -> None:
    """Raise `ConfigError` where there is no Ray, or an address that lanes cannot use."""
    if find_spec("ray") is None:
        raise ConfigError("hydra/launcher=besom_ray needs Ray, which is not installed; pip install 'besom[ray]'")
    name, address = _given(address)
    if address is not None and address.startswith("ray://"):
        raise ConfigError(
            f"{name}={address!r} is Ray Client's, and a sweep's parent has to be on a node of the "
            "cluster; expected HOST:PORT of its GCS, or 'auto', there"
        )


def _given(address: str | None) -> tuple[str, str | None]:
    """Return by which name an address is given, and the address; None where there is none."""
    return ("hydra.launcher.address", address) if address else ("RAY_ADDRESS", os.environ.get("RAY_ADDRESS") or None)


@contextmanager
def cluster(address: str | None, n_lanes: int | None, share: Share, to_carry: int) -> Iterator[Any]:
    """Join a cluster, or start one on this machine; leave it, or end it, after the ``with``.

    Args:
        address: ``HOST:PORT``, ``auto``, or None: that of ``RAY_ADDRESS``, and without it a cluster of our own.
        n_lanes: how many are wanted, None for as many as there is room for.
        to_carry: bytes of what is offered to lanes.

    Raises:
        ConfigError: there is no such cluster, or none can be started.
    """
    check_ray(address)
    name, given = _given(address)
    is_own = given is None
    if is_own:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():  # somebody else's of this process
        yield ray
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    with _place() as folder:
        own = {
            "num_cpus": max(usable_cores(), math.ceil((n_lanes or 0) * share.cpus)),
            "include_dashboard": False,
            "object_store_memory": OBJECTS + 2 * to_carry,
            "_temp_dir": str(folder),
        }
        try:
            with _handlers_kept():
                ray.init(**(own if is_own else {"address": address}), log_to_driver=False, configure_logging=False)
        except KeyboardInterrupt:
            ray.shutdown()
            raise
        except Exception as error:  # of many kinds: ConnectionError, RuntimeError, ValueError, Ray's own
            ray.shutdown()
            what, how = ("can be started here", "") if is_own else (f"answers at {name}={given}", WITH_TOKEN)
            raise ConfigError(f"no Ray cluster {what}: {one_line(error)[:500]}{how}") from error
        try:
            yield ray
        finally:
            ray.shutdown()


@contextmanager
def _place() -> Iterator[Path]:
    """Make a folder for a cluster's sockets and logs, which go with it; under TMPDIR where its name is short enough."""
    with temporary_folder(place_for(len(SOCKET))) as folder:
        yield folder


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Put back the handler of SIGTERM, which Ray replaces by one that exits at once."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def room(ray: Any, share: Share) -> int:
    """Return how many lanes fit on the nodes that live, other programs' share included."""
    return sum(share.fits(node["Resources"]) for node in ray.nodes() if node["Alive"])
