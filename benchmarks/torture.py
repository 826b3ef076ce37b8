"""Proves the promise of `kill -9`: lays faults into real sweeps by the hundred and counts what was lost.

    python benchmarks/torture.py                       everything; about 50 minutes on 2 cores; docs/reliability.md
    python benchmarks/torture.py --random 10 --signals 5 --apps other --out found.json --page found.md

Every named point of ``tests/faults/injector`` with every kind of fault that can land there, in besom's own app and in
somebody else's; then kills and signals at random times, of a seed. A sweep is struck several times in a row, then
resumed and held against ``tests/faults/invariants.py``: a fault counts as survived when both said nothing. Ends with
exit code 1 where a fault was not survived or did not land.
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from machine import about_machine
from page import replaced

from besom.paths import write_atomically

HERE = Path(__file__).resolve().parent
FAULTS = HERE.parent / "tests" / "faults"
sys.path[:0] = [str(FAULTS), str(FAULTS / "injector")]

from harness import Bench, Start  # noqa: E402  # lies beside the tests
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
    "a resume mends": dict.fromkeys(("mending", "mended_study", "mended_run"), "self both"),
    "a trial is asked for": dict.fromkeys(("asking", "asked"), "self lane both server"),
    "a trial's run is made": dict.fromkeys(("run_made", "run_noted", "submitting"), "self lane both server"),
    "a lane trains": dict.fromkeys(("taken", "reported", "result_next"), "self parent both"),
    "a lane writes the result": dict.fromkeys(("result_drafted", "result_written"), "self parent both"),
    "the study is told": dict.fromkeys(("settling", "telling", "told"), "self lane both"),
    "the run is ended": dict.fromkeys(("run_ended", "results_drafted"), "self lane both"),
    "a sweep closes": {"closing": "self both", "closed": "self", "drawing": "self", "crowning": "self"},
    "a sweep is deleted": {"runs_deleted": "self", "study_next": "self"},
}
"""Where → point → whom a kill there is for."""
OF_BESOM = {"store_filled", "store_renamed", "snapshot_copied", "snapshot_made", "images_shared", "run_made",
            "books_opened", "run_ended", "drawing", "crowning", "runs_deleted", "study_next", "mended_run"}  # fmt: skip
"""Points that somebody else's app does not come to: it has no store and no MLflow."""
AT_FIRST = {"store_filled", "store_renamed", "snapshot_copied", "snapshot_made"}
"""Points that only the first start of a sweep comes to; in the order in which it does, none gets any further."""
SECOND = {"study_made", "asking", "asked", "run_made", "run_noted", "submitting", "taken", "reported"}
"""Points that are struck at the second time, so that something is there to lose."""
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
    with tempfile.TemporaryDirectory(prefix="besom-torture-") as folder:
        for row in torture(Path(folder), given, started):
            rows.append(row)
            seconds = time.monotonic() - started
            print(f"{seconds:6.0f} s  {row.app:6} {row.point} {row.kind} {row.lost or 'survived'}", flush=True)
            write_down(rows, seconds, given)  # each at once: a torture that is stopped has found something, too
    sys.exit(any(row.lost or not row.landed for row in rows))


def write_down(rows: Sequence[Row], seconds: float, given: argparse.Namespace) -> None:
    """Write what was found so far, as JSON and as the page's table."""
    found = {**about_machine(), "seed": given.seed, "seconds": seconds, "rows": [asdict(row) for row in rows]}
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
    """Strike one sweep with each fault of a group, then resume it; what is broken counts against the last fault."""
    folder.mkdir()
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("BESOM", "HYDRA", "MLFLOW"))}
    bench = MAKERS[app](folder, {**kept, "NO_COLOR": "1", "HOME": str(folder)})
    try:
        for place, row in enumerate(group):
            try:
                lay(bench, row, draw)
                if place == len(group) - 1:
                    bench.whole(more=1)
            except AssertionError as error:
                row.lost = " ".join(str(error).split())[:2000] or "an assertion"
            yield row
    finally:
        bench.end_all()


def lay(bench: Bench, row: Row, draw: random.Random) -> None:
    """Lay one fault into a start of the sweep, and wait until nothing of it lives."""
    if row.point == "random":
        _at_random(bench, row, draw)
        return
    if row.where == "a resume mends" and not any(trial.state == "RUNNING" for trial in read_trials(bench.books)):
        bench.struck("submitting:2:both")
    if row.where == "a sweep is deleted":
        _while_deleting(bench, row)
        return
    fault = f"{row.point}:{2 if row.point in SECOND else 1}:{row.kind}"
    landed = bench.struck(fault, *_copied(bench), more=2)
    row.landed = bool(landed and landed[0]["hit"])


def _copied(bench: Bench) -> tuple[str, ...]:
    """Let somebody else's lanes be copies of one process, too, as besom's are."""
    return () if bench.books.mlflow_db else ("hydra.launcher.start_method=forkserver",)


def _while_deleting(bench: Bench, row: Row) -> None:
    bench.whole(more=1)
    bench.kept = {}  # what is deleted need not stay
    if row.point == "runs_deleted":
        landed = bench.struck(f"{row.point}:1:self", command=(*bench.command[:3], "delete", "faults"))
    else:
        landed = bench.struck(f"{row.point}:1:self", "--fresh")
    row.landed, bench.kept = bool(landed), {}


def _at_random(bench: Bench, row: Row, draw: random.Random) -> None:
    """Strike a start at a time at which it lives."""
    most = 16.0
    while not row.landed:
        start = bench.start(more=3)
        with suppress(subprocess.TimeoutExpired):
            start.process.wait(draw.uniform(0.2, most))
        row.landed, most = start.process.poll() is None, most * 0.8
    if row.kind in SIGNALS:
        start.process.send_signal(signal.Signals[f"SIG{row.kind}"])
        code = start.ended()
        expected = (0, SIGNALS[row.kind], -signal.Signals[f"SIG{row.kind}"])  # the last: before besom was there
        assert code in expected, f"exit code {code}\n{start.output}"
    else:
        _kill(bench, start, row.kind)
        code = start.ended()
        assert code in (0, -signal.SIGKILL), f"exit code {code}\n{start.output}"
    bench.settle(f"{row.kind} at a random time")


def _kill(bench: Bench, start: Start, kind: str) -> None:
    found = bench.processes(start)
    victims = found["lanes"][:1] if kind == "lane" else []
    if kind == "both":
        victims = [*found["lanes"], *found["server"]]
    for process in victims:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    if kind != "lane":
        start.process.kill()


# The page


def section(found: Mapping[str, Any]) -> str:
    """Return the table of the page."""
    machine, besom, rows = found["machine"], found["besom"], found["rows"]
    n_lost = sum(bool(row["lost"]) for row in rows)
    about = (
        f"{len(rows)} faults, {n_lost} of them not survived, in {found['seconds'] / 60:.0f} minutes. {machine['cpu']}, "
        f"{machine['cores']} cores, {found['date'][:10]}; besom {besom['version']} at "
        f"`{(besom['commit'] or 'no commit')[:10]}`. `make torture`, seed {found['seed']}"
    )
    return "\n".join([about, "", *table(rows)])


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one row for each place and kind of fault."""
    lines = [["where", "points", "fault", "injected", "survived", "lost"], ["---"] * 3 + ["---:"] * 3]
    for where, kind in dict.fromkeys((row["where"], row["kind"]) for row in rows):
        of = [row for row in rows if (row["where"], row["kind"]) == (where, kind)]
        points = ", ".join(dict.fromkeys(f"`{row['point']}`" for row in of)).replace("`random`", "any")
        landed = [row for row in of if row["landed"]]
        lost = sum(bool(row["lost"]) for row in landed)
        fault = KINDS.get(kind, f"SIG{kind} to the parent")
        lines.append([where, points, fault, str(len(landed)), str(len(landed) - lost), str(lost)])
    return [f"| {' | '.join(line)} |" for line in lines]


if __name__ == "__main__":
    main()
