"""Put into a program from outside, by PYTHONPATH: kills or signals a process of a sweep at a named point of besom.

besom has no hooks for this. A *point* is a real function of it and whether the fault comes before or after; the
function is wrapped when its module is imported, in the parent, in the process that lanes are copied from and in lanes.

    BESOM_FAULTS="told:2:both,…"   at the second time that any process of the sweep gets to `told`: kill -9 parent and
                                   lanes; `self`, `lane`, `parent`, `both`, `server`, or `parent.TERM` for a signal;
                                   `mending.told` is the same while a start mends what the one before it left
    BESOM_FAULTS_LOG=FILE          a line for each fault that landed, written before it does: point, whom, process
    BESOM_FAULTS_JUMP=3:86400      after so many seconds, move the clock of this process (`time.time` and
                                   `datetime.now`) by so many; a
                                   line tells of the first time that somebody read the moved clock

Knows besom's names only; imports nothing of it. A point that besom no longer has is an error at the end of a test,
which asserts what landed.
"""

from __future__ import annotations

import datetime
import fcntl
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

ROOT = "BESOM_FAULTS_ROOT"
"""The pid of the sweep's parent: of the first process that imports this."""

MENDING = "mending."

POINTS = {
    # while a sweep opens
    "store_filled": ("besom.app.store", "_fill", "after"),
    "store_renamed": ("besom.app.store", "os.replace:mlflow.db", "after"),
    "snapshot_copied": ("besom.configs.project", "shutil.copytree:.snapshot", "after"),
    "snapshot_made": ("besom.configs.project", "Stage.keep_as", "after"),
    "study_made": ("besom.sweep.study", "SweepStudy._open", "after"),
    "owner_marked": ("besom.sweep.ownership", "own", "after"),
    "books_opened": ("besom.tracking", "MlflowTracker.open_sweep", "after"),
    "mending": ("besom.sweep.ledger", "Ledger._mend", "before"),
    "mended_study": ("besom.sweep.study", "SweepStudy.lose", "after"),
    "mended_run": ("besom.tracking", "MlflowTracker.running_trials", "after"),
    "images_shared": ("besom.data", "share", "after"),
    # while MLflow is away, and when it is told what waits
    "journal_drafted": ("besom.paths", "os.replace:operations.jsonl", "before"),
    "journal_grown": ("besom.spool.journal", "Journal.append", "after"),
    "delivered_one": ("besom.spool.journal", "Journal.note_progress", "before"),
    "delivered_noted": ("besom.spool.journal", "Journal.note_progress", "after"),
    "journal_next": ("besom.spool.journal", "Journal.remove", "before"),
    # while a trial starts
    "asking": ("besom.search.search", "Search.suggest", "before"),
    "asked": ("besom.sweep.study", "SweepStudy._take", "after"),
    "run_made": ("besom.tracking", "MlflowTracker.start_trial", "after"),
    "run_noted": ("besom.sweep.ledger", "Ledger.start", "after"),
    "submitting": ("besom.sweep.sweeper", "Sweep._submit", "before"),
    # in a lane
    "taken": ("besom.engines.launcher", "HydraRunner.__call__", "before"),
    "reported": ("besom.reporting", "report", "after"),
    "result_next": ("besom.results", "TrialResult.write", "before"),
    "result_drafted": ("besom.paths", "os.replace:result.json", "before"),
    "result_written": ("besom.results", "TrialResult.write", "after"),
    # while a trial ends
    "settling": ("besom.sweep.ledger", "Ledger.finish", "before"),
    "telling": ("besom.sweep.study", "SweepStudy._close", "before"),
    "told": ("besom.sweep.study", "SweepStudy._close", "after"),
    "run_ended": ("besom.tracking", "MlflowTracker.end_trial", "after"),
    "results_drafted": ("besom.paths", "os.replace:optimization_results.yaml", "before"),
    # while a sweep closes, and goes
    "closing": ("besom.sweep.ledger", "Ledger.close", "before"),
    "closed": ("besom.sweep.ledger", "Ledger.close", "after"),
    "drawing": ("besom.compare.record", "write", "after"),
    "crowning": ("besom.compare.champion", "crown", "before"),
    "runs_deleted": ("besom.app.delete", "_delete_runs", "after"),
    "study_next": ("besom.app.delete", "delete_study", "before"),
}
"""Name → module, function of it, and which side of it the fault is on. ``os.replace:NAME`` is a call that the module
makes with a path that ends so."""
ANYWHERE = ("settling", "telling", "told", "run_ended", "results_drafted")
"""Points that a start comes to while it mends, too; then they are named ``mending.…`` and counted for themselves."""


def main() -> None:
    """Chain to another ``sitecustomize``, then lie in wait."""
    _chain()
    os.environ.setdefault(ROOT, str(os.getpid()))
    for fault in filter(None, os.environ.get("BESOM_FAULTS", "").split(",")):
        point, countdown, whom = fault.split(":")
        bare = point.removeprefix(MENDING)
        Finder.wanted.setdefault(POINTS[bare][0], {}).setdefault(bare, {})[point, int(countdown)] = whom
    if Finder.wanted:
        sys.meta_path.insert(0, Finder())
    if jump := os.environ.get("BESOM_FAULTS_JUMP"):
        _jump(*(float(number) for number in jump.split(":")))


def _chain() -> None:
    here = Path(__file__).parent
    for folder in sys.path:
        other = Path(folder or ".", "sitecustomize.py")
        if other.is_file() and other.resolve().parent != here.resolve():
            spec = importlib.util.spec_from_file_location("_other_sitecustomize", other)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return


class Finder(importlib.abc.MetaPathFinder):
    """Finds the modules with points in them as Python does, and wraps their functions once they are loaded."""

    wanted: ClassVar[dict[str, dict[str, dict[tuple[str, int], str]]]] = {}
    """Module → point → under which name and at which time → whom."""

    def find_spec(self, name, path, target=None):
        if name not in self.wanted:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            for point, faults in self.wanted[name].items():
                lay(module, point, faults)

        spec.loader.exec_module = exec_module
        return spec


def lay(module, point: str, faults: dict[tuple[str, int], str]) -> None:
    """Wrap the function of a point."""
    _, name, side = POINTS[point]
    path, _, ending = name.partition(":")
    *parts, last = path.split(".")
    owner = module
    for part in parts:
        owner = getattr(owner, part)
    function = getattr(owner, last)

    def wrapped(*args, **kwargs):
        is_it = not ending or str(args[1]).endswith(ending)
        if is_it and side == "before":
            reach(point, faults)
        returned = function(*args, **kwargs)
        if is_it and side == "after":
            reach(point, faults)
        return returned

    wrapped.__name__, wrapped.__qualname__, wrapped.__module__ = function.__name__, name, module.__name__
    setattr(owner, last, wrapped)


def reach(point: str, faults: dict[tuple[str, int], str]) -> None:
    """Count, over all processes of the sweep; do what it is time for."""
    if point in ANYWHERE and is_mending():
        point = MENDING + point
    log = Path(os.environ["BESOM_FAULTS_LOG"])
    with log.with_suffix(".count").open("a+") as counts:
        fcntl.flock(counts, fcntl.LOCK_EX)
        counts.write(f"{point}\n")
        counts.flush()
        counts.seek(0)
        reached = counts.read().splitlines().count(point)
    if (point, reached) in faults:
        strike(point, faults[point, reached], log)


def strike(point: str, whom: str, log: Path) -> None:
    """Write down what lands where, then do it."""
    root = int(os.environ[ROOT])
    victim, _, name = whom.partition(".")
    number = signal.Signals[f"SIG{name or 'KILL'}"]
    hit = victims(victim, root)
    who = "parent" if os.getpid() == root else "lane"
    with log.open("a") as lines:
        lines.write(json.dumps({"point": point, "whom": whom, "in": who, "hit": hit}) + "\n")
        lines.flush()
        os.fsync(lines.fileno())
    for pid in sorted(hit, key=lambda pid: pid == os.getpid()):  # this one last
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    if os.getpid() not in hit and number == signal.SIGKILL and victim in ("parent", "both"):
        time.sleep(30)  # nothing more happens in a lane whose parent was killed just now


def is_mending() -> bool:
    """Tell whether this happens while a start mends what the one before it left."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "open" and frame.f_globals.get("__name__") == "besom.sweep.ledger":
            return True
        frame = frame.f_back
    return False


def victims(whom: str, root: int) -> list[int]:
    """Return the processes that a fault is for."""
    if whom == "self":
        return [os.getpid()]
    if whom == "parent":
        return [root]
    below = descendants(root)
    servers = [pid for pid in children(root) if "forkserver" in command(pid)]
    lanes = [pid for pid in below if pid not in servers and any(name in command(pid) for name in LANES)]
    if whom == "server":
        return servers
    if whom == "lane":
        return [os.getpid()] if os.getpid() in lanes else lanes[:1]
    return [*below, root]


LANES = ("forkserver", "spawn_main")


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found


def descendants(pid: int) -> list[int]:
    return [one for child in children(pid) for one in (child, *descendants(child))]


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def _jump(after: float, by: float) -> None:
    """Move the wall clock of this process once, as a correction of the system's does; the monotonic one goes on."""
    started, now, now_ns, told = time.monotonic(), time.time, time.time_ns, []

    def offset() -> float:
        if time.monotonic() - started <= after:
            return 0.0
        if not told:
            told.append(True)
            with Path(os.environ["BESOM_FAULTS_LOG"] + ".jumps").open("a") as lines:
                lines.write(f"{os.getpid()}\n")
        return by

    time.time = lambda: now() + offset()
    time.time_ns = lambda: now_ns() + int(offset() * 1e9)
    real = datetime.datetime

    class Kind(type(real)):
        def __instancecheck__(cls, one):  # what C code makes is of the real class
            return isinstance(one, real)

    class Moved(real, metaclass=Kind):
        @classmethod
        def now(cls, tz=None):
            return real.now(tz) + datetime.timedelta(seconds=offset())

        @classmethod
        def utcnow(cls):
            return real.now(datetime.UTC).replace(tzinfo=None) + datetime.timedelta(seconds=offset())

        today = now

    Moved.__name__ = Moved.__qualname__ = "datetime"
    Moved.__module__ = "datetime"
    datetime.datetime = Moved


if threading.current_thread() is threading.main_thread():
    main()
