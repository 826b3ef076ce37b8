"""What a sweep's parent run shows once trials have ended: charts, leaderboard, importances, and who is champion.

Everything comes out of the study, so that it can be made anew at any time; what is up to date is left as it is.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from optuna.study import Study

from besom.compare import champion, importances, shared_view
from besom.compare.charts import Chart
from besom.compare.trials import SweepTrials
from besom.compare.views import charts_of
from besom.sweep.run_ids import run_id_of
from besom.tables import title
from besom.temporary import temporary_folder
from besom.tracking import log_tags, log_values, mlflow_client

STAMP = "charts"
"""Tag of the parent run: of how many trials, and of which best one, its charts are."""


def record(uri: str, study: Study) -> None:
    """Bring the parent run of a sweep up to date.

    Args:
        uri: MLflow's, where the sweep's runs are.

    Raises:
        Exception: whatever MLflow raises where it cannot be reached; nothing that counts is lost then.
    """
    client = mlflow_client(uri)
    trials = SweepTrials.of(study)
    parent = _parent(client, trials.name)
    if parent is None:
        return
    if not _is_of(parent, trials):
        _draw(client, parent, study, trials)
    best = trials.best
    run_id = run_id_of(best, trials.run_ids) if best is not None else None
    if best is not None and run_id is not None:
        champion.crown(
            *(client, trials.name, str(study.user_attrs.get("id")), run_id),
            *(best.number, best.values[0]),
            is_maximized=trials.is_maximized,
        )


def _draw(client: Any, parent: Any, study: Study, trials: SweepTrials) -> None:
    """Log what is to be seen of the sweep; last of which trials that is: interrupted, the next start does it again."""
    run_id, shares = parent.info.run_id, importances.of(trials)
    with temporary_folder() as folder:
        write(folder, study, trials, charts_of(trials, shares))
        client.log_artifacts(run_id, str(folder))
    client.set_experiment_tag(parent.info.experiment_id, shared_view.TAG, shared_view.state(trials))
    if shares:
        log_values(client, run_id, {_metric(param): share for param, share in shares.items()})
    log_tags(client, run_id, {STAMP: _stamp(trials)})


def recorded_importances(client: Any, trials: SweepTrials) -> dict[str, float] | None:
    """Return the importances that the parent run has of these trials, None where it has none, or of others.

    To reckon them anew takes scikit-learn, whose import is most of the time that a report may take.
    """
    parent = _parent(client, trials.name)
    if parent is None or not _is_of(parent, trials):
        return None
    metrics = parent.data.metrics
    of_all = importances.shared_params(trials)  # a metric of another one is left from a record of fewer trials
    shares = {name: metrics[key] for name in of_all if (key := _metric(name)) in metrics}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _stamp(trials: SweepTrials) -> str:
    return f"{len(trials.ended)} trials, best {trials.best.number if trials.best else '-'}"


def _is_of(parent: Any, trials: SweepTrials) -> bool:
    return bool(parent.data.tags.get(STAMP) == _stamp(trials))


def write(folder: Path, study: Study, trials: SweepTrials, charts: list[Chart]) -> None:
    """Write ``charts.html``, ``charts/*.png`` and ``leaderboard.csv``."""
    from besom.compare.frame import board_csv
    from besom.compare.page import charts_page
    from besom.compare.still import picture

    (folder / "leaderboard.csv").write_text(board_csv(study, trials.ended), encoding="utf-8")
    if not charts:
        return
    (folder / "charts.html").write_text(charts_page(trials, charts), encoding="utf-8")
    (folder / "charts").mkdir()
    for chart in charts:
        (folder / "charts" / f"{chart.slug}.png").write_bytes(picture(chart))


def _parent(client: Any, sweep: str) -> Any:
    experiment = client.get_experiment_by_name(sweep)
    if experiment is None:
        return None
    found = client.search_runs([experiment.experiment_id], "tags.kind = 'sweep'", max_results=1)
    return found[0] if found else None


def _metric(param: str) -> str:
    return "importance." + re.sub(r"[^\w./ -]", "_", title(param))
