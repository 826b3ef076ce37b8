"""A sweep composes from its own copies of the config files, whatever happens to the originals."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from hydra.types import HydraContext
from omegaconf import DictConfig
from test_engines import hydra_app

from besom.configs.frozen import frozen_context, remembering_context


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


CONF = {
    "config.yaml": "defaults: [{db: mysql}, _self_]\nx: 1\n",
    "db/mysql.yaml": "name: mysql\nport: 1\n",
    "db/sqlite.yaml": "name: sqlite\nport: 2\n",
}


def composed(context: HydraContext, master: DictConfig, *overrides: str) -> dict[str, Any]:
    config = context.config_loader.load_sweep_config(master, list(overrides))
    return {"x": config.x, "db": dict(config.db)}


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    write(tmp_path / "conf", CONF)
    return tmp_path / "conf"


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return tmp_path / "sweep"


SQLITE = {"x": 3, "db": {"name": "sqlite", "port": 2}}


def test_a_frozen_context_composes_what_the_live_one_does(conf: Path, sweep: Path) -> None:
    context, master = hydra_app(conf)
    live, frozen = (
        each.config_loader.load_sweep_config(master, ["db=sqlite", "x=3"])
        for each in (context, frozen_context(context, sweep))
    )
    sources = [source for source in frozen.hydra.runtime.config_sources if source.provider == "main"]
    assert [source.path for source in sources] == [str(sweep / "snapshot" / "main-0")]
    frozen.hydra.runtime.config_sources = live.hydra.runtime.config_sources
    assert frozen == live


def test_a_remembering_context_composes_what_the_live_one_does_trial_after_trial(conf: Path) -> None:
    context, master = hydra_app(conf)
    remembering = remembering_context(context)
    for overrides in (["db=sqlite", "x=3"], ["db=mysql", "x=3"], ["db=sqlite", "db.port=4"], ["db=sqlite", "+y=1"], []):
        live, remembered = (each.config_loader.load_sweep_config(master, overrides) for each in (context, remembering))
        assert remembered == live


@pytest.mark.parametrize("edit", ["changed", "broken", "deleted"])
def test_edits_reach_neither_a_running_sweep_nor_its_resume(conf: Path, sweep: Path, edit: str) -> None:
    context, master = hydra_app(conf)
    running = frozen_context(context, sweep)
    if edit == "deleted":
        shutil.rmtree(conf)
    else:
        write(conf, {"db/sqlite.yaml": "name: edited\n" if edit == "changed" else "{"})
    resumed = frozen_context(context, sweep)
    assert composed(running, master, "db=sqlite", "x=3") == SQLITE
    assert composed(resumed, master, "db=sqlite", "x=3") == SQLITE


def test_a_moved_app_resumes_from_its_copies(conf: Path, sweep: Path) -> None:
    frozen_context(hydra_app(conf)[0], sweep)
    moved = conf.rename(conf.with_name("moved"))
    write(moved, {"db/sqlite.yaml": "name: edited\n"})
    context, master = hydra_app(moved)
    assert composed(frozen_context(context, sweep), master, "db=sqlite", "x=3") == SQLITE


@pytest.mark.parametrize("pickler", [pickle, cloudpickle], ids=["pickle", "cloudpickle"])
def test_it_crosses_to_another_process(conf: Path, sweep: Path, pickler: Any) -> None:
    context, master = hydra_app(conf)
    crossed = pickle.loads(pickler.dumps(frozen_context(context, sweep)))
    write(conf, {"db/sqlite.yaml": "name: edited\n"})
    assert composed(crossed, master, "db=sqlite", "x=3") == SQLITE


def test_nothing_else_of_the_context_changes(conf: Path, sweep: Path) -> None:
    context, _ = hydra_app(conf)
    frozen = frozen_context(context, sweep)
    assert {**vars(frozen), "config_loader": None} == {**vars(context), "config_loader": None}
    assert frozen.config_loader.get_search_path() is context.config_loader.get_search_path()
    assert frozen.config_loader.get_group_options("db") == ["mysql", "sqlite"]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package with configs in it, importable."""
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    write(tmp_path / "lib", {f"frozen_app/{name}": text for name, text in {"__init__.py": "", **CONF}.items()})
    yield "frozen_app"
    sys.modules.pop("frozen_app", None)


def test_a_package_on_disk_is_copied_too(package: str, tmp_path: Path, sweep: Path) -> None:
    context, master = hydra_app(f"pkg://{package}")
    frozen = frozen_context(context, sweep)
    write(tmp_path / "lib" / package, {"db/sqlite.yaml": "name: edited\n"})
    assert composed(frozen, master, "db=sqlite", "x=3") == SQLITE


def test_hydras_own_configs_are_not_copied(conf: Path, sweep: Path) -> None:
    frozen_context(hydra_app(conf)[0], sweep)
    assert [path.name for path in (sweep / "snapshot").iterdir()] == ["main-0"]


@pytest.mark.parametrize("where", ["primary config", "command line"])
def test_hydras_searchpath_is_copied_at_the_first_composition(conf: Path, sweep: Path, where: str) -> None:
    more = conf.with_name("more")
    write(more, {"db/sqlite.yaml": CONF["db/sqlite.yaml"]})
    (conf / "db" / "sqlite.yaml").unlink()
    if where == "primary config":
        write(conf, {"config.yaml": f"{CONF['config.yaml']}hydra: {{searchpath: ['file://{more}']}}\n"})
    context, master = hydra_app(conf, *([f"hydra.searchpath=['{more}']"] if where == "command line" else []))
    frozen = frozen_context(context, sweep)
    assert composed(frozen, master, "db=sqlite", "x=3") == SQLITE
    write(more, {"db/sqlite.yaml": "name: edited\n"})
    assert composed(frozen, master, "db=sqlite", "x=3") == SQLITE
    assert composed(frozen_context(context, sweep), master, "db=sqlite", "x=3") == SQLITE


def copied(folder: Path, sweep: Path) -> set[str]:
    frozen_context(hydra_app(folder)[0], sweep)
    copy = sweep / "snapshot" / "main-0"
    return {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}


def test_of_a_whole_project_only_configs_are_copied(tmp_path: Path) -> None:
    noise = {
        "app.py": "",
        "data/huge.bin": "",
        ".git/config.yaml": "",
        "__pycache__/a.yaml": "",
        "env/pyvenv.cfg": "",
        "env/lib/a.yaml": "",
        "outputs/2026-01-01/12-00-00/.hydra/config.yaml": "",
        "outputs/2026-01-01/12-00-00/a.yaml": "",
        "multirun/2026-01-01/12-00-00/a.yaml": "",
        "mlruns/0/meta.yaml": "",
        "work/sweep/0/a.yaml": "",
    }
    write(tmp_path, {**CONF, **noise, "deep/er/a.yaml": "", "old.yml": ""})
    assert copied(tmp_path, tmp_path / "work" / "sweep") == {*CONF, "deep/er/a.yaml", "old.yml"}


def test_a_group_may_be_called_outputs(conf: Path, sweep: Path) -> None:
    write(conf, {"outputs/local.yaml": "dir: here\n"})
    assert "outputs/local.yaml" in copied(conf, sweep)


def test_links_are_followed_once(conf: Path, sweep: Path, tmp_path: Path) -> None:
    write(tmp_path / "shared", {"local.yaml": "dir: here\n"})
    (conf / "paths").symlink_to(tmp_path / "shared")
    (conf / "up").symlink_to(conf)
    (conf / "gone.yaml").symlink_to(tmp_path / "nothing.yaml")
    assert copied(conf, sweep) == {*CONF, "paths/local.yaml"}


def test_a_copy_that_broke_off_leaves_nothing_that_could_be_taken_for_one(
    conf: Path, sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, master = hydra_app(conf)

    def full(source: Path, target: Path) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", full)
        with pytest.raises(OSError, match="no space left"):
            frozen_context(context, sweep)
    assert os.listdir(sweep / "snapshot") == []  # noqa: PTH208
    assert composed(frozen_context(context, sweep), master, "db=sqlite", "x=3") == SQLITE
