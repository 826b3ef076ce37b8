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
from collections.abc import Mapping
from ipaddress import ip_address
from typing import NoReturn

from besom.compare.shared_view import TAG, query
from besom.errors import BesomError, ConfigError, NotFound
from besom.paths import Store
from besom.tables import say
from besom.uris import LOOPBACK

READY_SECONDS = 60.0
EVERYWHERE = ("0.0.0.0", "::")  # never by itself
CHECKS = ("MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS")
"""Environment variables of MLflow's server: by which names it may be called, and from the pages of which others."""
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # a proxy is for other machines


def serve(store: Store, sweep: str | None, host: str, port: int) -> int:
    """Serve the store until Ctrl-C; print the address once it answers.

    Raises:
        NotFound: there is no store, or no such sweep in it.
        ConfigError: the port is taken.
        StoreDamaged: MLflow's database cannot be read, or not by this version of MLflow.
        StoreReadOnly: the store can only be read.
    """
    from besom.app.store import refuse_read_only
    from besom.tracking import checked_file

    if not store.exists or (sweep and not store.sweep(sweep).is_dir()):
        _refuse_unknown(store, sweep)
    refuse_read_only(store)  # the server's pages write: names, tags, notes
    checked_file(store.mlflow_uri)
    _refuse_taken_port(host, port)
    warn_of_others(host)
    server = _start(store, host, port)
    try:  # SIGTERM and SIGHUP, too, are an interrupt here: the server has a session of its own, and would live on
        address = f"http://{host}:{port}"
        _wait_until_ready(server, f"{address}/health", store)
        say(f"MLflow UI: {address}/{_runs_of(address, sweep) if sweep else ''}   (Ctrl-C ends it)")
        sys.stdout.flush()
        raise BesomError(f"the MLflow server ended by itself with exit code {server.wait()}")
    except KeyboardInterrupt:
        return 130
    finally:
        _stop(server)


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


def is_loopback(host: str) -> bool:
    """Tell whether an address can be reached from this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def warn_of_others(host: str, environ: Mapping[str, str] = os.environ) -> None:
    """Say so where not this machine alone can reach the server, or where its own checks are switched off."""
    if not is_loopback(host):
        sys.stderr.write(
            f"besom: --host {host}: anybody who reaches this address can read, change and delete everything in the "
            "store, MLflow asks for no password; without --host only this machine can\n"
        )
    if environ.get("MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE", "").lower() == "true" or any(
        environ.get(name, "").strip() == "*" for name in CHECKS
    ):
        sys.stderr.write(
            "besom: MLFLOW_SERVER_… of your environment switches MLflow's checks of Host and Origin off: any web page "
            "that you open can read and change the store; unset it\n"
        )


def _allowed_hosts(host: str) -> str | None:
    """Return by which names the server may be called, so that no web page whose name points here can call it.

    Those of this machine and the given address; for all addresses at once MLflow's choice.
    """
    if host in EVERYWHERE:
        return None
    names = ("localhost", "127.0.0.1", "[[]::1]", *([] if host in LOOPBACK else [host]))
    return ",".join(f"{name.replace('[[]::1]', '[::1]')},{name}:*" for name in names)


def _start(store: Store, host: str, port: int) -> subprocess.Popen[bytes]:
    # with job execution and more workers it is 15 processes and 3 GB instead of 2 and 0.5
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    if (names := _allowed_hosts(host)) and CHECKS[0] not in environment:
        environment[CHECKS[0]] = names
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", store.mlflow_uri, "--default-artifact-root", str(store.artifacts)),
    ]
    return subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _wait_until_ready(server: subprocess.Popen[bytes], url: str, store: Store) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            from besom.experiments import mlflow_client

            mlflow_client(store.mlflow_uri)  # says so where another version of MLflow has written the database
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
