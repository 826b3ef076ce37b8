"""`besom doctor` on a real sweep: each way of breaking it is found, alone, and nothing is changed by the look."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread

import pytest
from broken import WAYS, Break, Kept, killed_while_it_wrote, running_trial, running_trial_without_result
from conftest import BesomCommand, Folder
from packaging.requirements import Requirement

from besom.errors import NotFound
from besom.lock import parent_lock
from besom.paths import Store
from besom.spool.probe import why_away
from besom.upkeep.check_disk import FEW, kind_of, room_for
from besom.upkeep.check_environment import variables, wanting
from besom.upkeep.doctor import examine
from besom.upkeep.findings import Finding


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, besom_command: BesomCommand) -> Kept:
    """A folder with a finished sweep."""
    return Kept(Folder(tmp_path_factory.mktemp("swept"), besom_command))


@pytest.fixture
def store(kept: Kept) -> Store:
    """Its store, whole, to be broken."""
    return kept.store()


def found_in(store: Store) -> list[Finding]:
    """Return what is found beside what is told of every disk."""
    return [one for one in examine(store, environ={}) if one.where not in ("disk", "environment")]


def state_of(folder: Path) -> dict[str, tuple[object, ...]]:
    """Return every byte of a folder, with when and what each file is."""
    return {str(path): _state(path) for path in (folder, *folder.rglob("*"))}


def _state(path: Path) -> tuple[object, ...]:
    stats = path.stat()
    return stats.st_ino, stats.st_mtime_ns, stats.st_ctime_ns, path.read_bytes() if path.is_file() else None


def test_nothing_is_wrong_with_a_finished_sweep(store: Store) -> None:
    assert found_in(store) == []


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_each_way_of_breaking_a_store_is_found_and_only_that_and_the_look_changes_nothing(
    way: Break, store: Store
) -> None:
    way.how(store)
    before = state_of(store.root)
    [found] = found_in(store)
    assert way.matches(found), found
    assert found.mend or found.level == "note"
    assert state_of(store.root) == before


def test_a_store_that_was_copied_is_found_once_and_not_each_of_its_files(store: Store, tmp_path: Path) -> None:
    shutil.copytree(store.root, tmp_path / "copy")
    [found] = found_in(Store.at(tmp_path / "copy"))
    assert (found.level, found.where) == ("error", "store")
    assert f"was copied from {store.root}," in found.what
    assert found.mend == f"besom relocate --store {tmp_path}/copy"


def test_what_a_living_parent_works_on_is_not_called_broken(store: Store) -> None:
    running_trial_without_result(store)
    store.images("quick").mkdir()
    with parent_lock(store.lock("quick"), "quick"):
        [found] = found_in(store)
    assert (found.level, found.where) == ("note", "sweep quick")
    assert f"process {os.getpid()} of {socket.gethostname()} works on it" in found.what


def test_one_sweep_can_be_asked_for(store: Store) -> None:
    running_trial(store)
    assert [one.where for one in examine(store, "quick", environ={}) if one.level == "warning"] == ["quick/1"]
    with pytest.raises(NotFound, match=r"no sweep 'quirk' in .*; there is quick; did you mean 'quick'"):
        examine(store, "quirk", environ={})
    with pytest.raises(NotFound, match="no store at"):
        examine(Store.at(store.root / "nothing"))


def test_the_command_says_what_where_and_how_to_mend_it(store: Store, besom_command: BesomCommand) -> None:
    folder = Folder(store.root.parent, besom_command)
    assert "nothing is wrong" in folder.besom("doctor").stdout
    killed_while_it_wrote(store)
    before = state_of(store.root)
    found = folder.json("doctor", code=1)["findings"]
    assert [one["where"] for one in found if one["level"] == "warning"] == ["quick/1"]
    shown = folder.besom("doctor", "quick", code=1).stdout
    assert "besom repair quick, or resume it" in shown
    assert shown.endswith("1 warning\n")
    assert folder.besom("doctor", "--format", "csv", code=1).stdout.startswith("level,where,what,mend\nwarning,quick/1")
    assert "no sweep 'quirk'" in folder.besom("doctor", "quirk", code=2).stderr
    assert "no store at" in folder.besom("doctor", "--store", "other", code=2).stderr
    assert state_of(store.root) == before


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_store_of_which_nothing_can_be_written_is_examined_and_that_is_said(store: Store) -> None:
    killed_while_it_wrote(store)
    for path in (store.root, *store.root.rglob("*")):
        path.chmod(path.stat().st_mode & ~stat.S_IWOTH | stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0))
    for path in store.root.parents:
        if path.owner() == "root" and not path.stat().st_mode & stat.S_IXOTH and path != Path.home():
            path.chmod(0o755)  # pytest's own, one more where several processes test
    found = of_nobody(store)
    assert [(one.level, one.where) for one in found] == [("warning", "rights"), ("warning", "quick/1")]
    assert f"you may not write {store.root}, {store.mlflow_db}" in found[0].what
    store.studies_db.chmod(0o600)
    [unreadable] = of_nobody(store)
    assert (unreadable.level, unreadable.where) == ("error", "studies.db")
    assert "cannot be read: " in unreadable.what


def of_nobody(store: Store) -> list[Finding]:
    """Return what a user finds who owns nothing."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            with os.fdopen(writing, "w") as answer:
                answer.write(repr(found_in(store)))
        finally:  # whatever happens, only one process goes on with the tests
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return list(eval(text, {"Finding": Finding}))


@pytest.mark.parametrize(
    ("requirement", "found"),
    [
        ("numpy>=1", []),
        ("numpy<1", [("warning", r"numpy is 2.*; expected <1")]),
        ("no-such-package>=2", [("error", "no-such-package is not installed")]),
    ],
)
def test_packages_are_held_against_what_besom_declares(requirement: str, found: list[tuple[str, str]]) -> None:
    import re

    got = list(wanting(Requirement(requirement)))
    assert len(got) == len(found)
    for one, (level, what) in zip(got, found, strict=True):
        assert one.level == level
        assert re.match(what, one.what), one.what
        assert one.mend == f"pip install '{requirement}'"


def test_variables_that_change_results_are_warned_of_and_addresses_told_without_passwords() -> None:
    environ = {
        **{"ONEDNN_MAX_CPU_ISA": "AVX2", "TF_ENABLE_ONEDNN_OPTS": "0", "BESOM_STORE": "/a"},
        **{"MLFLOW_TRACKING_URI": "https://me:secret@host/x", "HOME": "/root"},
    }
    found = list(variables(environ))
    assert [(one.level, one.what.partition("=")[0].partition(" ")[0]) for one in found] == [
        ("warning", "ONEDNN_MAX_CPU_ISA"),  # besom sets TF_ENABLE_ONEDNN_OPTS itself
        ("note", "BESOM_STORE"),
        ("note", "MLFLOW_TRACKING_URI"),
    ]
    assert found[0].mend == "unset ONEDNN_MAX_CPU_ISA"
    assert "secret" not in str(found)
    assert "https://me:***@host/x" in found[2].what


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes calls and never answers."""
    with closing(socket.socket()) as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_server_that_never_answers_costs_a_bounded_time(silent_port: int) -> None:
    since = time.monotonic()
    assert "timed out" in str(why_away(f"http://127.0.0.1:{silent_port}", seconds=0.3))
    assert time.monotonic() - since < 5
    assert why_away(f"postgresql://127.0.0.1:{silent_port}/a") is None  # it takes calls, which is all one sees


def test_a_server_that_is_away_is_an_error_and_one_that_is_ill_too(silent_port: int) -> None:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        free: int = probe.getsockname()[1]
    assert "refused" in str(why_away(f"http://me:secret@127.0.0.1:{free}"))
    assert "refused" in str(why_away(f"postgresql+psycopg2://me:secret@127.0.0.1:{free}/a"))
    assert answered("500 Ill") == "it answers with HTTP 500"
    assert answered("401 Who are you") is None
    assert answered("200 OK") is None


def answered(status: str) -> str | None:
    """Return what is said of a server that answers once, so."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

        thread = Thread(target=answer)
        thread.start()
        try:
            return why_away(f"http://127.0.0.1:{server.getsockname()[1]}")
        finally:
            thread.join()


def test_a_process_that_may_open_few_files_is_told(store: Store, clean_environment: dict[str, str]) -> None:
    code = "import sys; from besom.upkeep.check_environment import open_files; print(*open_files({}))"
    limited = ["sh", "-c", 'ulimit -n 64; exec "$0" -c "$1"', sys.executable, code]
    said = subprocess.run(limited, env=clean_environment, capture_output=True, text=True, check=True).stdout
    assert "a process may open 64 files" in said
    assert "ulimit -n" in said


def test_a_disk_on_which_few_trials_fit_is_warned_of() -> None:
    assert room_for(FEW * 10, 10).level == "note"
    full = room_for(FEW * 10 - 1, 10)
    assert full.level == "warning"
    assert f"room for about {FEW - 1} more trials" in full.what


MOUNTS = r"""
/dev/a / ext4 rw 0 0
host:/b /b\040c nfs4 rw 0 0
/dev/d /b\040c/d xfs rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "kind"), [("/x/y", "ext4"), ("/b c/x", "nfs4"), ("/b c/d/x", "xfs"), ("/b c", "nfs4")]
)
def test_the_file_system_of_a_folder_is_that_of_the_nearest_mount(folder: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    assert kind_of(Path(folder), tmp_path / "mounts") == kind


def test_a_store_on_a_networks_file_system_is_warned_of(tmp_path: Path) -> None:
    from besom.upkeep.check_disk import file_system

    (tmp_path / "mounts").write_text(f"/dev/a / ext4 rw 0 0\nhost:/b {tmp_path} nfs4 rw 0 0\n")
    [found] = file_system(Store.at(tmp_path / "mlruns"), tmp_path / "mounts")
    assert (found.level, found.where) == ("warning", "disk")
    assert "a network's file system (nfs4)" in found.what
    assert list(file_system(Store.at("/x"), tmp_path / "mounts")) == []
