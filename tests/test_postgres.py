"""Sweeps whose study is in a real PostgreSQL server: restarted, killed, taken up elsewhere, never run twice."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from conftest import BesomCommand, Folder, begun, until
from databases import PASSWORD, Postgres, postgres
from servers import mlflow_server
from test_same_bits import GRID, weights

from besom.errors import SweepLocked
from besom.study_lock import StudyLock, study_lock

pytestmark = pytest.mark.service


@contextmanager
def cut_off(upstream: int) -> Iterator[tuple[int, Callable[[], None]]]:
    """Stand before a server; return the port, and what cuts clients off so that the server does not notice."""
    held: list[socket.socket] = []

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while content := source.recv(65536):
                target.sendall(content)

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    there = socket.create_connection(("127.0.0.1", upstream))
                    held.extend((client, there))
                    threading.Thread(target=pump, args=(client, there), daemon=True).start()
                    threading.Thread(target=pump, args=(there, client), daemon=True).start()

        def cut() -> None:
            for client in held[::2]:
                client.shutdown(socket.SHUT_RDWR)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1], cut
        for one in held:
            one.close()


SLOW = GRID.replace("epochs: 2", "epochs: 100").replace("n_trials: null", "n_trials: null\n    retries: 2")


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture
def database(server: Postgres, request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, without a password."""
    name = f"d{abs(hash(request.node.name))}"
    server.sql(f"create database {name}")
    return server.url(name)


@pytest.fixture
def folders(tmp_path: Path, besom_command: BesomCommand, database: str) -> Callable[[str], Folder]:
    """Return a maker of folders, as if on machines of their own, that know the server by their environment."""

    def command(*args: str, cwd: Path, env: dict[str, str] | None = None, timeout: float = 120) -> object:
        return besom_command(*args, cwd=cwd, env={"BESOM_STORAGE": whole(database), **(env or {})}, timeout=timeout)

    def made(name: str) -> Folder:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "grid.yaml").write_text(GRID)
        (folder / "slow.yaml").write_text(SLOW)
        return Folder(folder, command)  # type: ignore[arg-type]

    return made


def whole(url: str) -> str:
    """Return a URL with the password."""
    return url.replace("besom@", f"besom:{quote(PASSWORD, safe='')}@")


def started(folder: Folder, database: str, environment: dict[str, str], *args: str) -> subprocess.Popen[str]:
    """Start a sweep in the background, its output in ``log``."""
    return begun(folder.path, {**environment, "BESOM_STORAGE": whole(database)}, *args)


def n_ended(server: Postgres, database: str) -> int:
    """Return how many trials have ended, as the server has it."""
    name = database.rpartition("/")[2]
    if server.sql("select to_regclass('trials') is not null", name).strip() != "t":
        return 0
    return int(server.sql("select count(*) from trials where state != 'RUNNING'", name))


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_of_the_server_in_the_middle_costs_no_trial(
    server: Postgres, database: str, folders: Callable[[str], Folder], clean_environment: dict[str, str], mode: str
) -> None:
    folder = folders("here")
    sweep = started(folder, database, clean_environment, "slow.yaml")
    until(lambda: n_ended(server, database) >= 2, 120)
    server.stop(mode)
    time.sleep(3)
    server.start()
    assert sweep.wait(240) == 0, (folder.path / "log").read_text()
    assert "does not answer, waiting for it" in (folder.path / "log").read_text()
    assert len(weights(folder, "slow")) == 8
    assert len(folder.json("runs", "slow", "--all")["trials"]) == 8, "none was trained twice"


def test_a_killed_parent_is_taken_up_elsewhere_and_a_second_one_is_refused_while_it_lives(
    server: Postgres, database: str, folders: Callable[[str], Folder], clean_environment: dict[str, str]
) -> None:
    here, elsewhere = folders("here"), folders("elsewhere")
    sweep = started(here, database, clean_environment, "slow.yaml")
    until(lambda: n_ended(server, database) >= 2, 120)
    for args in ((), ("--fresh",)):
        refused = elsewhere.besom("sweep", "slow.yaml", *args, code=2)
        assert (
            f"sweep 'slow' is being run by 'besom {os.uname().nodename} {sweep.pid}' from 127.0.0.1" in refused.stderr
        )
    assert "is being run by" in here.besom("delete", "slow", "--yes", code=2).stderr
    os.killpg(sweep.pid, signal.SIGKILL)
    sweep.wait()
    ended = n_ended(server, database)
    assert ended < 8
    elsewhere.besom("sweep", "slow.yaml")
    trials = elsewhere.json("runs", "slow", "--all")["trials"]
    assert [trial["state"] for trial in trials].count("COMPLETE") == 8
    assert len({trial["weights_sha256"] for trial in trials if trial["state"] == "COMPLETE"}) == 8
    assert len(trials) <= 8 + 2, "only what ran when it died was tried again"


LOCKS = "pg_stat_activity join pg_locks using (pid) where locktype = 'advisory' and granted"


def test_a_lock_whose_session_ends_alone_is_taken_anew(
    server: Postgres, database: str, folders: Callable[[str], Folder], clean_environment: dict[str, str]
) -> None:
    folder, name = folders("here"), database.rpartition("/")[2]
    sweep = started(folder, database, clean_environment, "slow.yaml")
    until(lambda: n_ended(server, database) >= 1, 120)
    (first,) = server.sql(f"select pid from {LOCKS}", name).split()
    server.sql(f"select pg_terminate_backend({first})", name)
    until(lambda: server.sql(f"select pid from {LOCKS} and pid != {first}", name).strip() != "", 60)
    assert sweep.wait(240) == 0, (folder.path / "log").read_text()
    assert len(weights(folder, "slow")) == 8


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_signal_ends_the_waiting_for_a_server(
    number: signal.Signals,
    code: int,
    server: Postgres,
    database: str,
    folders: Callable[[str], Folder],
    clean_environment: dict[str, str],
) -> None:
    folder = folders("here")
    sweep = started(folder, database, clean_environment, "slow.yaml")
    until(lambda: n_ended(server, database) >= 1, 120)
    server.stop("immediate")
    try:
        until(lambda: "does not answer, waiting for it" in (folder.path / "log").read_text(), 60)
        sweep.send_signal(number)
        assert sweep.wait(60) == code, (folder.path / "log").read_text()
    finally:
        server.start()
    folder.besom("sweep", "slow.yaml")
    states = [trial["state"] for trial in folder.json("runs", "slow", "--all")["trials"]]
    assert states.count("COMPLETE") == 8


def test_who_lost_the_sweep_to_another_writes_nothing_any_more(
    server: Postgres,
    database: str,
    folders: Callable[[str], Folder],
    clean_environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, name = folders("here"), database.rpartition("/")[2]
    sweep = started(folder, database, clean_environment, "slow.yaml")
    until(lambda: n_ended(server, database) >= 1, 120)
    monkeypatch.setenv("BESOM_STORAGE", whole(database))
    other = StudyLock(database, "slow")
    until(lambda: taken_over(server, name, other), 60)
    assert sweep.wait(120) == 2, (folder.path / "log").read_text()
    assert "is being run by" in (folder.path / "log").read_text()
    states = server.sql("select state, count(*) from trials group by state", name).split()
    assert [state for state in states if state.startswith("FAIL")] == [], "none was closed"
    assert any(state.startswith("RUNNING") for state in states), "what ran is left to who has the sweep now"
    other.release()
    folder.besom("sweep", "slow.yaml")
    states = [trial["state"] for trial in folder.json("runs", "slow", "--all")["trials"]]
    assert states.count("COMPLETE") == 8


def taken_over(server: Postgres, name: str, other: StudyLock) -> bool:
    """End the session that holds a study's lock, and try to be first to take it."""
    server.sql(f"select pg_terminate_backend(pid) from {LOCKS}", name)
    try:
        other.acquire()
    except SweepLocked:
        return False
    return True


def test_a_sweep_of_somebody_else_is_not_begun_anew(folders: Callable[[str], Folder]) -> None:
    here, elsewhere = folders("here"), folders("elsewhere")
    here.besom("sweep", "grid.yaml", "--trials", "1")
    refused = elsewhere.besom("sweep", "grid.yaml", "--fresh", code=2)
    assert "has 1 trials of sweep 'grid'" in refused.stderr
    assert len(here.json("runs", "grid")["trials"]) == 1
    here.besom("sweep", "grid.yaml", "--trials", "1", "--fresh")


@pytest.mark.parametrize("engine", ["lanes", "ray"])
def test_postgresql_and_an_mlflow_server_give_every_point_the_same_weights(
    engine: str,
    tmp_path: Path,
    server: Postgres,
    database: str,
    folders: Callable[[str], Folder],
    clean_environment: dict[str, str],
) -> None:
    lanes, servers = folders("lanes"), folders("servers")
    lanes.besom("sweep", "grid.yaml", env={"BESOM_STORAGE": ""})
    (tmp_path / "mlflow").mkdir()
    server.sql(f"create database mlflow_{engine}")
    backend = whole(server.url(f"mlflow_{engine}"))
    with mlflow_server(tmp_path / "mlflow", clean_environment, backend=backend) as address:
        servers.besom("sweep", "grid.yaml", f"tracking.uri={address}", "--engine", engine)
        given = {"MLFLOW_TRACKING_URI": address}
        trials = servers.json("runs", "grid", "--all")["trials"]
        best = servers.besom("reproduce", "grid", env=given)
    own = [trial["weights_sha256"] for trial in Folder.json(lanes, "runs", "grid", "--all")["trials"]]
    assert [trial["weights_sha256"] for trial in trials] == own
    assert len(set(own)) == 8
    assert "bit-identical" in best.stdout
    assert not (servers.path / "mlruns" / "studies.db").exists()


@pytest.mark.parametrize("engine", ["ray", "submitit_local"])
def test_no_password_is_left_behind(engine: str, folders: Callable[[str], Folder]) -> None:
    folder = folders("here")
    folder.besom("sweep", "grid.yaml", "--trials", "1", "--engine", engine)
    secrets = [PASSWORD.encode(), quote(PASSWORD, safe="").encode()]
    files = [file for file in folder.path.rglob("*") if file.is_file()]
    assert [file for file in files if any(one in file.read_bytes() for one in secrets)] == []


class TestTheLock:
    def test_in_one_process_it_is_one(self, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BESOM_STORAGE", whole(database))
        with study_lock(database, "s") as first, study_lock(database, "s") as second:
            assert first is second

    def test_of_two_sessions_one_has_it(self, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BESOM_STORAGE", whole(database))
        first, second, other = StudyLock(database, "s"), StudyLock(database, "s"), StudyLock(database, "t")
        first.acquire()
        other.acquire()
        with pytest.raises(SweepLocked, match="sweep 's' is being run by 'besom "):
            second.acquire()
        first.release()
        second.acquire()
        second.release()
        other.release()

    def test_who_lost_it_with_the_server_takes_it_anew_unless_another_has_it(
        self, server: Postgres, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BESOM_STORAGE", whole(database))
        first, second = StudyLock(database, "s"), StudyLock(database, "s")
        first.acquire()
        server.stop()
        server.start()
        first.acquire()
        server.stop()
        server.start()
        second.acquire()
        with pytest.raises(SweepLocked):
            first.acquire()
        first.release()
        second.release()

    def test_a_session_that_the_network_cut_off_is_ended_and_not_taken_for_another(
        self, server: Postgres, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BESOM_STORAGE", whole(database))
        with cut_off(server.port) as (port, cut):
            through = database.replace(f":{server.port}/", f":{port}/")
            monkeypatch.setenv("BESOM_STORAGE", whole(through))
            first = StudyLock(through, "s")
            first.acquire()
            cut()
            assert len(server.sql(f"select pid from {LOCKS}", database.rpartition("/")[2]).split()) == 1, "it knows not"
            first.acquire()
            monkeypatch.setenv("BESOM_STORAGE", whole(database))
            with pytest.raises(SweepLocked):
                StudyLock(database, "s").acquire()
            first.release()
