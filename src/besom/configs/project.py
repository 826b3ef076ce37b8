"""Where configs come from: the package's ``conf/`` and ``sweeps/``, overlaid by the user's project.

A project is the nearest folder above the working directory with a ``conf/config.yaml`` that names
besom; without one it is the working directory, whose ``sweeps/`` counts. Both are laid together in
one staged folder ``{conf,sweeps}``, which Hydra composes from and which a sweep keeps as its snapshot.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import besom
from besom.configs.files import MOST_BYTES, read_text, read_yaml, refuse_avalanche
from besom.errors import MOST_QUOTED, ConfigError, did_you_mean, quoted
from besom.files import Unusable, expanded, read_bounded
from besom.temporary import temporary_folder

PACKAGE = Path(besom.__file__).parent
REFUSED = "# besom cannot use this file: "
"""How what lies in a stage in the place of a file begins that no parser may have."""


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
            if _names_besom(config):
                return cls(candidate, has_conf=True)
        return cls(folder, has_conf=False)

    @property
    def has_own_paths(self) -> bool:
        """Whether the project's config may put the store elsewhere than the package's does."""
        names = ("config.yaml", "paths/default.yaml")
        own = [self.root / "conf" / name for name in names if self.has_conf]
        texts = {file.relative_to(self.root): _content(file) for file in own if file.exists()}
        return any((packaged() / name).read_bytes() != text for name, text in texts.items())

    @contextmanager
    def staged(self) -> Iterator[Stage]:
        """Lay package and project together in a temporary folder, gone after the ``with``."""
        with temporary_folder() as folder:
            stage = Stage(folder)
            stage.lay(packaged() / "conf", "conf")
            stage.lay(packaged() / "sweeps", "sweeps")
            if self.has_conf:
                stage.lay(self.root / "conf", "conf")
            stage.lay(self.root / "sweeps", "sweeps")
            yield stage


def _names_besom(config: Path) -> bool:
    """Tell whether there is a config that names besom; else the folders above may have one."""
    return b"besom" in (_content(config) or b"")


def _content(config: Path) -> bytes | None:
    try:
        return read_bounded(config, MOST_BYTES)
    except Unusable:
        return None


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
        """Copy the YAML files of ``source`` over those of the group folder ``name``.

        A file that no parser may have is not needed by most commands: in its place lies one that says why, and is
        no YAML, so that `besom.configs.compose` tells whoever needs it.
        """
        for file in sorted(source.rglob("*.yaml")):
            if not file.is_dir():
                _lay_file(file, self.folder / name / file.relative_to(source))

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
        path = expanded(name_or_path)
        if path.suffix not in (".yaml", ".yml") and len(path.parts) == 1:
            return self._known(name_or_path)
        try:
            text = read_yaml(path)
        except Unusable as error:
            reason = str(error).removeprefix("it ") if str(error) == "it does not exist" else f"cannot be read: {error}"
            raise ConfigError(
                f"sweep file {quoted(name_or_path)} {reason}; expected a YAML file or one of {self._names()}"
            ) from error
        (self.sweeps / f"{path.stem}.yaml").write_text(text, encoding="utf-8", newline="")
        return path.stem

    def chooses_launcher(self, stem: str) -> bool:
        """Tell whether a sweep file has a line for ``hydra/launcher`` in its defaults list."""
        text = (self.sweeps / f"{stem}.yaml").read_text(encoding="utf-8")
        return re.search(r"^\s*-\s*(override\s+)?/?hydra/launcher\s*:", text, re.MULTILINE) is not None

    def _known(self, name: str) -> str:
        if name not in self.sweep_names():
            near = did_you_mean(name[:MOST_QUOTED], self.sweep_names())
            raise ConfigError(
                f"sweep {quoted(name)} is not known; expected one of {self._names()}, or the path of a YAML file{near}"
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


def _lay_file(file: Path, target: Path) -> None:
    """Copy a config file, or put the reason why not in its place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        text = read_text(file)
        if target.is_file() and target.read_text(encoding="utf-8") == text:  # the package's, which is known
            return
        refuse_avalanche(text)
    except Unusable as error:
        text = f"{REFUSED}{error}\n@ is how no YAML begins\n"
    target.write_text(text, encoding="utf-8", newline="")
