"""studies.db, locked by another program: who writes waits and says so, who reads waits briefly, and nothing is lost."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import optuna
import pytest
from harness import Bench, holding
from stored import store_in, study_in, trial

import besom.app.cli
from besom.databases import PatientConnection, ReadingConnection, WritingConnection
from besom.errors import StoreBusy
from besom.paths import Store
from besom.storage import load_study, open_storage

Hold = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Return ``hold(file, seconds, what)``, which returns once another process holds the lock."""
    with ExitStack() as holders:

        def start(file: Path, seconds: float, what: str = "writing") -> subprocess.Popen[str]:
            return holders.enter_context(holding(file, seconds, what))

        yield start


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = store_in(tmp_path)
    storage = open_storage(made.studies_uri)
    study = optuna.create_study(storage=storage, study_name="toy", direction="maximize")
    study.add_trial(trial("complete", [0.5]))
    storage.engine.dispose()  # who is to lock everything must be alone
    return made


def test_a_writer_waits_for_a_locked_file_says_so_once_and_then_writes(
    store: Store, hold: Hold, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_in(store, "mine")
    since = time.monotonic()
    hold(store.studies_db, 6)
    study.set_user_attr("n_trials", 3)
    assert 6 < time.monotonic() - since < 30
    assert capsys.readouterr().err == (
        f"besom: {store.studies_db} is locked by another program; waiting up to 60 s for it\n"
    )
    assert load_study(store.studies_uri, "mine").user_attrs["n_trials"] == 3


def test_a_lock_of_a_moment_is_not_told(store: Store, hold: Hold, capsys: pytest.CaptureFixture[str]) -> None:
    hold(store.studies_db, 1)
    study_in(store, "mine").set_user_attr("n_trials", 3)
    assert capsys.readouterr().err == ""


def test_a_writer_gives_up_at_its_bound_names_the_file_and_does_not_wait_again(
    store: Store, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WritingConnection, "seconds", 2.0)
    study = study_in(store, "mine")
    holder = hold(store.studies_db, 60)
    said = (
        rf"^{store.studies_db} has been locked by another program for [23] s; nothing"  # a turn more on a busy machine
    )
    with pytest.raises(StoreBusy, match=said):
        study.set_user_attr("n_trials", 3)
    since = time.monotonic()
    with pytest.raises(StoreBusy, match=r"locked by another program for [345] s"):  # in all
        study.set_user_attr("n_trials", 3)
    assert time.monotonic() - since < 1.9
    holder.kill()
    holder.wait()
    study.set_user_attr("n_trials", 4)
    assert load_study(store.studies_uri, "mine").user_attrs["n_trials"] == 4


def test_a_storage_that_is_locked_while_it_is_opened_is_waited_for(store: Store, hold: Hold) -> None:
    hold(store.studies_db, 2, "everything")
    since = time.monotonic()
    assert [study.study_name for study in open_storage(store.studies_uri).get_all_studies()] == ["toy"]
    assert time.monotonic() - since > 1


def test_readers_do_not_wait_for_who_only_writes(store: Store, hold: Hold, capsys: pytest.CaptureFixture[str]) -> None:
    holder = hold(store.studies_db, 60)
    since = time.monotonic()
    for command in ("status", "runs", "best"):
        assert besom.app.cli.run([command, "toy", "--store", str(store.root)]) == 0
    assert time.monotonic() - since < 8
    assert capsys.readouterr().err == ""
    assert holder.poll() is None, "it was held all the time"


def test_readers_wait_briefly_for_who_locks_everything_and_then_say_so(
    store: Store, hold: Hold, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ReadingConnection.seconds == PatientConnection.seconds == 10
    monkeypatch.setattr(PatientConnection, "seconds", 2.0)
    holder = hold(store.studies_db, 60, "everything")
    for command in ("status", "runs", "best"):
        assert besom.app.cli.run([command, "toy", "--store", str(store.root)]) == 1
        *told, last = capsys.readouterr().err.splitlines()
        assert len(told) <= 1
        assert re.search(rf"^besom: {store.studies_db} has been locked by another program for [23] s", last)
    assert holder.poll() is None, "it was held all the time"


@pytest.mark.service
@pytest.mark.timeout(1800)
def test_a_sweep_waits_for_a_locked_studies_db_at_its_start_and_between_its_trials(besoms: Bench, hold: Hold) -> None:
    file = besoms.books.study_db
    besoms.whole()
    command = (*besoms.command, besoms.trials.format(besoms.n_ended + 6))
    at_start, told = hold(file, 300, "everything"), "is locked by another program; waiting up to 60 s for it"
    start = besoms.start(command=command)
    besoms.until(lambda: start.said(f"besom: {file} {told}"), start)
    ended = besoms.n_results
    at_start.kill()
    besoms.until(lambda: besoms.n_results > ended, start)
    between = hold(file, 300)
    besoms.until(lambda: start.output.count(told) == 2, start)
    between.kill()
    assert start.ended() == 0, start.output
    assert start.output.count(told) == 2
    besoms.settle("locks")
    besoms.whole()


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_a_sweep_that_waited_in_vain_ends_and_goes_on_later(besoms: Bench, hold: Hold) -> None:
    file = besoms.books.study_db
    besoms.whole()
    for seconds, code in ((3, 0), (30, 0), (200, 1)):
        start, n = besoms.start(more=6), besoms.n_results
        besoms.until(lambda start=start, n=n: besoms.n_results > n, start)
        holder = hold(file, seconds)
        assert start.ended() == code, start.output
        if code:
            assert holder.poll() is None, "it was held to the end"
            assert f"{file} has been locked by another program for 6" in start.output
            assert "Traceback" not in start.output
            holder.kill()
            holder.wait()
        besoms.settle(f"{seconds} s")
    besoms.whole()
