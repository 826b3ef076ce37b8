"""Where configs come from: the package's ``conf/`` and ``sweeps/``, overlaid by the user's project.

A project is the nearest folder above the working directory with a ``conf/config.yaml`` that names
besom; without one it is the working directory, whose ``sweeps/`` counts. Both are laid together in
one staged folder ``{conf,sweeps}``, which Hydra composes from and which a sweep keeps as its snapshot.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import besom
from besom.errors import ConfigError, did_you_mean

PACKAGE = Path(besom.__file__).parent


def packaged() -> Path:
    """Return the folder with besom's own ``conf/`` and ``sweeps/``: in the wheel, or in its source tree."""
    in_wheel = PACKAGE / "_project"
    return in_wheel if in_wheel.is_dir() else PACKAGE.parents[1]


@dataclass(frozen=True)
class Project:
    """The user's folder.

    Args:
        root: what relative store paths are taken from.
        has_conf: whether its ``conf/`` is besom's to read.
    """

    root: Path
    has_conf: bool

    @classmethod
    def around(cls, folder: Path) -> Project:
        """Return the project that ``folder`` is in."""
        for candidate in (folder, *folder.parents):
            config = candidate / "conf" / "config.yaml"
            if config.is_file() and "besom" in config.read_text(encoding="utf-8", errors="replace"):
                return cls(candidate, has_conf=True)
        return cls(folder, has_conf=False)

    @property
    def has_own_paths(self) -> bool:
        """Whether the project's config may put the store elsewhere than the package's does."""
        names = ("config.yaml", "paths/default.yaml")
        own = [self.root / "conf" / name for name in names if self.has_conf]
        texts = {file.relative_to(self.root): file.read_bytes() for file in own if file.is_file()}
        return any((packaged() / name).read_bytes() != text for name, text in texts.items())

    @contextmanager
    def staged(self) -> Iterator[Stage]:
        """Lay package and project together in a temporary folder, gone after the ``with``."""
        with tempfile.TemporaryDirectory(prefix="besom-") as folder:
            stage = Stage(Path(folder))
            stage.lay(packaged() / "conf", "conf")
            stage.lay(packaged() / "sweeps", "sweeps")
            if self.has_conf:
                stage.lay(self.root / "conf", "conf")
            stage.lay(self.root / "sweeps", "sweeps")
            yield stage


@dataclass(frozen=True)
class Stage:
    """A folder that holds ``conf/`` and ``sweeps/`` and nothing else."""

    folder: Path

    @property
    def conf(self) -> Path:
        return self.folder / "conf"

    @property
    def sweeps(self) -> Path:
        return self.folder / "sweeps"

    def lay(self, source: Path, name: str) -> None:
        """Copy the YAML files of ``source`` over those of the group folder ``name``."""
        for file in sorted(source.rglob("*.yaml")):
            target = self.folder / name / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)

    def sweep_names(self) -> list[str]:
        """Return the names of the sweep files, sorted."""
        return sorted(file.stem for file in self.sweeps.glob("*.yaml"))

    def question(self, name: str) -> str:
        """Return what a sweep file says it asks: its first line of comment that is no directive."""
        lines = (self.sweeps / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
        comments = [line.lstrip("# ") for line in lines if line.startswith("#") and "@package" not in line]
        return comments[0] if comments else ""

    def take_sweep(self, name_or_path: str) -> str:
        """Return the stem of a sweep given by name, or by the path of a YAML file, which is copied in.

        Raises:
            ConfigError: there is no such sweep or file.
        """
        path = Path(name_or_path).expanduser()
        if path.suffix not in (".yaml", ".yml") and len(path.parts) == 1:
            return self._known(name_or_path)
        if not path.is_file():
            raise ConfigError(
                f"sweep file {name_or_path!r} does not exist; expected a YAML file or one of {self._names()}"
            )
        shutil.copyfile(path, self.sweeps / f"{path.stem}.yaml")
        return path.stem

    def _known(self, name: str) -> str:
        if name not in self.sweep_names():
            near = did_you_mean(name, self.sweep_names())
            raise ConfigError(
                f"sweep {name!r} is not known; expected one of {self._names()}, or the path of a YAML file{near}"
            )
        return name

    def _names(self) -> str:
        return ", ".join(self.sweep_names())

    def keep_as(self, snapshot: Path) -> None:
        """Keep this stage as a sweep's snapshot; whole or not at all."""
        snapshot.parent.mkdir(parents=True, exist_ok=True)
        half_made = snapshot.with_name(f".{snapshot.name}")
        shutil.rmtree(half_made, ignore_errors=True)
        shutil.copytree(self.folder, half_made)
        half_made.rename(snapshot)
