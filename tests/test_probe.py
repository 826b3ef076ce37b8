"""Whether MLflow's server answers: asked as MLflow itself would ask, and whatever is there, told in a line."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from besom.spool.probe import why_away

VARIABLES = (
    *("MLFLOW_TRACKING_INSECURE_TLS", "MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_CLIENT_CERT_PATH"),
    *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)


class Handler(BaseHTTPRequestHandler):
    """Is well, unless the path says otherwise; remembers who asked."""

    seen: list[str | None]

    def do_GET(self) -> None:
        type(self).seen.append(self.headers.get("Authorization"))
        place = self.path.removesuffix("/health").removeprefix("/")
        self.send_response(int(place or 200))
        self.send_header("Location", "http://127.0.0.1:9/login")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    Handler.seen = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True).start()
        yield made
        made.shutdown()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a key and the certificate that this machine signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    file.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        *((status, None) for status in (200, 302, 401, 403, 404)),
        *((status, f"it answers with HTTP {status}") for status in (408, 429, 500, 503)),
    ],
)
def test_an_answer_is_one_unless_it_says_that_the_server_cannot(
    status: int, reason: str | None, server: ThreadingHTTPServer
) -> None:
    assert why_away(f"http://127.0.0.1:{server.server_port}/{status}") == reason


def test_nobodys_password_is_sent_with_the_question(
    server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert why_away(f"http://me:secret@127.0.0.1:{server.server_port}") is None
    assert Handler.seen == [None]


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        (None, "", "CERTIFICATE_VERIFY_FAILED"),
        ("MLFLOW_TRACKING_INSECURE_TLS", "false", "CERTIFICATE_VERIFY_FAILED"),
        ("MLFLOW_TRACKING_INSECURE_TLS", "True", None),
        ("MLFLOW_TRACKING_SERVER_CERT_PATH", "{certificate}", None),
        ("REQUESTS_CA_BUNDLE", "{certificate}", None),
        ("MLFLOW_TRACKING_SERVER_CERT_PATH", "/nowhere/ca.pem", "/nowhere/ca.pem"),
    ],
)
def test_a_server_is_trusted_as_mlflow_trusts_it(
    variable: str | None,
    value: str,
    reason: str | None,
    server: ThreadingHTTPServer,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.socket = tls(certificate).wrap_socket(server.socket, server_side=True)
    if variable is not None:
        monkeypatch.setenv(variable, value.format(certificate=certificate))
    said = why_away(f"https://127.0.0.1:{server.server_port}")
    assert said is None if reason is None else reason in str(said)


def test_a_server_that_wants_to_know_who_asks_is_shown_mlflows_certificate(
    server: ThreadingHTTPServer, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = tls(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert why_away(f"https://127.0.0.1:{server.server_port}") is not None
    monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", str(certificate))
    assert why_away(f"https://127.0.0.1:{server.server_port}") is None


def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_what_does_not_speak_http_is_told_in_a_line() -> None:
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-OpenSSH_9\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        said = why_away(f"http://127.0.0.1:{listening.getsockname()[1]}")
        thread.join()
    assert said == "it does not speak HTTP: SSH-2.0-OpenSSH_9"
