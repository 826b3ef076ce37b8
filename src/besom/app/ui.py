"""`besom ui`: MLflow's own server on the store, on this machine only, as small as it goes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from types import FrameType

from besom.compare.catalog import no_store
from besom.compare.shared_view import TAG, query
from besom.errors import BesomError, ConfigError
from besom.paths import Store
from besom.tables import say

READY_SECONDS = 60.0


def serve(store: Store, sweep: str | None, host: str, port: int) -> int:
    """Serve the store until Ctrl-C; print the address once it answers.

    Raises:
        NotFound: there is no store, or no such sweep in it.
        ConfigError: the port is taken.
    """
    if not store.exists:
        raise no_store(store)
    path = _experiment_path(store, sweep) if sweep else ""
    _refuse_taken_port(host, port)
    signal.signal(signal.SIGTERM, _as_interrupt)
    server = _start(store, host, port)
    try:
        _wait_until_ready(server, f"http://{host}:{port}/health")
        say(f"MLflow UI: http://{host}:{port}/{path}   (Ctrl-C ends it)")
        sys.stdout.flush()
        return server.wait()
    except KeyboardInterrupt:
        return 130
    finally:
        _stop(server)


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    """End as by Ctrl-C, so that the server ends too."""
    raise KeyboardInterrupt


def _experiment_path(store: Store, sweep: str) -> str:
    from besom.tracking import find_experiment, uri_of

    experiment = find_experiment(uri_of(store, sweep), sweep)
    return f"#/experiments/{experiment.experiment_id}/runs{query(has_view=TAG in experiment.tags)}"


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
            with urllib.request.urlopen(url, timeout=1):
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
