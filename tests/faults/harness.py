"""Runs a real sweep with faults in it: what landed where, what stayed, what a resume makes of it.

A `Bench` is a folder with a sweep in it that may be struck many times in a row. After each fault it waits until every
process of the sweep is gone by itself, and compares what had ended before; `whole` resumes it without faults and holds
the store against `invariants.broken`. Faults are laid by ``injector/sitecustomize.py`` alone.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
from invariants import MARK, Books, Kept, broken, changed, finished, marked

INJECTOR = Path(__file__).parent / "injector"
PATIENCE = 300.0
"""Seconds that a start of the sweep may take; many times what it does."""
SWEEP = """# @package _global_
# Small networks in great number.
defaults:
  - override /data: mnist_5k
  - override /hydra/sweeper/sampler: tpe
  - override /hydra/sweeper/pruner: halving
model: {dense: 8}
train: {epochs: 2}
data: {n_train: 150, n_val: 60, n_test: 60}
hydra:
  mode: MULTIRUN
  sweeper:
    direction: maximize
    n_trials: 1000
    sampler: {seed: 3}
    params:
      model.dense: range(4,84,4)
      model.activation: relu,tanh,swish
      train.learning_rate: "interval(0.0005,0.01)"
"""
APP = """
import os
import time
from pathlib import Path

import hydra

import besom


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config):
    for step in range(2):
        besom.report(step, config.x / 1000 + step)
        time.sleep(float(os.environ.get("APP_SECONDS", "0.02")))
    if "APP_EATS" in os.environ and config.x % 5 == 0:
        eat(int(os.environ["APP_EATS"]))
    besom.tell(size=config.x * 2)
    return config.x + config.y / 10


def eat(megabytes):
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
    held = [bytearray(1 << 20) for _ in range(megabytes * 4)]


if __name__ == "__main__":
    main()
"""
CONFIG = """
defaults: [_self_, {override hydra/sweeper: besom}, {override hydra/launcher: besom_lanes}]
x: 0
y: 0
hydra:
  sweep: {dir: sweep}
  launcher: {n_lanes: 2}
  sweeper:
    n_trials: 1000
    max_failure_rate: 1.0
    sampler: {seed: 3}
    params: {x: "range(0,1000)", y: "range(0,10)"}
"""


HOLDER = """
import sqlite3, sys, time

database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
if sys.argv[2] == "everything":
    database.execute("pragma locking_mode=exclusive")
database.execute("begin exclusive")
if sys.argv[2] == "everything":
    database.execute("create table held (x)")
print("held", flush=True)
time.sleep(float(sys.argv[3]))
database.execute("rollback")
print("free", flush=True)
database.close()
"""


@contextmanager
def holding(file: Path, seconds: float = 3600, what: str = "writing") -> Iterator[subprocess.Popen[str]]:
    """Let another process hold a database for so long, at most as long as the ``with``.

    Args:
        what: ``writing``, as any program does that writes, or ``everything``, so that nobody can even read.
    """
    command = [sys.executable, "-c", HOLDER, str(file), what, str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == "held\n"
            with closing(sqlite3.connect(file, timeout=0)) as probe, suppress(sqlite3.OperationalError):
                probe.execute("begin immediate")
                raise AssertionError(f"{file} is not held")
            yield holder
        finally:
            holder.kill()


@dataclass
class Start:
    """One start of a sweep, on its way."""

    process: subprocess.Popen[str]
    log: Path

    @property
    def landed(self) -> list[dict[str, Any]]:
        """The faults that landed, in order."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def ended(self, seconds: float = PATIENCE) -> int:
        """Wait for the end of the parent; return its exit code, negative for a signal."""
        self.process.wait(seconds)
        return self.process.returncode

    @property
    def jumped(self) -> set[int]:
        """The processes that have read a clock that had jumped."""
        file = Path(f"{self.log}.jumps")
        return set(map(int, file.read_text().split())) if file.exists() else set()

    @property
    def output(self) -> str:
        return self.log.with_suffix(".out").read_text()

    def said(self, text: str) -> bool:
        return text in self.output


@dataclass
class Bench:
    """A sweep that is struck again and again.

    Args:
        folder: where it runs.
        command: what starts it, without overrides.
        books: where it is written down.
        trials: the override that says how many trials there are to be.
    """

    folder: Path
    command: Sequence[str]
    books: Books
    trials: str
    environment: dict[str, str]
    overrides: tuple[str, ...] = ()
    mark: str = field(default_factory=lambda: secrets.token_hex(8))
    kept: dict[int, Kept] = field(default_factory=dict)
    landed: list[dict[str, Any]] = field(default_factory=list)
    n_starts: int = 0

    @classmethod
    def of_besom(cls, folder: Path, environment: Mapping[str, str]) -> Bench:
        """Return besom's own app: TensorFlow, MLflow, lanes that are copies of one process, a pruner."""
        (folder / "faults.yaml").write_text(SWEEP)
        command = (sys.executable, "-m", "besom", "sweep", "faults.yaml")
        return cls(folder, command, Books.of_store(folder / "mlruns", "faults"), "hydra.sweeper.n_trials={}",
                   _environment(folder, environment))  # fmt: skip

    @classmethod
    def of_app(cls, folder: Path, environment: Mapping[str, str]) -> Bench:
        """Return somebody else's app, which starts in a second: no TensorFlow, no MLflow, spawned lanes."""
        (folder / "conf").mkdir()
        (folder / "app.py").write_text(APP)
        (folder / "conf" / "config.yaml").write_text(CONFIG)
        command = (sys.executable, "app.py", "-m")
        return cls(folder, command, Books.of_app(folder / "sweep", "app"), "hydra.sweeper.n_trials={}",
                   _environment(folder, environment))  # fmt: skip

    @property
    def tmp(self) -> Path:
        return self.folder / "tmp"

    @property
    def n_ended(self) -> int:
        """How many trials have ended by themselves, those included that the study has not been told of yet."""
        return len(finished(self.books))

    @property
    def n_results(self) -> int:
        """How many trials have left a result, the attempts of one point each for itself."""
        return len(list(self.books.jobs.glob("*/result.json")))

    def start(
        self,
        *overrides: str,
        faults: str = "",
        more: int = 2,
        command: Sequence[str] | None = None,
        seconds: float = 0.02,
        env: Mapping[str, str] | None = None,
        **popen: Any,
    ) -> Start:
        """Start the sweep for so many more trials, or another command, with faults in it.

        Args:
            seconds: how long somebody else's app takes for each of its two steps.
        """
        self.n_starts += 1
        log = self.folder / "faults" / str(self.n_starts)
        log.parent.mkdir(exist_ok=True)
        arguments = command or (*self.command, *self.overrides, self.trials.format(self.n_ended + more), *overrides)
        environment = {**self.environment, MARK: self.mark, "BESOM_FAULTS": faults, "BESOM_FAULTS_LOG": str(log)}
        environment["APP_SECONDS"] = str(seconds)
        with log.with_suffix(".out").open("w") as out:
            process = subprocess.Popen(
                arguments, cwd=self.folder, env={**environment, **(env or {})}, stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, text=True, **{"start_new_session": True, **popen},
            )  # fmt: skip
        return Start(process, log)

    def struck(self, fault: str, *overrides: str, **start: Any) -> list[dict[str, Any]]:
        """Start with a fault, wait until nothing of it lives, see that nothing that had ended changed.

        Returns:
            What landed; `AssertionError` where nothing did.
        """
        started = self.start(*overrides, faults=fault, **start)
        code = started.ended()
        self.landed += started.landed
        assert started.landed, f"{fault} did not land; exit code {code}\n{started.output}"
        assert all(one["hit"] for one in started.landed), f"{fault} hit nobody\n{started.output}"
        is_killed = any(one["whom"] in ("parent", "both") or (one["whom"], one["in"]) == ("self", "parent")
                        for one in started.landed)  # fmt: skip
        assert code == (-signal.SIGKILL if is_killed else 0), f"{fault}: exit code {code}\n{started.output}"
        self.settle(fault)
        return started.landed

    def settle(self, what: str) -> None:
        """Wait until no process of the sweep lives; see that nothing that had ended changed."""
        self.wait_for_nobody(what)
        lost = list(changed(self.books, self.kept))
        assert not lost, f"{what}: {lost}"
        self.kept = finished(self.books)

    def left(self) -> list[psutil.Process]:
        """Return the living processes of the sweep."""
        return marked(self.mark)

    def wait_for_nobody(self, what: str, seconds: float = 60) -> None:
        """Wait until no process of the sweep lives; fail, and end those that do, when they do not go."""
        end = time.monotonic() + seconds
        while left := marked(self.mark):
            if time.monotonic() > end:
                told = [" ".join(one.cmdline()) for one in left]
                self.end_all()
                raise AssertionError(f"{what}: {told} live on")
            time.sleep(0.05)

    def end_all(self) -> None:
        """Kill what a failed test has left."""
        for process in marked(self.mark):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def whole(self, *overrides: str, more: int = 2) -> None:
        """Resume to the end without faults; nothing may be broken, nor changed."""
        total = self.n_ended + more
        started = self.start(*overrides, more=more)
        assert started.ended() == 0, started.output
        self.wait_for_nobody("the resumed sweep")
        found = broken(self.books, before=self.kept, n_trials=total, mark=self.mark, tmp=self.tmp)
        assert not found, "\n".join(found)
        self.kept = finished(self.books)

    def until(self, condition: Callable[[], bool], start: Start, seconds: float = 120) -> None:
        """Wait for a condition while a start is on its way."""
        end = time.monotonic() + seconds
        while not condition():
            assert start.process.poll() is None, f"it ended before\n{start.output}"
            assert time.monotonic() < end, f"it did not happen\n{start.output}"
            time.sleep(0.02)

    def processes(self, start: Start) -> dict[str, list[psutil.Process]]:
        """Return the ``lanes`` of a start and the ``server`` that they are copied from; both may be empty."""
        found: dict[str, list[psutil.Process]] = {"lanes": [], "server": []}
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(start.process.pid)
            for child in parent.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    line = " ".join(child.cmdline())
                    if "forkserver" in line and child.ppid() == parent.pid:
                        found["server"].append(child)
                    elif "forkserver" in line or "spawn_main" in line:
                        found["lanes"].append(child)
        return found


def _environment(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    (folder / "tmp").mkdir()
    besom = find_spec("besom")
    assert besom is not None, "besom is what is tested"
    assert besom.origin is not None, "besom is what is tested"
    parts = [str(INJECTOR), str(Path(besom.origin).parents[1]), environment.get("PYTHONPATH", "")]
    path = os.pathsep.join(filter(None, parts))
    own = {"PYTHONPATH": path, "TMPDIR": str(folder / "tmp"), "HYDRA_FULL_ERROR": "0", "PYTHONFAULTHANDLER": "1"}
    return {**environment, **own}
