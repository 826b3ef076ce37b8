"""`besom ui` lets in this machine only, by its own names, and says so where it was told otherwise."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
from conftest import until

from besom.app.store import create_store
from besom.app.ui import is_loopback, warn_of_others
from besom.paths import Store

SEARCH = "/api/2.0/mlflow/experiments/search"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "my-machine", "8.8.8.8"])
def test_an_address_that_others_reach_is_warned_of_in_one_line(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    warn_of_others(host, {})
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"besom: --host {host}: anybody who reaches this address can read, change and delete ")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1"])
def test_this_machine_is_not(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    warn_of_others(host, {"MLFLOW_SERVER_ALLOWED_HOSTS": "my.proxy"})
    assert capsys.readouterr().err == ""
    assert is_loopback(host)


@pytest.mark.parametrize(
    "environ",
    [
        {"MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "true"},
        {"MLFLOW_SERVER_ALLOWED_HOSTS": "*"},
        {"MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "*"},
    ],
)
def test_checks_that_the_environment_switches_off_are_told(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    warn_of_others("127.0.0.1", environ)
    assert "switches MLflow's checks of Host and Origin off" in capsys.readouterr().err


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory, clean_environment: dict[str, str]) -> Iterator[int]:
    """The port of a real UI on an empty store."""
    folder = tmp_path_factory.mktemp("ui")
    create_store(Store(folder / "mlruns"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
    command = [sys.executable, "-m", "besom", "ui", "--port", str(number)]
    with subprocess.Popen(command, cwd=folder, env=clean_environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline().startswith("MLflow UI: http://127.0.0.1:")
            yield number
        finally:
            server.send_signal(signal.SIGINT)


def asked(port: int, host: str, origin: str | None = None) -> int:
    """Return the status of a request that searches experiments, by a name and from a page."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Host": host, "Content-Type": "application/json", **({"Origin": origin} if origin else {})}
    connection.request("POST", SEARCH, json.dumps({"max_results": 1}), headers)
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.service
def test_a_name_that_points_here_does_not_get_in(port: int) -> None:
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", "localhost:8080", "localhost"):
        assert asked(port, host) == 200, host
    foreign = (
        "evil.test",
        f"evil.test:{port}",
        "10.evil.test",
        f"192.168.evil.test:{port}",
        "localhost.evil.test",
        "0.0.0.0",
    )
    for host in foreign:
        assert asked(port, host) == 403, host


@pytest.mark.service
def test_another_page_changes_nothing(port: int) -> None:
    here = f"127.0.0.1:{port}"
    assert asked(port, here, f"http://127.0.0.1:{port}") == 200
    for origin in ("https://evil.test", "http://localhost.evil.test", "null"):
        assert asked(port, here, origin) == 403, origin


@pytest.mark.service
def test_it_listens_on_this_machine_only(port: int) -> None:
    listening = {one.laddr.ip for one in psutil.net_connections("tcp") if one.laddr and one.laddr.port == port}
    assert listening == {"127.0.0.1"}


@pytest.mark.service
def test_a_redirect_takes_no_token_to_another_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    heard: dict[int, list[str | None]] = {}

    class Redirecting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # http.server's name
            heard.setdefault(self.server.server_port, []).append(self.headers.get("Authorization"))  # type: ignore[attr-defined]
            is_first = self.server is servers[0]
            self.send_response(302 if is_first else 404)
            self.send_header("Location", f"http://localhost:{servers[1].server_port}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return None

    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Redirecting) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "c4n4ry-token")
    with pytest.raises(MlflowException):
        MlflowClient(f"http://127.0.0.1:{servers[0].server_port}").get_run("0" * 32)
    until(lambda: len(heard) == 2)
    for server in servers:
        server.shutdown()
        server.server_close()
    assert heard[servers[0].server_port][0] == "Bearer c4n4ry-token"
    assert set(heard[servers[1].server_port]) == {None}
