"""`besom report`: gathers what the store has of a sweep and writes its page."""

from __future__ import annotations

import sys
from pathlib import Path

from optuna.study import Study

from besom.compare.catalog import find_run, open_study
from besom.compare.champion_page import ChampionPage
from besom.compare.record import recorded_importances
from besom.compare.report import Known, write_report
from besom.compare.trials import SweepTrials
from besom.configs.project import Stage
from besom.errors import ConfigError, NotFound, discreet
from besom.paths import Store
from besom.temporary import temporary_folder

MOST_BYTES = 500_000_000
"""Of all the artifacts of a run: pictures and tables."""


def report_sweep(store: Store, name: str, output: Path | None) -> tuple[Path, Path]:
    """Write the page of a sweep and the CSV beside it; return both.

    Args:
        output: the HTML file; None takes ``reports/NAME.html`` in the store.

    Raises:
        NotFound: there is no store, or no such sweep in it.
        ConfigError: the file cannot be written, or the best trial's artifacts are not in the store or too large.
    """
    study = open_study(store, name)
    page = output or store.reports / f"{name}.html"
    if page.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--output={str(page)!r} is no HTML file; expected a name that ends with .html")
    with temporary_folder() as folder:
        known = _known(store, study, folder)
    try:
        return write_report(study, known, page)
    except OSError as error:
        raise ConfigError(f"{page} cannot be written: {error.strerror}; give another file with --output") from error


def _known(store: Store, study: Study, folder: Path) -> Known:
    """Return what MLflow has of the sweep; little where no trial is complete, or the best one's run is gone."""
    question = _question(store, study.study_name)
    try:
        run = find_run(store, study.study_name)
    except NotFound:
        return Known(question=question)
    run.refuse_links()
    run.refuse_bulk("", MOST_BYTES)
    try:
        run.client.download_artifacts(run.run_id, "", str(folder))
        champion = ChampionPage.read(folder, run.run_id, run.tags)
        return Known(champion, question, recorded_importances(run.client, SweepTrials.of(study)))
    except Exception as error:  # of any artifact store; the study has all the numbers
        why = f"which cannot be fetched: {discreet(error)}"
        sys.stderr.write(f"besom: the page lacks the best trial's pictures, {why}\n")
        return Known(question=question)


def _question(store: Store, name: str) -> str:
    """Return what the sweep's file asked when it was started; a renamed sweep's file has another name."""
    stage = Stage(store.snapshot(name))
    return stage.question(name) if name in stage.sweep_names() else ""
