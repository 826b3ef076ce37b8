"""`kill -9` of a lane and of the parent in a real sweep: nothing finished is lost, nothing stays RUNNING anywhere."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import psutil
from conftest import BesomCommand, all_gone, lanes_of, until

SWEEP = ("sweep", "quick", "--trials", "6", "train.epochs=2", "data.n_train=300")


def finished(folder: Path) -> dict[str, str]:
    """Return the text of each ``result.json``, by trial."""
    return {path.parent.name: path.read_text() for path in folder.glob("mlruns/jobs/quick/*/result.json")}


def started(folder: Path) -> int:
    """Return how many trials the study has, ended or not."""
    with sqlite3.connect(folder / "mlruns" / "studies.db") as database:
        (count,) = database.execute("select count(*) from trials").fetchone()
    return int(count)


def test_a_killed_lane_and_a_killed_parent_cost_no_finished_trial_and_leave_nothing_running(
    project: Path, besom_command: BesomCommand, clean_environment: dict[str, str]
) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "besom", *SWEEP], cwd=project, env=clean_environment, stdout=subprocess.PIPE, text=True
    ) as parent:
        until(lambda: len(finished(project)) >= 1, seconds=120)
        lanes_of(parent.pid)[0].kill()
        until(lambda: started(project) > len(finished(project)) >= 2, seconds=120)  # so that there is something to lose
        children = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
    until(lambda: all_gone(children), seconds=120)
    before = finished(project)
    again = besom_command(*SWEEP, cwd=project, timeout=240)
    assert again.returncode == 0, again.stderr

    rows = json.loads(besom_command("runs", "quick", "--format", "json", cwd=project).stdout)["trials"]
    assert [row["state"] for row in rows] == ["COMPLETE"] * 6
    assert len({tuple(value for key, value in row.items() if key.startswith("model.")) for row in rows}) == 6
    assert before.items() <= finished(project).items()

    with sqlite3.connect(project / "mlruns" / "mlflow.db") as database:
        states = dict(database.execute("select status, count(*) from runs group by status"))
        by_state = dict(database.execute("select value, count(*) from tags where key = 'state' group by value"))
        lost = database.execute("select count(*) from tags where key = 'retry_of'").fetchone()
    with sqlite3.connect(project / "mlruns" / "studies.db") as database:
        trials = dict(database.execute("select state, count(*) from trials group by state"))
    assert set(states) <= {"FINISHED", "KILLED"}
    assert states["FINISHED"] == 7  # six trials and their parent
    assert set(trials) <= {"COMPLETE", "FAIL"}
    assert by_state["COMPLETE"] == trials["COMPLETE"] == 6
    assert by_state.get("FAIL", 0) == states.get("KILLED", 0)
    assert lost[0] >= 1, (states, trials, by_state)
