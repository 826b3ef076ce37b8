"""Every command with arguments that are missing, too many, of another type, or names that nobody should have.

Exit 2, one line, nothing created, a store left as it was; and every class of error has an input that raises it.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import BesomCommand
from hostile import contents
from stored import store_in, study_in, trial

import besom
import besom.app.cli
from besom import errors
from besom.app.cli import SUMMARIES
from besom.disk import explain
from besom.lock import parent_lock
from besom.paths import Store
from besom.reporting import TrialHandle, running
from besom.sweep.settings import refuse_changes

NAMED = ("status", "runs", "best", "report", "confirm", "delete", "predict", "reproduce", "ui")
"""Commands that take the name of a sweep."""
OPTIONAL = ("sweep", "train", "summary", "ui", "doctor", "repair", "relocate")
"""Commands that need no argument."""
NAMES = {
    "none": "",
    "a folder above": "../toy",
    "an absolute path": "/etc/passwd",
    "10,000 characters": "x" * 10_000,
    "a path of 10,000 characters": "x/" * 5_000,
    "two lines": "a\nb",
    "a terminal's colours": "a\x1b[31m",
    "NUL": "a\0b",
    "no UTF-8": "\udcff",
    "a trial that is negative": "toy/-1",
    "a trial beyond all": "toy/" + "9" * 5000,
    "a way around": "toy/../toy",
    "somebody else's home": "~nobody-of-this-name",
    "SQL": "' or 1=1 --",
    "a pattern": "%",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("BESOM_STORE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with a sweep 'toy' of two trials, one complete; nothing may change it."""
    made = store_in(tmp_path_factory.mktemp("kept"))
    study = study_in(made)
    study.add_trial(trial("complete", [0.5], {"model.activation": "relu"}, run_id="abc"))
    study.add_trial(trial("failed"))
    return made


@pytest.fixture
def store(kept: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """That store, in the working folder."""
    monkeypatch.chdir(kept.root.parent)
    return kept


def files(folder: Path) -> dict[str, Any]:
    """Return what is in a folder; of a database what it says, as SQLite may move that from its -wal at any time."""
    found: dict[str, Any] = {name: it for name, it in contents(folder).items() if not name.endswith(("-shm", "-wal"))}
    for name in found:
        if name.endswith("studies.db"):
            with closing(sqlite3.connect(folder / name)) as database:
                found[name] = "\n".join(database.iterdump())
    return found


def refused(capfd: pytest.CaptureFixture[str], folder: Path, *args: str) -> str:
    before = files(folder)
    code = besom.app.cli.run(list(args))
    out, err = capfd.readouterr()
    assert (code, out) == (2, ""), f"{args} → {code}, {out}{err}"
    [line] = err.splitlines()
    assert line.startswith("besom: ")
    assert line.isprintable()
    assert len(line) < errors.MOST_SHOWN + 100
    assert "Error: " not in line
    assert files(folder) == before
    return line


@pytest.mark.parametrize("what", NAMES)
def test_a_name_that_nobody_should_have_is_not_found_and_creates_nothing(
    what: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for command in NAMED if what in ("no UTF-8", "10,000 characters") else ("runs", "reproduce"):
        refused(capfd, folder, command, NAMES[what])
    for args in (["diff", NAMES[what], "toy"], ["export", NAMES[what], "out"], ["runs", "toy", "--store", NAMES[what]]):
        refused(capfd, folder, *args)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("what", ["none", "10,000 characters", "SQL"])
def test_a_name_that_nobody_should_have_leaves_a_store_as_it_was(
    what: str, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    for command in ("status", "report", "delete"):
        refused(capfd, store.root.parent, command, NAMES[what])


@pytest.mark.parametrize("command", SUMMARIES)
def test_wrong_arguments_are_one_line(command: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert f"see 'besom {command} --help'" in refused(capfd, folder, command, "--nope")
    assert f"see 'besom {command} --help'" in refused(capfd, folder, command, f"--{'x' * 10_000}")
    if command not in OPTIONAL:
        assert "required: " in refused(capfd, folder, command)
    if command not in ("sweep", "train", "summary"):
        assert "unrecognized arguments: " in refused(capfd, folder, command, "a", "b", "c", "d")
    if command not in ("train", "ui", "delete"):
        assert "invalid choice: 'xml'" in refused(capfd, folder, command, "a", "--format", "xml")


NUMBERS = ("-1", "abc", "", "1e400", "nan", "1.5", "9" * 5000)
WHOLE = {
    "status": ["--watch"],
    "runs": ["--limit"],
    "confirm": ["--top", "--seeds", "--jobs"],
    "reproduce": ["--jobs", "--threads"],
    "ui": ["--port"],
}


@pytest.mark.service
@pytest.mark.parametrize(("command", "flag"), [(command, flag) for command, flags in WHOLE.items() for flag in flags])
def test_a_number_that_is_none_is_one_line(
    command: str, flag: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in NUMBERS:
        if (flag, number) != ("--watch", "1.5"):
            refused(capfd, folder, command, "toy", f"{flag}={number}")


@pytest.mark.service
@pytest.mark.parametrize("flag", ["--trials", "--seed", "--timeout"])
def test_a_number_of_a_sweep_that_is_none_is_one_line(
    flag: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in ("-1", "9" * 5000):
        refused(capfd, folder, "sweep", "quick", "--dry-run", f"{flag}={number}")


COLUMNS = ("nope", "", ",", "objective,", "x" * 10_000, "a\0b")
FILTERS = (*COLUMNS, "objective==", "<", "n_params<=", "objective~1", "nope=1", "'", "1<2")


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        *(("--sort", one) for one in COLUMNS),
        *(("--columns", one) for one in COLUMNS if one),
        *(("--filter", one) for one in FILTERS),
    ],
)
def test_a_column_or_filter_that_is_none_is_one_line(
    flag: str, value: str, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    refused(capfd, store.root.parent, "runs", "toy", f"{flag}={value}")


@pytest.mark.parametrize(
    "name", [NAMES[what] for what in ("a folder above", "two lines", "no UTF-8", "NUL", "10,000 characters")]
)
def test_a_sweep_cannot_be_called_so(name: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    line = refused(capfd, folder, "sweep", "quick", f"--name={name}")
    assert "sweep name" in line or "is no UTF-8 text" in line


OVERRIDES = {
    "a number of 5,000 digits": "train.epochs=" + "9" * 5000,
    "brackets ten thousand deep": "train.epochs=" + "[" * 10_000 + "]" * 10_000,
    "a megabyte": "train.epochs=" + "1" * 1_000_000,
    "NUL": "train.epochs=a\0b",
    "of Hydra, ten thousand deep": "hydra.sweeper.params={a:" + "[" * 10_000 + "]" * 10_000 + "}",
    "no key": "=1",
    "no value": "train.epochs",
    "a circle": "train.epochs='${train.epochs}'",
    "an interpolation to nowhere": "hydra.sweeper.n_trials='${nope}'",
    "an interpolation of another type": "hydra.sweeper.n_trials='${hydra.sweeper.study_name}'",
    "a value that is missing": "hydra.sweeper.direction=???",
    "a sampler that is a number": "hydra.sweeper.sampler=7",
    "a point that is a number": "hydra.sweeper.enqueue=[1]",
    "a seed that is a word": "hydra.sweeper.sampler.seed=abc",
    "no threads": "train.threads=0",
    "layers that are a word": "model.conv=abc",
    "a builder that is no name": "model._target_=nan",
    "a store that is no name": "paths.store=''",
    "a store with a NUL": 'paths.store="a\0b"',
    "a store with two lines": "paths.store='a\nb'",
}


@pytest.mark.parametrize("what", OVERRIDES)
def test_an_override_that_cannot_be_is_one_line_which_names_it(
    what: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line = refused(capfd, folder, "sweep", "quick", "--dry-run", OVERRIDES[what])
    assert "expected" in line
    key = OVERRIDES[what].split("=")[0].removeprefix("hydra.sweeper.")
    assert key in line, line


def test_the_real_command_says_so_too(project: Path, besom_command: BesomCommand) -> None:
    done = besom_command("runs", "../../etc/passwd\x1b[31m", cwd=project)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("besom: no store at ")
    assert len(done.stderr.splitlines()) == 1
    assert not list(project.iterdir())


# every class of error, by the command or function that raises it, with the words of its message

Ended = tuple[int, str]
"""An exit code and what was said on stderr."""


@dataclass(frozen=True)
class Provoked:
    """Where an error is provoked: in a folder of its own."""

    folder: Path
    capfd: pytest.CaptureFixture[str]
    besom_command: BesomCommand

    def command(self, *args: str) -> Ended:
        code = besom.app.cli.run(list(args))
        return code, self.capfd.readouterr().err

    def store(self) -> Store:
        made = store_in(self.folder)
        study_in(made).add_trial(trial("complete", [0.5]))
        return made

    def call(self, function: Callable[[], object]) -> Ended:
        """Call what a sweep itself takes care of, so that no command ends with it."""
        with pytest.raises(errors.BesomError) as raised:
            function()
        return raised.value.exit_code, f"besom: {errors.shown(raised.value)}\n"


def locked_sweep(here: Provoked) -> Ended:
    with parent_lock(here.store().lock("toy"), "toy"):
        return here.command("delete", "toy")


def damaged(here: Provoked) -> Ended:
    store_in(here.folder).studies_db.write_bytes(b"hello, I am no database")
    return here.command("runs", "toy")


def read_only(here: Provoked) -> Ended:
    return here.call(lambda: throw(explain(OSError(errno.EROFS, os.strerror(errno.EROFS), "/store/x"))))


def full(here: Provoked) -> Ended:
    def write() -> None:
        try:
            Path("/dev/full").write_text("x")
        except OSError as error:
            throw(explain(error, places=[here.folder]))

    return here.call(write)


def busy(here: Provoked) -> Ended:
    def read(database: sqlite3.Connection) -> None:
        try:
            database.execute("begin immediate")
        except sqlite3.Error as error:
            throw(explain(error, "studies.db"))

    file = str(here.folder / "studies.db")
    with closing(sqlite3.connect(file)) as one, closing(sqlite3.connect(file, timeout=0)) as other:
        one.execute("begin exclusive")
        return here.call(lambda: read(other))


def throw(error: errors.BesomError | None) -> None:
    assert error is not None
    raise error


def pruned(here: Provoked) -> Ended:
    def report() -> None:
        with running(TrialHandle(0, None, lambda step, value: True)):
            besom.report(3, 0.25)

    return here.call(report)


def stopped(here: Provoked) -> Ended:
    lines = (
        "import hydra",
        "@hydra.main(version_base='1.3')",
        "def app(config):",
        "    raise ValueError('no')",
        "app()",
    )
    (here.folder / "app.py").write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        [sys.executable, "app.py", "-m", "hydra/sweeper=besom", "+x=1,2"],
        cwd=here.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    return done.returncode, done.stderr.strip().splitlines()[-1] + "\n"


def non_finite(here: Provoked) -> Ended:
    small = ("train.epochs=1", "data.n_train=100", "data.n_val=50", "train.optimizer=sgd", "train.learning_rate=1e30")
    done = here.besom_command("train", *small, cwd=here.folder, timeout=240)
    return done.returncode, done.stderr.strip().splitlines()[-1] + "\n"


PROVOKED: dict[type[errors.BesomError], tuple[Callable[[Provoked], Ended], int, tuple[str, ...]]] = {
    errors.ConfigError: (
        lambda here: here.command("summary", "model.activatoin=relu"),
        2,
        ("'model.activatoin=relu' cannot be used: ", "did you mean 'model.activation'?"),
    ),
    errors.GeometryError: (
        lambda here: here.command("summary", "model.conv.0.kernel_size=29"),
        2,
        ("model.conv.0.kernel_size=29 does not fit the 28", "expected at most 28, or "),
    ),
    errors.DataError: (
        lambda here: here.command("sweep", "quick", "data=npz", "data.path=nope.npz"),
        2,
        ("there is no file 'nope.npz' (looked in ", "expected an npz file"),
    ),
    errors.SpaceError: (
        lambda here: here.command("sweep", "quick", "train.seed=range(5,1)"),
        2,
        ("cannot search over train.seed='range(5,1)': the range is empty", "expected choice(a,b), or "),
    ),
    errors.ResumeError: (
        lambda here: here.call(lambda: refuse_changes("toy", {"train.epochs": 2}, {"train.epochs": 3})),
        2,
        ("sweep 'toy' was started with other settings: train.epochs: was 2, is 3", "Put them back to resume it, or "),
    ),
    errors.SweepLocked: (locked_sweep, 2, ("sweep 'toy' is being run by ", f"{os.getpid()}", "wait for it, stop it ")),
    errors.StoreDamaged: (
        damaged,
        2,
        ("studies.db is no SQLite database: it begins with b'hello, I am no d'", "put it back from a copy"),
    ),
    errors.StoreReadOnly: (read_only, 2, ("/store/x cannot be written: Read-only file system",)),
    errors.NotFound: (
        lambda here: (here.store(), here.command("runs", "tyo"))[1],
        2,
        ("no sweep 'tyo' in ", "there is toy; did you mean 'toy'?"),
    ),
    errors.NonFinite: (
        non_finite,
        1,
        ("train_loss became ", "in epoch 0", "expected a finite number: try a train.learning_rate below 1e+30"),
    ),
    errors.TrialPruned: (pruned, 1, ("pruned at step 3 with 0.25",)),
    errors.DiskFull: (full, 1, ("make room, then the same command goes on",)),
    errors.StoreBusy: (busy, 1, ("studies.db is locked by another program; end it, then the same command goes on",)),
    errors.SweepStopped: (
        stopped,
        1,
        ("1 of 1 trials failed, more than hydra.sweeper.max_failure_rate=0.0 allows; the last: ValueError: no",),
    ),
}
"""For each class of error: what provokes it, the exit code, and what its message says: received, expected, mend."""
SLOW = (errors.NonFinite,)
"""Provoked by a training."""


def leaves(above: type[errors.BesomError]) -> Iterator[type[errors.BesomError]]:
    below = [one for one in above.__subclasses__() if one.__module__ == errors.__name__]
    yield from [above] if not below else (leaf for one in below for leaf in leaves(one))


def test_every_class_of_error_has_an_input_that_raises_it() -> None:
    assert set(leaves(errors.BesomError)) == set(PROVOKED)
    assert set(SLOW) <= set(PROVOKED)


@pytest.mark.parametrize(
    "error",
    [pytest.param(one, marks=[pytest.mark.service] if one in SLOW else [], id=one.__name__) for one in PROVOKED],
)
def test_an_error_says_what_was_received_what_was_expected_and_how_to_mend_it(
    error: type[errors.BesomError], folder: Path, capfd: pytest.CaptureFixture[str], besom_command: BesomCommand
) -> None:
    provoke, exit_code, words = PROVOKED[error]
    code, said = provoke(Provoked(folder, capfd, besom_command))
    assert (code, len(said.splitlines())) == (exit_code, 1), said
    assert error.exit_code == exit_code
    for one in words:
        assert one in said
