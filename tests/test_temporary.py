"""Folders under TMPDIR: gone after their use, and after a kill with the next process that makes one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from besom.temporary import PATTERN, clear_left, temporary_folder

HOLDS = """
import sys
from besom.temporary import temporary_folder

with temporary_folder() as folder:
    (folder / "x").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    clear_left.cache_clear()
    return tmp_path


def holder(place: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "TMPDIR": str(place)}
    return subprocess.Popen(
        [sys.executable, "-c", HOLDS], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_folder_is_gone_after_its_use(place: Path) -> None:
    with temporary_folder() as folder:
        assert folder.match(PATTERN)
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "x").touch()
    assert list(place.iterdir()) == []


def test_what_a_killed_process_left_goes_and_what_a_living_one_uses_stays(place: Path) -> None:
    (place / "besom-notes.tmp").mkdir()  # a user's
    (place / "besom-12345678.tmp").symlink_to(place / "besom-notes.tmp")
    with holder(place) as living, holder(place) as killed:
        assert living.stdout is not None
        assert killed.stdout is not None
        used, left = (Path(one.stdout.readline().strip()) for one in (living, killed) if one.stdout)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert (left / "x").exists()
        with temporary_folder() as folder:
            assert folder.exists()
            assert not left.exists()
            assert (used / "x").exists()
        assert living.stdin is not None
        living.stdin.close()
        assert living.wait() == 0
    assert sorted(path.name for path in place.iterdir()) == ["besom-12345678.tmp", "besom-notes.tmp"]
