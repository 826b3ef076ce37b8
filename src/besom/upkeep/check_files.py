"""Checks of the files that MLflow names: a trial's config, its fingerprint, its model; those on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from besom.contained import local_path
from besom.upkeep.books import Books
from besom.upkeep.findings import Finding, error, some
from besom.upkeep.run_records import RunRecord

OF_TRIAL = {"complete": ("config.yaml", "fingerprint.json"), "pruned": ("config.yaml", "fingerprint.json")}
OF_MODEL = ("MLmodel", "data/model.keras")
"""A trial's model is Keras': these two files are what it cannot be without."""


def artifacts(books: Books) -> Iterator[Finding]:
    """Files of ended trials that are missing or empty."""
    if books.holder is not None:
        return
    for trial in books.trials:
        run, how = books.run_of(trial), trial.user_attrs.get("outcome")
        if run is None or books.is_waiting(trial) or how not in OF_TRIAL or not trial.state.is_finished():
            continue
        where = f"{books.name}/{trial.number}"
        wanting = [*_wanting(run.artifacts, OF_TRIAL[how]), *(_of_model(run) if how == "complete" else ())]
        if wanting:
            again = "" if any("config.yaml" in one for one in wanting) else f", or besom reproduce {where}"
            yield error(where, f"missing or empty: {some(wanting)}", f"put it back from a copy of the store{again}")


def _of_model(run: RunRecord) -> list[str]:
    if run.models is None:
        return []
    return _wanting(run.models[-1], OF_MODEL) if run.models else ["its model"]


def _wanting(address: str, names: tuple[str, ...]) -> list[str]:
    """Return which files of an address are not there; none of one that is elsewhere than on this machine's disks."""
    path = local_path(address)
    if path is None or not path.is_absolute():
        return []
    return [str(path / name) for name in names if not _is_whole(path / name)]


def _is_whole(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0
