"""Which files are an app's code, and whether they are as they were."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from besom.code_watch import CodeWatch

FILES = {
    "watched_app/__init__.py": "",
    "watched_app/train/__init__.py": "",
    "watched_app/train/main.py": "import watched_app.model\nimport watched_app.venv.lib\ndef task(config): return 1\n",
    "watched_app/model.py": "LAYERS = 3\n",
    "watched_app/not_imported.py": "",
    "watched_app/notes.txt": "",
    "watched_app/venv/__init__.py": "",
    "watched_app/venv/pyvenv.cfg": "",
    "watched_app/venv/lib.py": "",
    "watched_script.py": "def task(config): return 1\n",
}
WATCHED = {"__init__.py", "train/__init__.py", "train/main.py", "model.py"}


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.startswith("watched_")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


def task_of(module: str) -> Callable[..., Any]:
    loaded: ModuleType = importlib.import_module(module)
    task: Callable[..., Any] = loaded.task
    return task


@pytest.fixture
def watch(app: Path) -> CodeWatch:
    return CodeWatch(task_of("watched_app.train.main"))


def test_what_is_watched_is_what_the_app_imported_of_its_own(watch: CodeWatch, app: Path) -> None:
    assert watch.root == app / "watched_app"
    assert set(watch.state()) == WATCHED


def test_a_digest_stays_until_code_changes(watch: CodeWatch, app: Path) -> None:
    before = watch.digest()
    (app / "watched_app" / "notes.txt").write_text("changed")
    (app / "watched_app" / "model.py").touch()
    importlib.import_module("watched_app.not_imported")
    assert watch.digest() == before
    (app / "watched_app" / "model.py").write_text("LAYERS = 4\n\n")
    assert watch.digest() != before
    (app / "watched_app" / "model.py").write_text(FILES["watched_app/model.py"])
    assert watch.digest() == before


def test_changed_files_are_named(watch: CodeWatch, app: Path) -> None:
    before = watch.state()
    assert watch.changed_files(before) == []
    (app / "watched_app" / "model.py").write_text("LAYERS = 44\n")
    (app / "watched_app" / "train" / "main.py").unlink()
    assert watch.changed_files(before) == ["model.py", "train/main.py"]


def test_the_next_start_compares_files_that_it_has_not_imported(app: Path) -> None:
    task = task_of("watched_app.train.main")
    importlib.import_module("watched_app.not_imported")
    before = CodeWatch(task).state()
    del sys.modules["watched_app.not_imported"]
    (app / "watched_app" / "not_imported.py").write_text("LAYERS = 3\n")
    assert CodeWatch(task).changed_files(before) == ["not_imported.py"]


@pytest.mark.parametrize("wrapped", ["wraps", "partial", "object"])
def test_a_wrapped_task_is_seen_through(app: Path, wrapped: str) -> None:
    task = task_of("watched_script")

    @wraps(task)
    def other(config: Any) -> Any:
        return task(config)

    class Other:
        __wrapped__ = task

    watch = CodeWatch({"wraps": other, "partial": partial(task, 1), "object": Other()}[wrapped])
    assert list(watch.state()) == ["watched_script.py"]


def test_a_script_that_is_run_is_watched(app: Path) -> None:
    script = app / "watched_main.py"
    script.write_text(
        "import watched_app.model\nfrom besom.code_watch import CodeWatch\n"
        "def task(config): return 1\nprint(*CodeWatch(task).state())\n"
    )
    shown = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, timeout=60, cwd=app)
    assert shown.stdout.split() == ["watched_app/__init__.py", "watched_app/model.py", "watched_main.py"]


def test_a_task_right_among_the_libraries_has_no_neighbours(
    app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    libraries = tmp_path / "site-packages"
    libraries.mkdir()
    monkeypatch.syspath_prepend(str(libraries))
    for name in ("watched_single", "watched_neighbour"):
        (libraries / f"{name}.py").write_text(FILES["watched_script.py"])
        importlib.import_module(name)
    assert list(CodeWatch(task_of("watched_single")).state()) == ["watched_single.py"]


def test_a_task_without_a_file_has_no_code_to_watch() -> None:
    task = eval("lambda config: 1", {"__name__": "nowhere"})
    watch = CodeWatch(task)
    assert watch.state() == {}
    assert watch.digest() == CodeWatch(task).digest()
