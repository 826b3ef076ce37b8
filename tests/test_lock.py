"""A lock that a store of others brings is emptied only where besom has written it, and waited for never."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from conftest import until

import besom.lock
from besom.app.delete import delete_sweep
from besom.app.store import create_store
from besom.errors import StoreDamaged
from besom.lock import holder_of, is_dead, parent_lock, process_identity, refuse_if_locked
from besom.paths import Store


def a_link(lock: Path, diary: Path) -> None:
    lock.symlink_to(diary)


def a_link_to_nothing(lock: Path, diary: Path) -> None:
    lock.symlink_to(diary.with_name("new"))


def a_hard_link(lock: Path, diary: Path) -> None:
    os.link(diary, lock)


def a_pipe(lock: Path, diary: Path) -> None:
    os.mkfifo(lock)


def a_folder(lock: Path, diary: Path) -> None:
    lock.mkdir()


def a_socket(lock: Path, diary: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(lock))


HOSTILE: list[Callable[[Path, Path], None]] = [a_link, a_link_to_nothing, a_hard_link, a_pipe, a_folder, a_socket]


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    (tmp_path / "diary").write_text("mine, long years of it\n")
    return tmp_path / "diary"


def untouched(diary: Path) -> bool:
    return diary.read_text() == "mine, long years of it\n" and not diary.with_name("new").exists()


@pytest.mark.parametrize("make_hostile", HOSTILE)
def test_what_is_no_lock_of_besoms_is_named_and_left(
    make_hostile: Callable[[Path, Path], None], diary: Path, tmp_path: Path
) -> None:
    make_hostile(tmp_path / "quick", diary)
    with (
        pytest.raises(StoreDamaged, match=rf"^{tmp_path}/quick .*; expected the lock of a sweep, or nothing: move it"),
        parent_lock(tmp_path / "quick", "quick"),
    ):
        pass
    if make_hostile is not a_hard_link:
        for look in (holder_of, lambda path: refuse_if_locked(path, "quick")):
            if look is holder_of or (tmp_path / "quick").exists():
                with pytest.raises(StoreDamaged, match=rf"^{tmp_path}/quick is no plain file"):
                    look(tmp_path / "quick")
    assert untouched(diary)


@pytest.mark.parametrize("text", ["", '{"host": "a", "pid": 1}', '{"ho', '{"host": "a", ', "\0" * 200])
def test_what_a_killed_holder_has_left_is_written_over(text: str, tmp_path: Path) -> None:
    (tmp_path / "quick").write_text(text)
    with parent_lock(tmp_path / "quick", "quick"):
        assert json.loads((tmp_path / "quick").read_text()) == process_identity()
    assert (tmp_path / "quick").read_text() == ""


def test_a_lock_that_is_a_link_deletes_nothing(diary: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "mlruns")
    store.lock("quick").parent.mkdir(parents=True)
    store.lock("quick").symlink_to(diary)
    with pytest.raises(StoreDamaged, match="quick is no plain file"):
        delete_sweep(store, "quick")
    assert untouched(diary)


def test_a_store_is_not_made_by_a_lock_that_is_a_link(diary: Path, tmp_path: Path) -> None:
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / ".creating.lock").symlink_to(diary.with_name("new"))
    with pytest.raises(StoreDamaged, match=r"\.creating\.lock is no plain file"):
        create_store(Store(tmp_path / "mlruns"))
    assert untouched(diary)
    shutil.rmtree(tmp_path / "mlruns")


def test_a_process_that_proc_does_not_show_is_dead_only_where_no_signal_finds_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    identity = process_identity()
    assert not is_dead(identity)
    monkeypatch.setattr(besom.lock, "_since_boot", lambda pid: "")  # as hidepid=2 has it of other users' processes
    assert not is_dead(identity)
    assert not is_dead({**identity, "pid": 1})
    assert is_dead({**identity, "pid": 2**22 + 1})


def test_a_process_of_which_only_its_parent_has_not_heard_is_dead() -> None:
    tell = "import besom.lock, json; print(json.dumps(besom.lock.process_identity()), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", tell], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        identity = json.loads(child.stdout.readline())
        assert not is_dead(identity)
        child.kill()
        until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
        assert is_dead(identity)
