"""A proxy before a real MLflow server that fails as networks and servers do; it counts what each fault has hit."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from servers import free_port

HANG_SECONDS = 200.0
HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


class Proxy:
    """Listens on a port of its own.

    Modes: ``pass``, ``delay`` (each answer comes ``seconds`` late), ``hang`` (no answer), ``500``, ``cut`` (the server
    does what it is asked, half of its answer arrives), ``reset`` (the connection is torn), ``refuse`` (nobody listens).
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream.removeprefix("http://")
        self.mode = "pass"
        self.seconds = 2.0
        self.hits: Counter[str] = Counter()
        self.paths: Counter[str] = Counter()
        self.on_request: Callable[[str], None] = lambda path: None
        self._server: ThreadingHTTPServer | None = None
        self.port = free_port()
        self._listen()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def turn(self, mode: str) -> None:
        """Change the mode, for requests on open connections too."""
        self.mode = mode
        if mode == "refuse":
            threading.Thread(target=self._close, daemon=True).start()  # it may be called by a handler
        else:
            self._listen()

    def at(self, part: str, mode: str, count: int = 1) -> None:
        """Change the mode when a path with this part is asked for the so manieth time from now on."""
        left = [count]

        def look(path: str) -> None:
            if part in path:
                left[0] -= 1
                if left[0] == 0:
                    self.turn(mode)

        self.on_request = look

    def close(self) -> None:
        self.mode = "refuse"
        self._close()

    def _listen(self) -> None:
        if self._server is None:
            self._server = _Server(("127.0.0.1", self.port), _Handler)
            self._server.proxy = self  # type: ignore[attr-defined]
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, *args: Any) -> None:
        """The client has gone: its own timeouts are what is tested."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 300
    METHODS: ClassVar[tuple[str, ...]] = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        proxy: Proxy = self.server.proxy  # type: ignore[attr-defined]
        body = self._body()
        proxy.paths[self.path.partition("?")[0]] += 1
        proxy.on_request(self.path)
        mode = proxy.mode
        proxy.hits[mode] += 1
        if mode in ("refuse", "reset"):
            self._tear()
        elif mode == "hang":
            end = time.monotonic() + HANG_SECONDS
            while proxy.mode == "hang" and time.monotonic() < end:
                time.sleep(0.1)
            self._tear()
        elif mode == "500":
            self._answer(500, [], b"Internal Server Error")
        else:
            status, headers, content = self._ask(proxy.upstream, body)
            if mode == "delay":
                time.sleep(proxy.seconds)
            self._answer(status, headers, content, cut=mode == "cut")

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _ask(self, upstream: str, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(upstream, timeout=120)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, [one for one in answer.getheaders() if one[0].lower() not in HOP], content

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, *, cut: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self._tear()

    def _tear(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


for method in _Handler.METHODS:
    setattr(_Handler, f"do_{method}", _Handler._serve)
