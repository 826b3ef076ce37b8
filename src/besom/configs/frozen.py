"""An app's config files as they were when its sweep was started: later edits reach neither its trials nor a resume.

Every folder and package on Hydra's search path that is the app's own is copied into the sweep's folder when a
config is first looked for there, and read from the copy ever after: ``SWEEP/snapshot/main-0/``. Knows nothing of
sweeps. What the app puts into the config store is code, see `besom.code_watch`.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path

from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.config_search_path import ConfigSearchPath, SearchPathElement
from hydra.types import HydraContext

from besom.configs.remembering import RememberingLoader, Repository

FOLDER_NAME = "snapshot"
SUFFIXES = (".yaml", ".yml")
OUTPUTS = ("outputs", "multirun", "mlruns")
"""Where apps write; no config group unless there are YAML files right in it."""
NOT_OF_THE_APP = ("hydra", "hydra_plugins")


def frozen_context(context: HydraContext, sweep_folder: Path) -> HydraContext:
    """Return a context that composes from copies in ``sweep_folder``, made now unless they are there.

    It can be pickled. ``hydra.searchpath`` is copied too, at the first composition.
    """
    search_path = context.config_loader.get_search_path()
    loader = RememberingLoader(search_path, FrozenRepository(search_path, sweep_folder))
    return replace(context, config_loader=loader)


def remembering_context(context: HydraContext) -> HydraContext:
    """Return a context that reads each config file once; where they are a copy already, as in besom's own sweeps."""
    return replace(context, config_loader=RememberingLoader(context.config_loader.get_search_path()))


class FrozenRepository(Repository):
    """Hydra's repository of configs, with copies in the place of the folders on the search path.

    Hydra itself makes it look elsewhere, by `initialize_sources`, where an app has a ``hydra.searchpath``.
    """

    def __init__(self, config_search_path: ConfigSearchPath, sweep_folder: Path) -> None:
        self._sweep_folder = Path(os.path.abspath(sweep_folder))
        super().__init__(config_search_path)

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        """Read from the copies of what is on a search path."""
        frozen, names = ConfigSearchPathImpl(), Counter[str]()
        for element in config_search_path.get_path():
            name = _name(element)
            path = self._frozen(element, f"{name}-{names[name]}")
            names[name] += 1
            frozen.append(element.provider, path)
        super().initialize_sources(frozen)

    def _frozen(self, element: SearchPathElement, name: str) -> str:
        """Return the path of the copy, the given one for what is not the app's own or is not there."""
        copy = self._sweep_folder / FOLDER_NAME / name
        folder = _folder(element.path)
        if folder is None:
            return str(element.path)
        if not copy.is_dir():
            if not folder.is_dir():
                return str(element.path)
            _copy(folder, copy, self._sweep_folder)
        return f"file://{copy}"


def _name(element: SearchPathElement) -> str:
    """Return what a copy is called: by its provider, so that an app may be moved between two starts."""
    provider = "searchpath" if element.provider.startswith("hydra.searchpath") else element.provider
    return re.sub(r"[^A-Za-z0-9]+", "-", provider).strip("-") or "other"


def _folder(path: str) -> Path | None:
    """Return the folder that a search path means, None where it is not the app's own or not on disk."""
    scheme, found, rest = path.rpartition("://")
    if not found or scheme == "file":
        return Path(os.path.abspath(rest))
    package = rest.replace("/", ".").rstrip(".")
    if scheme != "pkg" or package.split(".")[0] in ("", *NOT_OF_THE_APP):
        return None
    try:
        files = resources.files(package)
    except (ImportError, TypeError, ValueError):
        return None
    return files if isinstance(files, Path) else None


def _copy(source: Path, target: Path, sweep_folder: Path) -> None:
    """Copy the YAML files of a tree; who reads sees all of them or none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        for file in _configs(source, sweep_folder):
            copied = temporary / file.relative_to(source)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copied)
        temporary.chmod(0o755)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _configs(source: Path, sweep_folder: Path) -> Iterator[Path]:
    """Yield the YAML files of a tree, links followed, without what cannot be configs and may be large."""
    visited: set[str] = set()
    for path, folders, files in os.walk(source, followlinks=True):
        real = os.path.realpath(path)
        if real in visited:  # a link back up
            folders.clear()
            continue
        visited.add(real)
        folders[:] = [name for name in folders if _may_hold_configs(Path(path, name), sweep_folder)]
        yield from (Path(path, name) for name in files if name.endswith(SUFFIXES) and Path(path, name).is_file())


def _may_hold_configs(folder: Path, sweep_folder: Path) -> bool:
    if folder.name.startswith(".") or folder.name in ("__pycache__", "node_modules"):
        return False
    if (folder / "parent.lock").exists():  # another sweep, with copies of its own
        return False
    if (folder / "pyvenv.cfg").exists() or os.path.realpath(folder) == os.path.realpath(sweep_folder):
        return False
    return folder.name not in OUTPUTS or any(file.suffix in SUFFIXES for file in folder.iterdir())
