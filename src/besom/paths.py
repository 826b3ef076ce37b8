"""The owner of every name on disk, and the only place that writes files atomically.

A store is one folder (``mlruns/``): ``mlflow.db``, ``studies.db``, ``artifacts/``, ``jobs/SWEEP/TRIAL/``,
``jobs/SWEEP/snapshot/``, ``reports/``. It exists when ``mlflow.db`` does.
"""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from besom.errors import ConfigError

SWEEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def checked_sweep_name(name: str) -> str:
    """Return ``name`` if it can be a folder, a study and an experiment; else raise `ConfigError`."""
    if not SWEEP_NAME.fullmatch(name):
        raise ConfigError(
            f"sweep name {name!r} cannot be used; expected 1 to 64 letters, digits, '.', '_' or '-', "
            "starting with a letter or digit; give another one with --name"
        )
    return name


@dataclass(frozen=True)
class Store:
    """The folder with everything; every path in it is asked for here.

    Args:
        root: absolute path of the folder, existing or not.
    """

    root: Path

    @classmethod
    def at(cls, path: str | Path, base: Path | None = None) -> Store:
        """Return the store at ``path``, relative paths taken from ``base`` (default: the working directory).

        Raises:
            ConfigError: the path has a character that means something else in a database's URL.
        """
        root = os.path.abspath((base or Path.cwd()) / Path(path).expanduser())
        if wrong := [character for character in "%?" if character in root]:
            raise ConfigError(f"paths.store={root!r} has {wrong[0]!r} in it, which a database's URL reads otherwise")
        return cls(Path(root))

    @property
    def exists(self) -> bool:
        return self.mlflow_db.is_file()

    @property
    def mlflow_db(self) -> Path:
        return self.root / "mlflow.db"

    @property
    def studies_db(self) -> Path:
        return self.root / "studies.db"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def mlflow_uri(self) -> str:
        return f"sqlite:///{self.mlflow_db}"

    @property
    def studies_uri(self) -> str:
        return f"sqlite:///{self.studies_db}"

    def sweep(self, name: str) -> Path:
        """Return the folder of a sweep's jobs."""
        return self.root / "jobs" / checked_sweep_name(name)

    def job(self, sweep: str, trial: int) -> Path:
        """Return the job folder of one trial; trial numbers are job numbers."""
        return self.sweep(sweep) / str(trial)

    def snapshot(self, sweep: str) -> Path:
        """Return the folder with the ``conf/`` and ``sweeps/`` that a sweep was started with."""
        return self.sweep(sweep) / "snapshot"

    def images(self, sweep: str) -> Path:
        """Return the folder with the decoded images that the lanes of a running sweep share."""
        return self.sweep(sweep) / "images"

    def lock(self, sweep: str) -> Path:
        """Return the file that whoever works on a sweep holds locked; beside its folder, which may be deleted."""
        return self.root / "jobs" / ".locks" / checked_sweep_name(sweep)

    def tracking_uri(self, sweep: str) -> Path:
        """Return the file with the URI that a sweep's runs went to, where that is not the usual one."""
        return self.sweep(sweep) / "tracking_uri"


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` so that a reader sees the old file or the whole new one, also after ``kill -9``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(6)}"
    # with the rights that any new file has here; what tempfile makes nobody else could read
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
