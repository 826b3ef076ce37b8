"""The owner of every name on disk, and the only place that writes files atomically.

A store is one folder (``mlruns/``): ``mlflow.db``, ``studies.db``, ``artifacts/``, ``jobs/SWEEP/TRIAL/``,
``jobs/SWEEP/snapshot/``, ``reports/``, and ``spool/`` while MLflow is away. It exists when ``mlflow.db`` does.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from besom.databases import is_there
from besom.errors import ConfigError, quoted
from besom.files import expanded

MOST_BYTES = 200
"""Of a name that becomes a folder; file systems take 255."""
SWEEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SPOOL = "BESOM_SPOOL"
"""Variable with the name of the sweep that a process works for, set by its parent."""
OUTSIDE_SWEEPS = "_runs"
"""What stands for a sweep's name where runs of none are meant; no sweep can be called so."""


def checked_sweep_name(name: str) -> str:
    """Return ``name`` if it can be a folder, a study and an experiment; else raise `ConfigError`."""
    if not SWEEP_NAME.fullmatch(name):
        raise ConfigError(
            f"sweep name {quoted(name)} cannot be used; expected 1 to 64 letters, digits, '.', '_' or '-', "
            "starting with a letter or digit; give another one with --name"
        )
    return name


REPRODUCTIONS = "reproductions"
"""MLflow's experiment with the reproductions of exported folders."""
RESERVED = re.compile(rf"(?i)(?:train|{REPRODUCTIONS}|(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?|.*\.|.*-deleted-\d+)")
"""Names that no new sweep gets: other experiments' of besom, what Windows cannot keep, what a server's trash has."""


def checked_new_name(name: str, known: Iterable[str]) -> str:
    """Return the name of a sweep that is to be made.

    Args:
        known: names of the sweeps that there are.

    Raises:
        ConfigError: it cannot be used, is reserved, or differs from another sweep's by case alone.
    """
    checked_sweep_name(name)
    if RESERVED.fullmatch(name):
        raise ConfigError(f"sweep name {name!r} is reserved, or cannot be a folder everywhere; give another --name")
    near = [one for one in known if one != name and one.casefold() == name.casefold()]
    if near:
        raise ConfigError(
            f"sweep name {name!r} differs from sweep {near[0]!r} by case alone, and some disks hold them for one; "
            "give another --name"
        )
    return name


def checked_experiment(name: str) -> str:
    """Return the name of an MLflow experiment if it can be a folder in the store; else raise `ConfigError`."""
    if not name.strip(". ") or re.search(r"[/\\\x00-\x1f\x7f]", name) or len(name.encode()) > MOST_BYTES:
        raise ConfigError(
            f"tracking.experiment={quoted(name)} cannot be used; expected a name of at most {MOST_BYTES} bytes without "
            "slashes, which can be a folder"
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
            ConfigError: the path has a character that means something else in a database's URL, or in a path.
        """
        root = os.path.abspath((base or Path.cwd()) / expanded(path))
        if wrong := [character for character in "%?" if character in root]:
            raise ConfigError(f"paths.store={root!r} has {wrong[0]!r} in it, which a database's URL reads otherwise")
        if "\0" in root or not root.isprintable():
            raise ConfigError(f"paths.store={quoted(root)} has a control character in it; expected a path without")
        return cls(Path(root))

    @property
    def exists(self) -> bool:
        return is_there(self.mlflow_db)

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

    @property
    def spools(self) -> Path:
        return self.root / "spool"

    def spool(self, sweep: str) -> Path:
        """Return the folder of what MLflow was not told yet, of a sweep or of `OUTSIDE_SWEEPS`: one folder a run."""
        return self.spools / (sweep if sweep == OUTSIDE_SWEEPS else checked_sweep_name(sweep))

    def spooled(self, sweep: str) -> list[Path]:
        """Return the journals in it, one for each run that waits, see `besom.spool.journal`."""
        return sorted(self.spool(sweep).glob("[!.]*/operations.jsonl"))

    def images(self, sweep: str) -> Path:
        """Return the folder with the decoded images that the lanes of a running sweep share."""
        return self.sweep(sweep) / "images"

    def lock(self, sweep: str) -> Path:
        """Return the file that whoever works on a sweep holds locked; beside its folder, which may be deleted."""
        return self.locks / checked_sweep_name(sweep)

    @property
    def locks(self) -> Path:
        """The folder with the locks of all sweeps."""
        return self.root / "jobs" / ".locks"

    def tracking_uri(self, sweep: str) -> Path:
        """Return the file with the URI that a sweep's runs went to, where that is not the usual one."""
        return self.sweep(sweep) / "tracking_uri"

    def storage(self, sweep: str) -> Path:
        """Return the file with the URL of the server that a sweep's study is in, where that is not the store's own."""
        return self.sweep(sweep) / "storage"

    def data_digest(self, sweep: str) -> Path:
        """Return the file with the SHA-256 of the images that a sweep was started with."""
        return self.sweep(sweep) / "data_digest"


DRAFT = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{12}")
"""The name that a file has while it is written."""


def remove_drafts(folder: Path) -> None:
    """Remove what `write_atomically` has left in a folder, and in those in it, when it was killed.

    The caller holds the lock of whatever is written there, so that nobody is writing.
    """
    for path in (*folder.glob(".*"), *folder.glob("*/.*")):
        if DRAFT.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


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
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk is told without saying where
            error.filename = str(path)
        raise
