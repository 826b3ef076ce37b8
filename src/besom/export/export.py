"""A COMPLETE run becomes a folder with which anybody can train it again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from besom.compare.catalog import StoredRun
from besom.errors import BesomError, NotFound, one_line
from besom.export.code import OwnCode
from besom.export.config_text import command, config_text, without_places
from besom.export.environment import LOCK, Environment
from besom.export.expected import expected_of
from besom.export.folder import refuse_taken, written_whole
from besom.export.model_file import save_model
from besom.export.readme import name_of, readme
from besom.provenance.origin import DIFF
from besom.reproduce.exported import EXPECTED
from besom.reproduce.original import Original
from besom.retrain.here import CODE
from besom.retrain.trust import trusted_content
from besom.temporary import temporary_folder

MOST_BYTES = 4_000_000
"""Of a stored diff; besom never writes one of that size."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        command: trains it again, in the folder.
        files: names below the folder, sorted.
        missing: files of the user's own code that are gone or were changed.
    """

    folder: Path
    command: str
    files: list[str]
    missing: list[str]


def export(run: StoredRun, folder: Path, allow: Sequence[str] = ()) -> Exported:
    """Write a run into a folder that is empty or not there; whole or not at all.

    Args:
        allow: packages that its config may import a loader or builder from, besides besom itself.

    Raises:
        NotFound: the run is not COMPLETE, or an artifact is gone.
        ConfigError: the folder is taken, or the config may not be trusted.
        BesomError: the model, or another result, is not what the trial left.
    """
    refuse_taken(folder)
    original = Original.of(run)
    expected = expected_of(run, original)
    content = _trusted(run, allow)
    groups = without_places(content)
    environment, code = Environment.of(run, original.fingerprint), OwnCode.of(content, original.fingerprint)
    diff, python = _diff(run), str((original.fingerprint.get("packages") or {}).get("python", ""))
    with written_whole(folder) as draft:
        texts = {
            "config.yaml": config_text(groups, f"{name_of(expected)}, as besom export wrote it"),
            LOCK: environment.text,
            "fingerprint.json": _json(original.fingerprint),
            EXPECTED: _json(expected),
            "README.md": readme(groups, expected, environment, code, python, diff),
        }
        files = {name: text.encode() for name, text in texts.items()} | ({DIFF: diff} if diff is not None else {})
        _write(draft, {**files, **{f"{CODE}/{name}": text for name, text in code.files.items()}})
        save_model(run, content, draft / "model.keras")
        written = sorted(file.relative_to(draft).as_posix() for file in draft.rglob("*") if file.is_file())
    return Exported(folder, command(groups), written, code.missing)


def _trusted(run: StoredRun, allow: Sequence[str]) -> dict[str, Any]:
    """Return the run's trusted config with the name of its data file alone: no image is read here."""
    content = run.config()
    data = content.get("data")
    path = data.get("path") if isinstance(data, Mapping) else None
    return trusted_content(content, run, allow, Path(str(path)).name if path else None)


def _diff(run: StoredRun) -> bytes | None:
    """Return the uncommitted changes that a run was trained with, None where there were none."""
    try:
        run.refuse_links(DIFF)
        run.refuse_bulk(DIFF, MOST_BYTES)
        if DIFF not in {found.path for found in run.client.list_artifacts(run.run_id)}:
            return None
        with temporary_folder() as folder:
            found = Path(run.client.download_artifacts(run.run_id, DIFF, str(folder))).read_bytes()
    except Exception as error:  # MLflow raises another class for each kind of artifact store
        raise NotFound(f"the artifacts of run {run.run_id} cannot be read: {one_line(error)}") from error
    if len(found) > MOST_BYTES:
        raise BesomError(f"{DIFF} of run {run.run_id} has {len(found):,} bytes; besom writes at most {MOST_BYTES:,}")
    return found


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text)
