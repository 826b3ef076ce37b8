"""What all tests share: besom's own command, run as people run it, and an empty folder to run it in."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from besom.paths import Store
from besom.seeding import fix_runtime
from besom.tracking import fix_environment

fix_runtime(1)  # tests that train in this process need it before TensorFlow is imported
fix_environment()  # and this before MLflow is

if TYPE_CHECKING:
    from harness import Bench

ROOT = Path(__file__).parents[1]
INHERITED = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "CI")
"""The only variables of the outside that a command under test sees, besides coverage's own."""


def lanes_of(parent: int) -> list[psutil.Process]:
    """Return the lanes of a process, living, and not Python's resource tracker."""
    return [child for child in psutil.Process(parent).children(recursive=True) if _is_lane(child)]


def _is_lane(process: psutil.Process) -> bool:
    try:
        if "spawn_main" in " ".join(process.cmdline()):
            return True
        above = process.parent()  # of lanes that are copies of one process, that one is no lane
        return (
            "forkserver" in " ".join(process.cmdline())
            and above is not None
            and "forkserver" in " ".join(above.cmdline())
        )
    except psutil.NoSuchProcess:  # it died just now, zombies included
        return False


def all_gone(processes: list[psutil.Process]) -> bool:
    """Tell whether none of some processes lives on."""
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for a condition; fail when it does not come true in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def same(one: Any, other: Any) -> bool:
    """Equal in value and type, nan being equal to nan, all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one.items()), [tuple(item) for item in other.items()])
    if isinstance(one, tuple):
        return all(map(same, one, other))
    if isinstance(one, float):
        is_nan = math.isnan(one) and math.isnan(other)
        return is_nan or (one == other and math.copysign(1, one) == math.copysign(1, other))
    return bool(one == other)


BesomCommand = Callable[..., subprocess.CompletedProcess[str]]


class Folder:
    """A folder to run besom in."""

    def __init__(self, path: Path, command: BesomCommand) -> None:
        self.path = path
        self._command = command

    def besom(self, *args: str, code: int = 0, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        done = self._command(*args, cwd=self.path, env=env, timeout=240)
        assert done.returncode == code, f"besom {' '.join(args)} → {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *args: str, code: int = 0) -> Any:
        return json.loads(self.besom(*args, "--format", "json", code=code).stdout)

    def mlflow(self, query: str) -> list[Any]:
        # closed at once: a copy of the store by this process would take the locks of an open one away
        with closing(sqlite3.connect(self.path / "mlruns" / "mlflow.db")) as database:
            return database.execute(query).fetchall()


def begun(folder: Path, environment: Mapping[str, str], *args: str) -> subprocess.Popen[str]:
    """Start ``besom sweep ARGS`` in the background, in a session of its own, its output in the folder's ``log``."""
    with (folder / "log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "besom", "sweep", *args],
            cwd=folder,
            env=dict(environment),
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
        )


@pytest.fixture(scope="session")
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a user who has set nothing up: a new home, no store, no tracking server."""
    kept = {key: value for key, value in os.environ.items() if key in INHERITED or key.startswith("COVERAGE_")}
    return {**kept, "HOME": str(tmp_path_factory.mktemp("home")), "NO_COLOR": "1", "COLUMNS": "160"}


@pytest.fixture(scope="session")
def besom_command(clean_environment: dict[str, str]) -> BesomCommand:
    """Return ``run(*args, cwd, env=None, timeout=120)``, which runs ``besom ARGS`` in a process of its own."""

    def run(
        *args: str, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "besom", *args],
            cwd=cwd,
            env={**clean_environment, **(env or {})},
            timeout=timeout,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty folder to run besom in: no ``conf/``, no ``sweeps/``, no store yet."""
    return tmp_path


@pytest.fixture(scope="session")
def made_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store without a sweep, the same for all: copy it."""
    from besom.app.store import create_store  # needs what the sweeper's environments have not

    store = Store.at(tmp_path_factory.mktemp("made") / "mlruns")
    create_store(store)
    return store


@pytest.fixture
def besoms(tmp_path: Path, clean_environment: dict[str, str]) -> Iterator[Bench]:
    """A sweep of besom's own app, for faults."""
    from harness import Bench  # lies beside the tests of faults, which alone ask for it

    bench = Bench.of_besom(tmp_path, clean_environment)
    yield bench
    bench.end_all()


@pytest.fixture
def app(tmp_path: Path, clean_environment: dict[str, str]) -> Iterator[Bench]:
    """A sweep of somebody else's app, for faults."""
    from harness import Bench

    bench = Bench.of_app(tmp_path, clean_environment)
    yield bench
    bench.end_all()
