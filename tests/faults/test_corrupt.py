"""Damaged files in a store: every command says which one in one line, and leaves it and all others as they are.

The store is written by besom's own writers; nothing in it was trained. Each damage is laid into a copy of its own,
because MLflow keeps a database open by its path. Every command on every damage is a service test.
"""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import BesomCommand
from harness import Bench
from small_store import copied, small_store

import besom.app.cli
from besom.databases import fold_in
from besom.paths import Store
from besom.results import TrialResult

SWEEP = ("sweep", "quick", "--trials", "3", "data.n_train=200", "train.epochs=1")
STUDY_READERS = (("status", "quick"), ("runs", "quick"), ("best", "quick"))
BOTH_READERS = (
    *(("diff", "quick/0", "quick/1"), ("predict", "quick"), ("reproduce", "quick"), ("reproduce", "quick", "--all")),
    *(("export", "quick", "exported"), ("report", "quick", "--output", "page.html"), ("confirm", "quick")),
)
WRITERS = (("delete", "quick", "--yes"), SWEEP)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return small_store(tmp_path_factory.mktemp("made") / "mlruns")


@pytest.fixture
def store(made: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A copy of that, in the folder that commands run in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BESOM_STORE", raising=False)
    return copied(made, tmp_path / "mlruns")


@pytest.fixture(autouse=True)
def _quiet_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))  # a command makes its project importable


Damage = Callable[[Path], None]


def half(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def no_header(file: Path) -> None:
    file.write_bytes(bytes(100) + file.read_bytes()[100:])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def text(file: Path) -> None:
    file.write_text("this is a text\n" * 999)


def pages(file: Path) -> None:
    """Overwrite every second page but the first."""
    content, page = bytearray(file.read_bytes()), 4096
    for start in range(page, len(content), 2 * page):
        content[start : start + page] = random.Random(start).randbytes(page)
    file.write_bytes(content)


def of_another_program(file: Path) -> None:
    file.unlink()
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("create table bookmarks (url)")


def of_another_version(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("update alembic_version set version_num = 'of 2031'")
    fold_in(file)


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def a_link_to_nothing(file: Path) -> None:
    file.unlink()
    file.symlink_to("unmounted/elsewhere.db")


DATABASE = {
    half: "cannot be read: database disk image is malformed",
    no_header: "is no SQLite database: it begins with",
    text: "is no SQLite database: it begins with b'this is a text",
    pages: "cannot be read: database disk image is malformed",
    of_another_program: "is another program's database (it has the table bookmarks)",
    of_another_version: "version of",
    a_folder: "is no file; expected a SQLite database",
    a_link_to_nothing: "is a link to nothing; expected a SQLite database",
}
"""What may become of a database, and what is said of it."""


def contents(folder: Path) -> dict[str, str]:
    """Return everything in a folder, by hash; what SQLite and locks leave beside the files does not count."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if name.endswith(("-wal", "-shm", ".lock", ".locks", ".locks/quick")):
            continue
        kind = "link" if path.is_symlink() else "folder" if path.is_dir() else ""
        found[name] = kind or hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def said(command: tuple[str, ...], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """Run a command that is to refuse; return its one line."""
    capsys.readouterr()
    got = besom.app.cli.run(list(command))
    error = capsys.readouterr().err
    assert got == code, f"{command} → {got}: {error}"
    assert error.startswith("besom: "), error
    assert error.count("\n") == 1, error
    assert "Traceback" not in error
    assert "--debug" not in error, f"{command} did not foresee: {error}"
    return error


def cases(damages: Mapping[Damage, str]) -> list[Any]:
    """Return each damage with two commands, and with every command; in the core suite that is one damage."""
    two = [pytest.param(damage, told, False, id=damage.__name__) for damage, told in damages.items()]
    every = [
        pytest.param(
            damage, told, True, id=f"{damage.__name__}-every", marks=[] if damage is pages else pytest.mark.service
        )
        for damage, told in damages.items()
    ]
    return [*two, *every]


@pytest.mark.parametrize(("damage", "told", "every"), cases(DATABASE))
def test_a_damaged_studies_db_is_named_by_every_command_and_left_as_it_is(
    store: Store, damage: Damage, told: str, every: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = contents(store.root)
    damage(store.studies_db)
    before = contents(store.root)
    assert before != whole
    for command in (*STUDY_READERS, *BOTH_READERS, *WRITERS) if every else (STUDY_READERS[0], BOTH_READERS[1]):
        error = said(command, capsys)
        assert told in error, f"{command}: {error}"
        assert str(store.studies_db) in error, f"{command}: {error}"
    assert contents(store.root) == before


@pytest.mark.parametrize(
    ("damage", "told", "every"), cases({**DATABASE, empty: "is empty; expected MLflow's database"})
)
def test_a_damaged_mlflow_db_is_named_by_every_command_that_needs_it(
    store: Store, damage: Damage, told: str, every: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = contents(store.root)
    damage(store.mlflow_db)
    before = contents(store.root)
    assert before != whole
    for command in STUDY_READERS[: None if every else 1]:
        assert besom.app.cli.run(list(command)) == 0, f"{command} needs no MLflow"
    writers = 1 if damage is of_another_version else 2  # to see that a sweep takes MLflow itself
    for command in (*BOTH_READERS, ("ui", "quick"), *WRITERS[:writers]) if every else (BOTH_READERS[1], WRITERS[0]):
        error = said(command, capsys)
        assert told in error, f"{command}: {error}"
        assert str(store.mlflow_db) in error, f"{command}: {error}"
    assert contents(store.root) == before
    assert not Path("unmounted").exists(), "a database was made where a link pointed to"


def test_the_command_line_says_it_in_one_line_too(store: Store, besom_command: BesomCommand) -> None:
    text(store.studies_db)
    done = besom_command("status", "quick", cwd=store.root.parent)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"besom: {store.studies_db} is no SQLite database" in done.stderr


@pytest.mark.parametrize("lost", ["empty", "gone", "without its -wal"])
def test_a_study_that_its_database_has_lost_is_not_made_anew_over_its_results(
    store: Store, lost: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if lost == "gone":
        store.studies_db.unlink()
    elif lost == "empty":
        empty(store.studies_db)
    else:
        _write_only_into_the_wal(store)
        store.studies_db.with_name("studies.db-wal").unlink()
        store.studies_db.with_name("studies.db-shm").unlink()
    before = contents(store.root)
    for command in STUDY_READERS:
        error = said(command, capsys)
        assert f"no sweep 'quick' in {store.root}; {store.sweep('quick')} is there, but" in error
    error = said(SWEEP, capsys)
    assert f"has the results of 2 trials, and {store.studies_db} does not know their sweep" in error
    assert "start over with --fresh" in error
    assert contents(store.root) == before


def _write_only_into_the_wal(store: Store) -> None:
    """Have the study written by a process that is killed before anything of it gets into the file itself."""
    script = (
        "import os, sqlite3, sys\n"
        "old = sqlite3.connect(sys.argv[1] + '.old')\n"
        "new = sqlite3.connect(sys.argv[1])\n"
        "new.execute('pragma journal_mode=wal')\n"
        "new.execute('pragma wal_autocheckpoint=0')\n"
        "new.executescript('\\n'.join(old.iterdump()))\n"
        "os._exit(9)\n"
    )
    store.studies_db.rename(f"{store.studies_db}.old")
    subprocess.run([sys.executable, "-c", script, str(store.studies_db)], check=False)
    Path(f"{store.studies_db}.old").unlink()
    assert store.studies_db.with_name("studies.db-wal").stat().st_size > store.studies_db.stat().st_size


def test_a_database_that_has_lost_its_last_trials_is_not_gone_on_with(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(store.studies_db)) as database, database:
        database.execute("delete from trials where number = 1")
    before = contents(store.root)
    error = said(SWEEP, capsys)
    assert f"{store.studies_db} has 1 trials of sweep 'quick', but {store.job('quick', 1)} holds the result" in error
    assert contents(store.root) == before


WHOLE = {"number": 1, "state": "COMPLETE", "values": [0.5], "value": 0.5, "reason": None, "facts": {}, "study": "s"}
RESULTS: dict[str, str | bytes] = {
    "cut off": json.dumps(WHOLE)[:-20],
    "empty": "",
    "binary": bytes(range(256)),
    "zeros": bytes(400),
    "of another study": json.dumps({**WHOLE, "study": "t"}),
    "of another trial": json.dumps({**WHOLE, "number": 2}),
    "of a trial that is true": json.dumps({**WHOLE, "number": True}),
    "nan": json.dumps({**WHOLE, "values": [float("nan")]}),
    "infinite": json.dumps({**WHOLE, "values": [float("inf")]}),
    "1e999": json.dumps(WHOLE).replace("[0.5]", "[1e999]"),
    "a whole number beyond all floats": json.dumps({**WHOLE, "values": [10**400]}),
    "more digits than Python reads": json.dumps(WHOLE).replace("[0.5]", f"[{'9' * 5000}]"),
    "a truth for a value": json.dumps({**WHOLE, "values": [True]}),
    "text for a value": json.dumps({**WHOLE, "values": ["0.5"]}),
    "complete without a value": json.dumps({**WHOLE, "values": []}),
    "pruned with a value": json.dumps({**WHOLE, "state": "PRUNED"}),
    "no state of Optuna's": json.dumps({**WHOLE, "state": "complete"}),
    "a list of facts": json.dumps({**WHOLE, "facts": [1]}),
    "a fact that is nan": json.dumps({**WHOLE, "facts": {"size": float("nan")}}),
    "a fact under a name of the study's": json.dumps({**WHOLE, "facts": {"point": 7}}),
    "a list for a reason": json.dumps({**WHOLE, "reason": [1]}),
    "a key too many": json.dumps({**WHOLE, "more": 1}),
    "a list": "[1, 2]",
    "a number": "1",
    "lists in lists": "[" * 100_000,
    "17 MB of blanks": json.dumps(WHOLE) + " " * 17_000_000,
}


@pytest.mark.parametrize("content", RESULTS.values(), ids=RESULTS)
def test_a_damaged_result_counts_as_none_and_is_left_as_it_is(tmp_path: Path, content: str | bytes) -> None:
    file = tmp_path / "result.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = file.read_bytes()
    assert TrialResult.read(tmp_path, 1, "s") is None
    assert file.read_bytes() == before
    file.write_text(json.dumps(WHOLE))
    assert TrialResult.read(tmp_path, 1, "s") == TrialResult(1, "COMPLETE", [0.5]), "the whole one is read"


def test_no_result_is_read_where_its_name_is_a_folder_or_a_link_to_itself(tmp_path: Path) -> None:
    (tmp_path / "one" / "result.json").mkdir(parents=True)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "result.json").symlink_to("result.json")
    assert [TrialResult.read(tmp_path / name, 1, "s") for name in ("one", "two", "none")] == [None] * 3


def binary(file: Path) -> None:
    file.write_bytes(bytes(range(128, 256)))


def gone(file: Path) -> None:
    file.unlink()


SLOW = pytest.mark.service
"""Each takes a second or two of its own, and ten of them are more of the same."""


NEEDED = {
    "config.yaml": [("reproduce", "quick")],
    "fingerprint.json": [("reproduce", "quick"), ("export", "quick", "exported")],
    "predictions.csv": [("predict", "quick")],
}
"""Artifact → the commands that cannot do without."""


@pytest.mark.parametrize("damage", [half, *(pytest.param(one, marks=SLOW) for one in (empty, binary, a_folder, gone))])
@pytest.mark.parametrize("name", NEEDED)
def test_a_damaged_artifact_is_named_by_who_needs_it_and_left_as_it_is(
    store: Store, name: str, damage: Damage, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in store.artifacts.glob(f"quick/*/artifacts/{name}"):
        damage(file)
    before = contents(store.root)
    for command in NEEDED[name]:
        error = said(command, capsys)
        assert name in error or (damage is half and "config" in name), error
    for command in (STUDY_READERS[0], ("diff", "quick/0", "quick/1")):
        assert besom.app.cli.run(list(command)) == 0
    assert contents(store.root) == before
    assert not Path("exported").exists()


@pytest.mark.parametrize("damage", [binary, *(pytest.param(one, marks=SLOW) for one in (text, a_folder))])
def test_a_damaged_tracking_uri_is_named_and_no_other_store_is_taken_instead(
    store: Store, damage: Damage, capsys: pytest.CaptureFixture[str]
) -> None:
    file = store.tracking_uri("quick")
    file.write_text(store.mlflow_uri)
    assert besom.app.cli.run(["predict", "quick"]) == 0
    damage(file)
    before = contents(store.root)
    for command in (*BOTH_READERS, WRITERS[0]):
        assert f"{file} holds no tracking.uri" in said(command, capsys), command
    assert contents(store.root) == before


@pytest.fixture
def held(store: Store) -> Iterator[Path]:
    """The sweep's lock, held by another process, which has written rubbish into it."""
    file = store.lock("quick")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"\xff\xfe rubbish }")
    script = (
        "import fcntl, sys; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_EX); print(1, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"1\n"
        yield file
        holder.kill()


def test_rubbish_in_a_lock_that_is_held_changes_nothing_about_its_being_held(
    store: Store, held: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in WRITERS:
        assert "sweep 'quick' is being run by" in said(command, capsys)
    for command in STUDY_READERS:
        assert besom.app.cli.run(list(command)) == 0
    assert held.read_bytes() == b"\xff\xfe rubbish }"


def refused(bench: Bench, *overrides: str) -> str:
    """Start a sweep that is to refuse; return its one line, nothing having changed."""
    start = bench.start(*overrides)
    assert start.ended() == 2, start.output
    assert start.output.startswith("besom: "), start.output
    assert start.output.count("\n") == 1, start.output
    assert "--debug" not in start.output
    bench.settle(start.output)
    return start.output


@pytest.mark.service
@pytest.mark.timeout(1800)
def test_a_damaged_snapshot_is_named_and_the_sweep_goes_on_with_the_whole_one(besoms: Bench) -> None:
    besoms.whole(more=1)
    snapshot = besoms.books.jobs / "snapshot"
    for name, damage in (("conf/config.yaml", binary), ("conf/config.yaml", half), ("sweeps/faults.yaml", gone)):
        file = snapshot / name
        content = file.read_bytes()
        damage(file)
        assert refused(besoms)
        assert not file.exists() if damage is gone else file.read_bytes() != content, "it is left as it is"
        file.write_bytes(content)
    besoms.whole(more=1)
    for database in (besoms.books.study_db, Path(str(besoms.books.mlflow_db))):
        assert Path(f"{database}-wal").stat().st_size == 0, "at its end the file alone is whole"


@pytest.mark.service
@pytest.mark.timeout(1800)
def test_a_sweep_does_not_go_on_with_other_images_than_it_was_started_with(besoms: Bench) -> None:
    images = besoms.folder / "mine.npz"
    random_ = np.random.default_rng(0)
    x, y = random_.integers(0, 256, (300, 28, 28), dtype=np.uint8), np.arange(300) % 3
    np.savez(images, x=x, y=y)
    besoms.overrides = ("data=npz", f"data.path={images}", "data.n_train=150", "data.n_val=60", "data.n_test=60")
    besoms.whole(more=1)
    whole = images.read_bytes()
    x[0, 0, 0] ^= 1
    np.savez(images, x=x, y=y)
    assert "was started with other images (SHA-256 " in refused(besoms)
    images.write_bytes(whole[: len(whole) // 2])
    assert str(images) in refused(besoms)
    images.write_bytes(whole)
    besoms.whole(more=1)
