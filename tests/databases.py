"""A real PostgreSQL server for tests: a cluster of its own on a free port, which can be stopped and started again."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from servers import free_port

PASSWORD = "s3cret/of:mine"
USER = "besom"


@dataclass(frozen=True)
class Postgres:
    """A server.

    Args:
        binaries: folder of ``initdb`` and ``pg_ctl``.
        folder: of its data and its log, readable by its user only.
        port: on 127.0.0.1.
    """

    binaries: Path
    folder: Path
    port: int

    def url(self, database: str) -> str:
        """Return a database's URL without a password."""
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/{database}"

    def run(self, *command: str) -> str:
        """Run one of the server's programs as its user, who cannot be root."""
        as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        done = subprocess.run(
            [*as_user, str(self.binaries / command[0]), *command[1:]],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "PGPASSWORD": PASSWORD, "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder}"
        self.run("pg_ctl", "-w", "-D", f"{self.folder}/data", "-l", f"{self.folder}/log", "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """End it: ``fast`` drops its connections, ``immediate`` is as a crash."""
        self.run("pg_ctl", "-w", "-D", f"{self.folder}/data", "-m", mode, "stop")

    def sql(self, statement: str, database: str = "postgres") -> str:
        where = ("-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", database)
        return self.run("psql", *where, "-Atc", statement)


def _binaries() -> Path | None:
    """Return where Debian, or whoever, has put PostgreSQL's programs."""
    on_path = shutil.which("initdb")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda one: int(one.parts[-3]))
    return Path(on_path).resolve().parent if on_path else found[-1].parent if found else None


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Start a server with a password; skip where PostgreSQL is not installed."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # its socket's path must be short
    server = Postgres(binaries, folder, free_port())
    try:
        if os.getuid() == 0:
            shutil.chown(folder, "postgres")
        password = folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        server.run("initdb", "-D", f"{folder}/data", "-U", USER, "-A", "scram-sha-256", f"--pwfile={password}")
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
