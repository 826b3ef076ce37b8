"""How files are written: whole or not at all, and so that others may read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from besom.paths import remove_drafts, write_atomically


@pytest.mark.parametrize(("umask", "rights"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_file_has_the_rights_that_any_new_file_has(tmp_path: Path, umask: int, rights: int) -> None:
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "page.html", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "page.html").stat().st_mode) == rights


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_atomically(tmp_path / "page.html", "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(tmp_path / "page.html", "\ud800")
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_text() == "old"


def test_what_a_killed_write_has_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = (".study", ".hydra", "result.json", ".result.json", ".result.json.0123456789aB", "0/result.json")
    left = (".study.0123456789ab", "0/.result.json.4f4f4f4f4f4f")
    (tmp_path / "0").mkdir()
    for name in (*kept, *left):
        (tmp_path / name).touch()
    remove_drafts(tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
