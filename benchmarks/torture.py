"""Proves the promise of `kill -9`: lays faults into real sweeps by the hundred and counts what was lost.

    python benchmarks/torture.py                       everything; about 50 minutes on 2 cores; docs/reliability.md
    python benchmarks/torture.py --random 10 --signals 5 --apps other --out found.json --page found.md

Every named point of ``tests/faults/injector`` with every kind of fault that can land there, in besom's own app and in
somebody else's; then kills and signals at random times, of a seed. A sweep is struck several times in a row, then
resumed and held against ``tests/faults/invariants.py``. A fault counts as injected when a process was hit, and as lost
when what had ended before changed after it, or when the resumed sweep is not whole: that counts against all of the row,
since nobody knows which one it was. Ends with exit code 1 where a fault was lost or hit nobody.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from machine import about_machine
from page import replaced

from besom.paths import write_atomically

HERE = Path(__file__).resolve().parent
FAULTS = HERE.parent / "tests" / "faults"
sys.path[:0] = [str(FAULTS), str(FAULTS / "injector")]

from harness import Bench, Start, holding  # noqa: E402  # lies beside the tests
from invariants import read_trials  # noqa: E402

PAGE = HERE.parent / "docs" / "reliability.md"
NAME = "torture"
IN_A_ROW = 8
"""Faults that one sweep is struck with before it is resumed and looked at."""
SIGNALS = {"INT": 130, "TERM": 143, "HUP": 129}

PHASES: dict[str, dict[str, str]] = {
    "a store is made": {"store_filled": "self", "store_renamed": "self"},
    "a sweep opens": {
        **dict.fromkeys(("snapshot_copied", "snapshot_made", "study_made"), "self both"),
        **dict.fromkeys(("owner_marked", "images_shared"), "self both"),
        "books_opened": "self both server",
    },
    "a resume mends": dict.fromkeys(
        (
            "mending",
            "mended_study",
            "mended_run",
            "mending.settling",
            "mending.telling",
            "mending.told",
            "mending.run_ended",
            "mending.results_drafted",
        ),
        "self both",
    ),
    "a trial is asked for": dict.fromkeys(("asking", "asked"), "self lane both server"),
    "a trial's run is made": dict.fromkeys(("run_made", "run_noted", "submitting"), "self lane both server"),
    "a lane trains": dict.fromkeys(("taken", "reported", "result_next"), "self parent both"),
    "a lane writes the result": dict.fromkeys(("result_drafted", "result_written"), "self parent both"),
    "the study is told": dict.fromkeys(("settling", "telling", "told"), "self lane both"),
    "the run is ended": dict.fromkeys(("run_ended", "results_drafted"), "self lane both"),
    "MLflow is away": dict.fromkeys(("journal_drafted", "journal_grown"), "self both"),
    "MLflow is told what waited": dict.fromkeys(("delivered_one", "delivered_noted", "journal_next"), "self both"),
    "a sweep closes": {"closing": "self both", "closed": "self", "drawing": "self", "crowning": "self"},
    "a sweep is deleted": {"runs_deleted": "self", "study_next": "self"},
}
"""Where → point → whom a kill there is for."""
OF_BESOM = {"store_filled", "store_renamed", "snapshot_copied", "snapshot_made", "images_shared", "run_made",
            "books_opened", "run_ended", "drawing", "crowning", "runs_deleted", "study_next", "mended_run",
            "mending.run_ended", "journal_drafted", "journal_grown", "delivered_one", "delivered_noted",
            "journal_next"}  # fmt: skip
"""Points that somebody else's app does not come to: it has no store and no MLflow."""
AT_FIRST = {"store_filled", "store_renamed", "snapshot_copied", "snapshot_made"}
"""Points that only the first start of a sweep comes to; in the order in which it does, none gets any further."""
SECOND = {"study_made", "asking", "asked", "run_made", "run_noted", "submitting", "taken", "reported", "settling",
          "telling", "told", "run_ended"}  # fmt: skip
"""Points that are struck at the second time, so that something is there to lose."""
MOST_MISSES = 60
LANES_LIVE = 6.0
"""Seconds of a start by which it has lanes: to strike one any sooner would miss it every time."""
KINDS = {"self": "kill -9 of the process itself", "lane": "kill -9 of a lane", "parent": "kill -9 of the parent",
         "both": "kill -9 of all processes", "server": "kill -9 of what lanes are copied from"}  # fmt: skip


@dataclass
class Row:
    """What one fault came to; ``lost`` says what was broken, '' where nothing was."""

    app: str
    where: str
    point: str
    kind: str
    landed: bool = False
    lost: str = ""


def main() -> None:
    """Torture, write down what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=100, help="kills at random times; default: %(default)s")
    parser.add_argument("--signals", type=int, default=30, help="signals at random times; default: %(default)s")
    parser.add_argument("--apps", nargs="+", choices=MAKERS, default=list(MAKERS), help="default: all")
    parser.add_argument("--points", nargs="*", help="only these; default: all")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--minutes", type=float, default=600, help="start no further sweep after so many")
    parser.add_argument("--out", type=Path, default=HERE / "torture.json", help="default: %(default)s")
    parser.add_argument("--page", type=Path, default=PAGE, help="default: %(default)s")
    given = parser.parse_args()
    started = time.monotonic()
    rows: list[Row] = []
    planned = [row for app in given.apps for row in named(app, given.points)]
    with tempfile.TemporaryDirectory(prefix="besom-torture-") as folder:
        for row in torture(Path(folder), given, started):
            rows.append(row)
            seconds = time.monotonic() - started
            print(f"{seconds:6.0f} s  {row.app:6} {row.point} {row.kind} {row.lost or 'survived'}", flush=True)
            write_down(
                rows, planned, seconds, given
            )  # each at once: a torture that is stopped has found something, too
    sys.exit(any(row.lost or not row.landed for row in rows))


def write_down(rows: Sequence[Row], planned: Sequence[Row], seconds: float, given: argparse.Namespace) -> None:
    """Write what was found so far, as JSON and as the page's table."""
    found = {**about_machine(), "seed": given.seed, "seconds": seconds, "rows": [asdict(row) for row in rows],
             "planned": [{"app": row.app, "point": row.point} for row in planned]}  # fmt: skip
    write_atomically(given.out, json.dumps(found, indent=1) + "\n")
    text = given.page.read_text("utf-8") if given.page.is_file() else ""
    given.page.write_text(replaced(text, NAME, section(found)), encoding="utf-8")


def torture(folder: Path, given: argparse.Namespace, started: float) -> Iterator[Row]:
    """Lay every fault; yield its row once its sweep was resumed and looked at."""
    draw = random.Random(given.seed)
    plans: list[tuple[str, list[Row]]] = []
    for app in given.apps:
        rows = named(app, given.points)
        first = [row for row in rows if row.point in AT_FIRST]
        plans += [(app, group) for kind in KINDS if (group := [row for row in first if row.kind == kind])]
        plans += [(app, group) for group in _in_groups([row for row in rows if row not in first])]
        if app == given.apps[0]:
            plans += [(app, group) for group in _in_groups(at_random(given, draw))]
    for number, (app, group) in enumerate(plans):
        if time.monotonic() - started > given.minutes * 60:
            return
        yield from struck(folder / str(number), app, group, draw)


def named(app: str, points: Sequence[str] | None) -> list[Row]:
    """Return every kind of fault at every point that an app comes to."""
    return [
        Row(app, where, point, kind)
        for where, of in PHASES.items()
        for point, kinds in of.items()
        for kind in kinds.split()
        if (app == "besom" or point not in OF_BESOM) and (not points or point in points)
    ]


def at_random(given: argparse.Namespace, draw: random.Random) -> list[Row]:
    """Return kills and signals at times that nobody chose, mixed."""
    kinds = [draw.choice(("lane", "parent", "both")) for _ in range(given.random)]
    kinds += [draw.choice(list(SIGNALS)) for _ in range(given.signals)]
    draw.shuffle(kinds)
    return [Row(given.apps[0], "at a random time", "random", kind) for kind in kinds]


def _in_groups(rows: list[Row]) -> Iterator[list[Row]]:
    yield from (rows[place : place + IN_A_ROW] for place in range(0, len(rows), IN_A_ROW))


MAKERS = {"besom": Bench.of_besom, "other": Bench.of_app}


def struck(folder: Path, app: str, group: Sequence[Row], draw: random.Random) -> Iterator[Row]:
    """Strike one sweep with each fault of a group, then resume it."""
    folder.mkdir()
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("BESOM", "HYDRA", "MLFLOW"))}
    bench = MAKERS[app](folder, {**kept, "NO_COLOR": "1", "HOME": str(folder)})
    try:
        for row in group:
            row.lost = _broken(partial(lay, bench, row, draw))
        if broken := _broken(partial(bench.whole, more=1)):
            for row in group:
                row.lost = row.lost or f"one of {len(group)} in a row: {broken}"
    finally:
        bench.end_all()
    yield from group


def _broken(call: Callable[[], None]) -> str:
    """Return what is broken after a call, '' where nothing is; a store that cannot even be read is, too."""
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:2000]}"
    return ""


def lay(bench: Bench, row: Row, draw: random.Random) -> None:
    """Lay one fault into a start of the sweep, and wait until nothing of it lives."""
    before = len(bench.landed)
    try:
        if row.point == "random":
            _at_random(bench, row, draw)
        elif row.where == "a sweep is deleted":
            _while_deleting(bench, row)
        else:
            if row.where == "a resume mends":
                _leave_something(bench, row.point)
            elif row.where == "MLflow is told what waited":
                _let_something_wait(bench)
            before = len(bench.landed)
            fault = f"{row.point}:{2 if row.point in SECOND else 1}:{row.kind}"
            with _mlflow(bench, is_away=row.where == "MLflow is away"):
                bench.struck(fault, *_copied(bench), more=2)
    finally:
        row.landed = row.landed or any(one["hit"] for one in bench.landed[before:])


def _leave_something(bench: Bench, point: str) -> None:
    """Leave a trial open that has no result, or one that has and of which the study was not told."""
    has_result = point.startswith("mending.")
    if has_result or not any(trial.state == "RUNNING" for trial in read_trials(bench.books)):
        bench.struck("settling:1:both" if has_result else "submitting:2:both", *_copied(bench))


def _let_something_wait(bench: Bench) -> None:
    with _mlflow(bench, is_away=True):
        start = bench.start(more=2)
        assert start.ended() == 0, start.output
    bench.settle("a start without MLflow")


@contextmanager
def _mlflow(bench: Bench, *, is_away: bool) -> Iterator[None]:
    """Let another program hold MLflow's database; where there is none yet, let a start make it before."""
    if not is_away:
        yield
        return
    assert bench.books.mlflow_db is not None
    if not bench.n_ended:
        bench.whole(more=1)
    with holding(bench.books.mlflow_db):
        yield


def _copied(bench: Bench) -> tuple[str, ...]:
    """Let somebody else's lanes be copies of one process, too, as besom's are."""
    return () if bench.books.mlflow_db else ("hydra.launcher.start_method=forkserver",)


def _while_deleting(bench: Bench, row: Row) -> None:
    bench.whole(more=1)
    bench.kept = {}  # what is deleted need not stay
    if row.point == "runs_deleted":
        bench.struck(f"{row.point}:1:self", command=(*bench.command[:3], "delete", "faults"))
    else:
        bench.struck(f"{row.point}:1:self", "--fresh")
    bench.kept = {}


def _at_random(bench: Bench, row: Row, draw: random.Random) -> None:
    """Strike a start at a time at which there is somebody to strike; sooner each time, but not before lanes live."""
    most = 16.0
    for _ in range(MOST_MISSES):
        if row.landed:
            return
        total = bench.n_ended + 3
        start = bench.start(more=3)
        with suppress(subprocess.TimeoutExpired):
            start.process.wait(draw.uniform(0.2, most))
        most = max(LANES_LIVE, most * 0.8)
        code = _struck_now(bench, start, row)
        if row.kind in SIGNALS:
            expected = {SIGNALS[row.kind], -signal.Signals[f"SIG{row.kind}"]}  # the last: before besom was there
        else:
            expected = {0 if row.kind == "lane" else -signal.SIGKILL}
        if bench.n_ended >= total:  # it had done what it had to
            expected.add(0)
        assert not row.landed or code in expected, f"exit code {code}\n{start.output}"
        bench.settle(f"{row.kind} at a random time")


def _struck_now(bench: Bench, start: Start, row: Row) -> int:
    """Kill or signal what a row is for, if it is there; return the exit code of the parent."""
    found = bench.processes(start)
    victims = {"lane": found["lanes"][:1], "both": [*found["lanes"], *found["server"]]}.get(row.kind, [])
    hit = 0
    for process in victims:
        with suppress(psutil.NoSuchProcess):
            process.kill()
            hit += 1
    if row.kind != "lane" and start.process.poll() is None:
        start.process.send_signal(signal.Signals[f"SIG{row.kind}"] if row.kind in SIGNALS else signal.SIGKILL)
        hit += 1
    row.landed = hit > 0
    return start.ended()


# The page


def section(found: Mapping[str, Any]) -> str:
    """Return the table of the page."""
    machine, besom, rows = found["machine"], found["besom"], found["rows"]
    n_landed, n_lost = (sum(bool(row[key]) for row in rows) for key in ("landed", "lost"))
    commit = (besom["commit"] or "no commit")[:10]
    about = (
        f"{n_landed} faults injected, {n_lost} lost, in {found['seconds'] / 60:.0f} minutes. {machine['cpu']}, "
        f"{machine['cores']} cores, {found['date'][:10]}; besom {besom['version']} at "
        f"`{commit}`{' with changes' if besom['changed'] else ''}. `make torture`, seed {found['seed']}"
    )
    missing = sorted({f"{row['app']}: {row['point']}" for row in found["planned"]}
                     - {f"{row['app']}: {row['point']}" for row in rows if row["landed"]})  # fmt: skip
    return "\n".join([about, *(["", f"Not struck: {', '.join(missing)}"] if missing else []), "", *table(rows)])


APPS = {"besom": "besom's own", "other": "somebody else's"}


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one row for each app, place and kind of fault."""
    lines = [["app", "where", "points", "fault", "injected", "survived", "lost"], ["---"] * 4 + ["---:"] * 3]
    for app, where, kind in dict.fromkeys((row["app"], row["where"], row["kind"]) for row in rows):
        of = [row for row in rows if (row["app"], row["where"], row["kind"]) == (app, where, kind)]
        points = ", ".join(dict.fromkeys(f"`{row['point']}`" for row in of)).replace("`random`", "any")
        n_landed, n_lost = (sum(bool(row[key]) for row in of) for key in ("landed", "lost"))
        n_survived = sum(row["landed"] and not row["lost"] for row in of)
        fault = KINDS.get(kind, f"SIG{kind} to the parent")
        lines.append([APPS[app], where, points, fault, *map(str, (n_landed, n_survived, n_lost))])
    return [f"| {' | '.join(line)} |" for line in lines]


if __name__ == "__main__":
    main()
