"""SIGINT, SIGTERM and SIGHUP end a sweep the same way, whenever they come: what ran is closed, and it goes on later.

After each the store is held against the invariants at once, before any resume: a signal, unlike a kill, is answered.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing

import pytest
from harness import Bench, Start
from invariants import broken, read_trials

pytestmark = [pytest.mark.service, pytest.mark.timeout(1800)]

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
EACH = pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)


def is_training(bench: Bench) -> bool:
    """Tell whether some trial runs that a lane has taken."""
    with closing(sqlite3.connect(f"file:{bench.books.study_db}?mode=ro", uri=True)) as db:
        query = "select count(*) from trial_intermediate_values join trials using (trial_id) where state = 'RUNNING'"
        (n,) = db.execute(query).fetchone()
    return bool(n)


def trains(bench: Bench, start: Start) -> None:
    bench.until(lambda: bench.books.study_db.is_file() and is_training_or_not_yet(bench), start)


def is_training_or_not_yet(bench: Bench) -> bool:
    try:
        return is_training(bench)
    except sqlite3.OperationalError:  # the database is being made
        return False


def is_answered(bench: Bench, start: Start, code: int) -> None:
    """The sweep ended with the code, and has left nothing that a resume would have to mend."""
    assert start.ended() == code, start.output
    assert "interrupted" in start.output
    bench.wait_for_nobody("after the signal", seconds=20)
    found = broken(bench.books, before=bench.kept, mark=bench.mark, tmp=bench.tmp)
    assert not found, "\n".join(found)


@EACH
def test_each_signal_ends_a_sweep_in_its_middle_and_it_goes_on_later(app: Bench, number: signal.Signals) -> None:
    start = app.start(more=4, seconds=5)
    trains(app, start)
    start.process.send_signal(number)
    is_answered(app, start, CODES[number])
    outcomes = {trial.outcome for trial in read_trials(app.books)}
    assert "interrupted" in outcomes
    app.whole(more=2)


def test_each_signal_ends_besoms_own_sweep_and_no_run_stays_open(besoms: Bench) -> None:
    for number, code in CODES.items():
        start = besoms.start(more=6)
        trains(besoms, start)
        start.process.send_signal(number)
        is_answered(besoms, start, code)
    besoms.whole(more=1)


def test_a_closed_terminal_and_a_stopped_container_reach_the_whole_group_and_all_ends_well(app: Bench) -> None:
    for number in (signal.SIGHUP, signal.SIGTERM):
        start = app.start("hydra.launcher.start_method=forkserver", more=4, seconds=5)
        trains(app, start)
        os.killpg(start.process.pid, number)
        is_answered(app, start, CODES[number])
    app.whole("hydra.launcher.start_method=forkserver")


AT = ("study_made:1", "owner_marked:1", "mending:1", "submitting:1", "telling:1", "closing:1", "closed:1")


def test_a_signal_is_answered_at_start_up_at_resume_and_while_closing(app: Bench) -> None:
    app.struck("asked:2:both")  # so that there is something to mend
    for place, point in enumerate(AT):
        number = list(CODES)[place % 3]
        start = app.start(faults=f"{point}:parent.{number.name[3:]}", more=2)
        is_answered_or_mended_next(app, start, CODES[number])
        assert [one["point"] for one in start.landed] == [point.partition(":")[0]]
    app.whole()


def is_answered_or_mended_next(bench: Bench, start: Start, code: int) -> None:
    """As `is_answered`, but a trial of an earlier start may be open still: this start did not come to mend it."""
    assert start.ended() == code, start.output
    bench.wait_for_nobody("after the signal", seconds=20)
    found = broken(bench.books, before=bench.kept, mark=bench.mark, tmp=bench.tmp)
    assert all("is RUNNING in the study" in one for one in found), "\n".join(found)


TWICE = (("INT", "INT", 130), ("TERM", "TERM", 143), ("TERM", "HUP", 143), ("TERM", "INT", 143), ("HUP", "INT", 129))


def test_a_second_signal_costs_nothing_that_had_ended(app: Bench) -> None:
    for place, (first, second, code) in enumerate(TWICE):
        faults = f"submitting:2:parent.{first},{('telling', 'closing')[place % 2]}:1:parent.{second}"
        start = app.start(faults=faults, more=4, seconds=0.2)
        assert start.ended() == code, start.output
        assert [one["whom"] for one in start.landed] == [f"parent.{first}", f"parent.{second}"]
        app.settle(faults)
    app.whole()


def test_a_second_term_does_not_keep_a_sweep_from_closing_what_runs(app: Bench) -> None:
    start = app.start(more=4, seconds=5)
    trains(app, start)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):
        start.process.send_signal(number)
    assert start.ended() in (143, 129), start.output  # of several that are pending the lowest is handled first
    app.wait_for_nobody("after the signals", seconds=20)
    found = broken(app.books, before=app.kept, mark=app.mark, tmp=app.tmp)
    assert not found, "\n".join(found)


def test_nohup_keeps_a_sweep_from_a_closed_terminal(app: Bench) -> None:
    start = app.start(seconds=0.5, command=("nohup", *app.command, app.trials.format(2)))
    trains(app, start)
    start.process.send_signal(signal.SIGHUP)
    assert start.ended() == 0, start.output
    app.whole()


def open_runs(bench: Bench, kind: str) -> list[str]:
    """Return the status of each run of a kind."""
    assert bench.books.mlflow_db is not None
    with closing(sqlite3.connect(f"file:{bench.books.mlflow_db}?mode=ro", uri=True)) as db:
        query = "select status from runs join tags using (run_uuid) where key = ? and value = ?"
        if kind == "train":
            return [status for (status,) in db.execute("select status from runs where name like 'train-%'")]
        return [status for (status,) in db.execute(query, ("kind", kind))]


def test_train_reproduce_and_confirm_leave_no_run_open(besoms: Bench) -> None:
    besoms.whole(more=2)
    besom = besoms.command[:3]
    small = ("data=mnist_5k", "data.n_train=300", "train.epochs=500")
    commands = {
        "train": (*besom, "train", *small),
        "reproduction": (*besom, "reproduce", "faults"),
        "confirmation": (*besom, "confirm", "faults", "--top", "1", "--seeds", "2"),
    }
    for (kind, command), (number, code) in zip(commands.items(), list(CODES.items())[::-1], strict=True):
        start = besoms.start(command=command)
        besoms.until(lambda kind=kind: "RUNNING" in open_runs(besoms, kind), start)
        start.process.send_signal(number)
        assert start.ended() == code, start.output
        besoms.wait_for_nobody(kind, seconds=20)
        assert set(open_runs(besoms, kind)) == {"KILLED"}, kind
    besoms.whole(more=0)
