"""`besom ui`: MLflow's own server on the store, on this machine only, as small as it goes.

This process only waits for it, so it imports neither MLflow nor Optuna: what it must know it asks the server.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from types import FrameType
from typing import NoReturn

from besom.compare.shared_view import TAG, query
from besom.errors import BesomError, ConfigError, NotFound
from besom.paths import Store
from besom.tables import say

READY_SECONDS = 60.0
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # a proxy is for other machines


def serve(store: Store, sweep: str | None, host: str, port: int) -> int:
    """Serve the store until Ctrl-C; print the address once it answers.

    Raises:
        NotFound: there is no store, or no such sweep in it.
        ConfigError: the port is taken.
    """
    if not store.exists or (sweep and not store.sweep(sweep).is_dir()):
        _refuse_unknown(store, sweep)
    _refuse_taken_port(host, port)
    for end in (signal.SIGTERM, signal.SIGHUP):  # the server has a session of its own, and would outlive a terminal
        signal.signal(end, _as_interrupt)
    server = _start(store, host, port)
    try:
        address = f"http://{host}:{port}"
        _wait_until_ready(server, f"{address}/health")
        say(f"MLflow UI: {address}/{_runs_of(address, sweep) if sweep else ''}   (Ctrl-C ends it)")
        sys.stdout.flush()
        raise BesomError(f"the MLflow server ended by itself with exit code {server.wait()}")
    except KeyboardInterrupt:
        return 130
    finally:
        _stop(server)


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    """End as by Ctrl-C, so that the server ends too."""
    raise KeyboardInterrupt


def _refuse_unknown(store: Store, sweep: str | None) -> NoReturn:
    from besom.compare.catalog import no_store, refuse_unknown

    if store.exists and sweep:
        refuse_unknown(store, sweep)
        raise NotFound(f"sweep '{sweep}' has no folder in {store.root}; its runs can be found in 'besom ui'")
    raise no_store(store)


def _runs_of(address: str, sweep: str) -> str:
    """Return where in the UI a sweep's trials are, best first.

    Raises:
        NotFound: its runs are not in this store.
    """
    name = urllib.parse.urlencode({"experiment_name": sweep})
    try:
        with _open(f"{address}/api/2.0/mlflow/experiments/get-by-name?{name}", timeout=30) as answer:
            experiment = json.load(answer)["experiment"]
    except urllib.error.HTTPError as error:
        raise NotFound(f"sweep '{sweep}' has no runs in this store's MLflow; it tracks to another one") from error
    tags = {tag["key"] for tag in experiment.get("tags", [])}
    return f"#/experiments/{experiment['experiment_id']}/runs{query(has_view=TAG in tags)}"


def _refuse_taken_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise ConfigError(f"port {port} on {host} cannot be used ({error}); give another with --port") from error


def _start(store: Store, host: str, port: int) -> subprocess.Popen[bytes]:
    # with job execution and more workers it is 15 processes and 3 GB instead of 2 and 0.5
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", store.mlflow_uri, "--default-artifact-root", str(store.artifacts)),
    ]
    return subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _wait_until_ready(server: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise BesomError(f"the MLflow server ended at once with exit code {server.returncode}")
        try:
            with _open(url, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise BesomError(f"the MLflow server did not answer within {READY_SECONDS:.0f} s")


def _stop(server: subprocess.Popen[bytes]) -> None:
    """End the server and its workers, which share its session."""
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
