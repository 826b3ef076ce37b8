"""How far a sweep goes: 10,000 trials under way 64 at a time, on lanes that train nothing; docs/scale.md has it.

Each case is one sweep by the real command, its lanes simulated (simulated/lanes.py): what is measured is the one parent
and the servers behind it. Beside it Optuna's own ask and tell runs on the same storage. The study is in SQLite or in
PostgreSQL, runs are in no place, in the store's SQLite, or in an MLflow server on PostgreSQL by HTTP.

    python benchmarks/scale.py                                      everything; two hours
    python benchmarks/scale.py --trials 300 --out f.json            does everything work?
    python benchmarks/scale.py --only formula-sqlite --append       one case anew, the others as they were

A case is stopped after some minutes (`CASES`); what it reached counts. Needs PostgreSQL's programs; without them those
cases are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from clocks import read_with_times
from machine import about_machine
from page import replaced
from sections.scale import scale_section

from besom.paths import write_atomically

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "scale.md"
SIMULATED = HERE / "simulated"
sys.path.append(str(HERE.parent / "tests"))

from databases import PASSWORD, Postgres, postgres  # noqa: E402  # lies beside the tests
from servers import mlflow_server  # noqa: E402

TICK_SECONDS = 0.5
MARKS = (300, 1000, 3000, 10_000)
"""Trials at which the clocks are read, over a window of trials before them: so many start and end at once that a short
one would say little."""
WINDOW = (150, 1000)
"""At least and at most; a quarter of all between."""
PARAMS = ("x=interval(-5.0,5.0)", "y=interval(-5.0,5.0)", "z=range(1,10)", "kind=choice(a,b,c)")
CNN = """\
# @package _global_
defaults:
  - override /hydra/sweeper/sampler: random
hydra:
  mode: MULTIRUN
  sweeper:
    direction: minimize
    sampler: {seed: 1}
    params:
      model.conv.0.filters: range(2, 40)
      model.conv.1.filters: range(2, 40)
      model.conv.0.kernel_size: choice(3, 5)
      model.activation: choice(swish, relu, tanh)
      train.learning_rate: tag(log, interval(0.0003, 0.003))
"""
POOL = {"MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "20", "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "40"}
"""Of MLflow's server: more connections than it has threads, as deploy/compose.yaml gives it."""


@dataclass(frozen=True)
class Case:
    """One sweep.

    Args:
        what: ``formula`` sweeps an app of its own, which nobody tracks; ``cnn`` is ``besom sweep``; ``optuna`` is
            Optuna alone.
        storage: of the study: ``sqlite`` or ``postgresql``.
        runs: where they go: ``-``, ``sqlite`` or ``http``.
        lane_seconds: that a trial takes in its lane.
        most_seconds: after which it is stopped; what it reached by then counts.
    """

    label: str
    what: str
    storage: str = "sqlite"
    runs: str = "-"
    sampler: str = "random"
    pruner: str = "none"
    lane_seconds: float = 0.1
    most_seconds: float = 150.0

    @property
    def needs_postgresql(self) -> bool:
        """Whether the study or the runs are there."""
        return self.storage == "postgresql" or self.runs == "http"


CASES = {
    "formula-sqlite": Case("random", "formula", most_seconds=600),
    "optuna-sqlite": Case("random, Optuna alone", "optuna"),
    "formula-postgresql": Case("random", "formula", "postgresql", most_seconds=600),
    "optuna-postgresql": Case("random, Optuna alone", "optuna", "postgresql"),
    "formula-median": Case("random, median pruner", "formula", pruner="median"),
    "formula-tpe": Case("TPE", "formula", sampler="tpe"),
    "optuna-tpe": Case("TPE, Optuna alone", "optuna", sampler="tpe"),
    "cnn-sqlite": Case("besom sweep", "cnn", runs="sqlite", lane_seconds=1.0, most_seconds=1500),
    "cnn-servers": Case("besom sweep", "cnn", "postgresql", "http", lane_seconds=1.0, most_seconds=2700),
}


def main() -> None:
    """Run the cases one after another, keep each at once, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--only", nargs="+", choices=CASES, metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--append", action="store_true", help="keep the other cases that --out already has")
    parser.add_argument("--page", type=Path, default=PAGE, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=HERE / "scale.json", help="default: %(default)s")
    given = parser.parse_args()
    about = about_machine()
    report: dict[str, Any] = {**about, "trials": given.trials, "cases": {}}
    if given.append and given.out.is_file():
        report["cases"] = json.loads(given.out.read_text("utf-8"))["cases"]
    for name in given.only or CASES:
        if CASES[name].needs_postgresql and not (shutil.which("initdb") or Path("/usr/lib/postgresql").is_dir()):
            print(f"scale: {name} is left out: PostgreSQL is not installed", file=sys.stderr)
            continue
        report["cases"][name] = {"label": CASES[name].label, "about": about, **run(CASES[name], given.trials)}
        write_atomically(given.out, json.dumps(report, indent=1) + "\n")
        print(f"{name}: {report['cases'][name]['marks']}", file=sys.stderr)
    report["cases"] = {name: report["cases"][name] for name in CASES if name in report["cases"]}
    text = given.page.read_text("utf-8") if given.page.is_file() else ""
    given.page.write_text(replaced(text, "scale", scale_section(report, given.page)), encoding="utf-8")


def run(case: Case, trials: int) -> dict[str, Any]:
    """Run one case in a folder of its own; return what was seen of it."""
    with tempfile.TemporaryDirectory(prefix="besom-scale-") as name, ExitStack() as services:
        folder = Path(name)
        server = services.enter_context(_postgres()) if case.needs_postgresql else None
        storage = server.url("optuna") if server and case.storage == "postgresql" else f"sqlite:///{folder}/studies.db"
        env = {key: value for key, value in os.environ.items() if not key.startswith(("BESOM", "HYDRA", "MLFLOW"))}
        env |= {"PYTHONPATH": f"{HERE}:{SIMULATED}", "PGPASSWORD": PASSWORD}
        if case.runs == "http":
            assert server is not None
            (folder / "mlflow").mkdir()
            address = mlflow_server(folder / "mlflow", env | POOL, 300, server.url("mlflow"))
            env["MLFLOW_TRACKING_URI"] = services.enter_context(address)
        limit = case.most_seconds + (60 if case.what == "optuna" else 0)  # that one looks at the clock itself
        seen, wall, code = watched(command(case, storage, trials, folder), env, folder, limit)
        log = (folder / "out.txt").read_text("utf-8", "replace")
        calls = read_with_times(folder / "clocks.txt")
        if code not in (0, 130):
            sys.exit(f"scale: {case} ended with {code}: {log[-3000:]}")
        sizes = {
            "study_mb": size(folder / "studies.db", folder / "mlruns" / "studies.db"),
            "runs_mb": size(folder / "mlruns" / "mlflow.db"),
        }
        if server is not None:
            sizes["study_mb"] = float(server.sql("select pg_database_size('optuna')")) / 2**20
            sizes["runs_mb"] = float(server.sql("select pg_database_size('mlflow')")) / 2**20
        return {
            "case": case.__dict__,
            "wall": wall,
            "is_whole": code == 0,
            "told": len(calls["tell"]),
            "marks": {str(mark): one for mark in MARKS if (one := at(mark, calls, seen)) is not None},
            **sizes,
        }


@contextmanager
def _postgres() -> Iterator[Postgres]:
    with postgres() as server:
        for database in ("optuna", "mlflow"):
            server.sql(f"create database {database}")
        yield server


def command(case: Case, storage: str, trials: int, folder: Path) -> list[str]:
    """Return a case's command line."""
    if case.what == "optuna":
        return [str(SIMULATED / "optuna_alone.py"), storage, case.sampler, str(trials), str(case.most_seconds)]
    common = [
        *("hydra/launcher=simulated", f"hydra.launcher.seconds={case.lane_seconds}"),
        *(f"hydra/sweeper/sampler={case.sampler}", "hydra.sweeper.sampler.seed=1"),
        *(f"hydra/sweeper/pruner={case.pruner}", f"hydra.sweeper.n_trials={trials}"),
    ]
    if case.what == "cnn":
        (folder / "scale.yaml").write_text(CNN, encoding="utf-8")
        own = [f"hydra.sweeper.storage={storage}"] if case.storage == "postgresql" else []
        return [str(HERE / "clocks.py"), "clocks.txt", "sweep", "scale.yaml", *common, *own]
    place = ["hydra.sweep.dir=sweep", "hydra.sweeper.study_name=scale", f"hydra.sweeper.storage={storage}"]
    return [str(SIMULATED / "app.py"), "-m", "hydra/sweeper=besom", *common, *place, *PARAMS]


Seen = list[tuple[float, float, float, float]]
"""When, the parent's resident MB, its CPU seconds and those of the whole machine."""


def watched(command: Sequence[str], env: Mapping[str, str], folder: Path, seconds: float) -> tuple[Seen, float, int]:
    """Run a command; return what was seen of it, its seconds and its code."""
    started, seen, interrupted = time.time(), [], False
    with (folder / "out.txt").open("w") as out:
        process = subprocess.Popen([sys.executable, *command], cwd=folder, env=env, stdout=out, stderr=out)
        parent = psutil.Process(process.pid)
        while process.poll() is None:
            time.sleep(TICK_SECONDS)
            try:
                times = parent.cpu_times()
                everybody = psutil.cpu_times()
                busy = sum(everybody) - everybody.idle - everybody.iowait
                if not parent.is_running() or parent.status() == psutil.STATUS_ZOMBIE:
                    break
                seen.append((time.time(), parent.memory_info().rss / 2**20, times.user + times.system, busy))
            except psutil.NoSuchProcess:
                break
            if time.time() - started > seconds and not interrupted:
                interrupted = True
                process.send_signal(signal.SIGINT)
        code = process.wait()
    return seen, time.time() - started, code


def at(mark: int, calls: Mapping[str, Sequence[tuple[float, float]]], seen: Seen) -> dict[str, float] | None:
    """Return what the clocks say of the trials before one of them; None where that was not reached."""
    if len(calls["tell"]) < mark:
        return None
    first = mark - min(max(mark // 4, WINDOW[0]), WINDOW[1])
    begin, end = calls["tell"][first][1], calls["tell"][mark - 1][1]
    inside = [one for one in seen if begin - TICK_SECONDS <= one[0] <= end + TICK_SECONDS]
    seconds = inside[-1][0] - inside[0][0]
    took = {
        what: statistics.median(one for one, _ in calls[key][first:mark]) * 1000
        for what, key in (("ask_ms", "ask"), ("tell_ms", "tell"), ("open_run_ms", "open run"))
        if calls[key]
    }
    if calls["tell and end run"]:
        took["end_run_ms"] = (
            statistics.median(one for one, _ in calls["tell and end run"][first:mark]) * 1000 - took["tell_ms"]
        )
    return {
        **took,
        "slowest_ask_ms": max(one for one, _ in calls["ask"][first:mark]) * 1000,
        "trials_per_second": (mark - 1 - first) / (end - begin),
        "parent_cpu": (inside[-1][2] - inside[0][2]) / seconds,
        "machine_cpu": (inside[-1][3] - inside[0][3]) / seconds,
        "mb": inside[-1][1],
    }


def size(*files: Path) -> float:
    """Return the MB of the files that are there."""
    return sum(file.stat().st_size for file in files if file.is_file()) / 2**20


if __name__ == "__main__":
    main()
