"""A disk that gets full while a sweep runs, and a store that can only be read.

Each part of a store lies on a small disk of its own in memory, which the test fills while trials run, so that any of a
trial's files may be the first that finds no room. Where mounting is not permitted these tests are skipped; what an
error of a full disk is taken for is tested anywhere.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from harness import Bench, Start
from small_store import copied, small_store

import besom.app.cli
from besom.disk import explain
from besom.errors import BesomError, DiskFull, StoreReadOnly
from besom.paths import Store, write_atomically

Mount = Callable[..., Path]
FILL = "fill"


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Return ``mount(folder, megabytes)``, which puts an empty disk of that size there."""
    with ExitStack() as mounted:

        def put(folder: Path, megabytes: int) -> Path:
            folder.mkdir(exist_ok=True)
            command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
            mounted.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
            assert shutil.disk_usage(folder).total == megabytes << 20
            return folder

        yield put


def fill(disk: Path, left: int = 0) -> None:
    """Fill a disk but for so many bytes, whoever else writes and removes there."""
    with (disk / FILL).open("ab", buffering=0) as file:
        for _ in range(20):
            for size in (1 << 16, 1 << 12):
                with pytest.raises(OSError, match="No space left on device"):  # noqa: PT012
                    for _ in range(1 << 20):
                        file.write(bytes(size))
            file.truncate(file.tell() - left)
            if shutil.disk_usage(disk).free <= left:
                return
    pytest.fail(f"{disk} did not get full")


def full_device() -> OSError:
    """Return the error that the system gives who writes to a full device."""
    with pytest.raises(OSError) as raised, open("/dev/full", "wb", buffering=0) as file:  # noqa: PT011, PTH123
        file.write(b"x")
    assert raised.value.errno == errno.ENOSPC
    return raised.value


def wrapped(error: Exception) -> Exception:
    try:
        try:
            raise error
        except Exception as inner:
            raise RuntimeError("the library could not write") from inner
    except RuntimeError as outer:
        return outer


def full_database(folder: Path) -> sqlite3.Error:
    with closing(sqlite3.connect(folder / "small.db")) as database:
        database.execute("create table t (x)")
        database.execute("pragma max_page_count = 2")
        with pytest.raises(sqlite3.OperationalError) as raised:
            database.execute("insert into t values (?)", (b"x" * 9999,))
    assert raised.value.sqlite_errorname == "SQLITE_FULL"
    return raised.value


def test_an_error_of_a_full_disk_is_known_however_it_is_wrapped(tmp_path: Path) -> None:
    words = OSError("Can't write data (errno = 28, error message = 'No space left on device')")  # as h5py has it
    folder = shutil.Error([("a", "b", str(full_device()))])  # as shutil.copytree has it
    limited = OSError(errno.EFBIG, os.strerror(errno.EFBIG), "big.bin")
    for error in (full_device(), full_database(tmp_path), words, folder, limited, OSError(errno.EDQUOT, "quota")):
        for one in (error, wrapped(wrapped(error))):
            found = explain(one, places=[tmp_path])
            assert isinstance(found, DiskFull), one
            assert found.exit_code == 1
            assert f" MB in {tmp_path}" in str(found)
            assert str(found).endswith(": make room, then the same command goes on")
    assert "File too large: big.bin; free now: " in str(explain(limited))


def test_an_error_of_anything_else_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    for error in (ValueError("no room"), OSError(errno.EACCES, "Permission denied"), OSError("odd"), KeyError(28)):
        assert explain(wrapped(error), places=[tmp_path]) is None
    assert explain(BesomError("a sentence of besom's own")) is None
    assert isinstance(explain(OSError(errno.EROFS, "Read-only file system", "x")), StoreReadOnly)


def test_a_file_that_found_no_room_is_named_and_nothing_of_it_stays(tmp_path: Path) -> None:
    script = (
        "import resource, sys\nfrom pathlib import Path\nfrom besom.paths import write_atomically\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (99, 99))\n"
        "try:\n    write_atomically(Path(sys.argv[1]), 'x' * 200)\n"
        "except OSError as error:\n    print(error.errno, error.filename)\n"
    )
    write_atomically(tmp_path / "file", "as it was")
    command = [sys.executable, "-c", script, str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(errno.EFBIG), str(tmp_path / "file")], done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "as it was"


def ran_into(bench: Bench, disk: Path, left: int = 0, *, may_suffice: bool = False) -> Start:
    """Start the sweep, fill a disk once a trial has ended, and see how that ends.

    Args:
        may_suffice: what is left may be enough for all that is still to come; then the sweep ends as any other.
    """
    before, n = len(bench.kept), bench.n_results
    start = bench.start(more=8)
    bench.until(lambda: bench.n_results > n, start)
    fill(disk, left)
    if may_suffice and start.ended() == 0:
        (disk / FILL).unlink()
        bench.settle(f"{disk} with {left} left, which sufficed")
        return start
    assert start.ended() == 1, start.output
    said = [line for line in start.output.splitlines() if line.startswith("besom: ")]
    assert len(said) == 1, start.output
    assert "No space left on device" in said[0]
    assert said[0].endswith("make room, then the same command goes on")
    assert "Traceback" not in start.output
    (disk / FILL).unlink()
    bench.settle(f"{disk} full but for {left}")
    assert len(bench.kept) > before, "what had ended stayed"
    return start


@pytest.mark.service
@pytest.mark.timeout(1800)
def test_a_sweep_whose_disk_gets_full_stops_with_one_line_and_goes_on_when_there_is_room(
    besoms: Bench, mount: Mount
) -> None:
    store = mount(besoms.folder / "mlruns", 64)
    ran_into(besoms, store)
    ran_into(besoms, store, left=400_000)
    fill(store)
    full = besoms.start()
    assert full.ended() == 1, full.output
    assert [line for line in full.output.splitlines() if line.startswith("besom: No space left on device")], full.output
    assert "Traceback" not in full.output
    (store / FILL).unlink()
    besoms.settle("a start on a full disk")
    besoms.whole()


@pytest.mark.service
@pytest.mark.timeout(1800)
def test_whichever_part_of_a_store_gets_full_first_nothing_that_had_ended_is_lost(besoms: Bench, mount: Mount) -> None:
    store = mount(besoms.folder / "mlruns", 32)  # with the parts apart: only the databases
    jobs, artifacts = (mount(store / name, 64) for name in ("jobs", "artifacts"))
    for disk in (store, jobs, mount(besoms.tmp, 16)):
        ran_into(besoms, disk)
    fill(artifacts)
    start = besoms.start(more=2)
    assert start.ended() == 0, start.output
    assert "No space left on device" in start.output
    assert "waits in" in start.output, "what MLflow cannot take waits elsewhere in the store"
    (artifacts / FILL).unlink()
    besoms.wait_for_nobody("a start without room for artifacts")
    besoms.whole()


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("left", [4096, 16_384, 65_536, 131_072, 262_144, 524_288, 1_048_576, 2_097_152])
@pytest.mark.parametrize("part", ["store", "jobs", "tmp"])
def test_at_any_level_of_any_part(besoms: Bench, mount: Mount, part: str, left: int) -> None:
    store = mount(besoms.folder / "mlruns", 64)
    disks = {"store": store, "jobs": mount(store / "jobs", 64)}
    # a start's jobs and temporary files may fit into what is left, its databases do not
    ran_into(besoms, {**disks, "tmp": mount(besoms.tmp, 32)}[part], left, may_suffice=part != "store")
    besoms.whole()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return small_store(tmp_path_factory.mktemp("made") / "mlruns")


READ = (
    *(("status", "quick"), ("runs", "quick"), ("best", "quick"), ("diff", "quick/0", "quick/1")),
    *(("predict", "quick"), ("report", "quick", "--output", "page.html")),
)
WRITE = (
    ("sweep", "quick", "--trials", "3", "data.n_train=200"),
    *(("train", "experiment=baseline", "data=mnist_5k"), ("delete", "quick", "--yes"), ("report", "quick")),
)


CHANGES = {
    "studies.db": "update trial_values set value = 0.95 where value = 0.9",
    "mlflow.db": "update metrics set value = 0.95 where value = 0.9",
}


def written_last(database: Path, keep: Sequence[str]) -> None:
    """Change a database by a process that dies before the change is in the file itself, and keep only these beside."""
    script = (
        "import os, sqlite3, sys\ndatabase = sqlite3.connect(sys.argv[1])\ndatabase.execute(sys.argv[2])\n"
        "database.commit()\nos._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(database), CHANGES[database.name]], check=True)
    assert Path(f"{database}-wal").stat().st_size > 0
    for ending in ("-wal", "-shm"):
        if ending not in keep:
            Path(f"{database}{ending}").unlink()


@pytest.mark.parametrize(
    ("keep", "objective"),
    [
        pytest.param((), 0.9, id="alone", marks=pytest.mark.service),
        pytest.param(("-wal",), 0.95, id="wal"),
        pytest.param(("-wal", "-shm"), 0.95, id="wal and shm", marks=pytest.mark.service),
    ],
)
def test_a_store_that_can_only_be_read_is_read_and_writers_say_so(
    made: Store,
    mount: Mount,
    tmp_path: Path,
    keep: Sequence[str],
    objective: float,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    disk = mount(tmp_path / "disk", 32)
    store = copied(made, disk / "mlruns")
    for database in (store.studies_db, store.mlflow_db):
        written_last(database, keep)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(OSError, match="Read-only file system"):
        (store.root / "new").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("BESOM_STORE", str(store.root))
    for command in READ:
        assert besom.app.cli.run(list(command)) == 0, f"{command}: {capsys.readouterr().err}"
    assert Path("page.html").is_file()
    capsys.readouterr()
    assert besom.app.cli.run(["best", "quick", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["objective"] == objective, "what is in the -wal is read too"
    for command in WRITE:
        assert besom.app.cli.run(list(command)) == 2, command
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        assert " cannot be written" in error, error
