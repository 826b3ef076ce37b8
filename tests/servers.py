"""A real MLflow server for tests: a free port, when it answers, and one that ends with the test."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

from conftest import until

WITHOUT_JOBS = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(address: str) -> bool:
    try:
        with build_opener(ProxyHandler({})).open(f"{address}/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def mlflow_server(
    folder: Path, environment: Mapping[str, str], seconds: float = 120, backend: str | None = None
) -> Iterator[str]:
    """Give the address of ``mlflow server``, which keeps its database and artifacts in a folder.

    Args:
        seconds: how long it may take to answer.
        backend: the URL of another database.
    """
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    database = backend or f"sqlite:///{folder}/m.db"
    where = ["--artifacts-destination", f"{folder}/artifacts"]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [*command, *where],
            cwd=folder,
            env={**environment, **WITHOUT_JOBS, "MLFLOW_BACKEND_STORE_URI": database},
            stdout=log,
            stderr=log,
            start_new_session=True,
        ) as process,
    ):
        try:
            until(lambda: answers(address), seconds)
            yield address
        finally:
            os.killpg(process.pid, signal.SIGTERM)
