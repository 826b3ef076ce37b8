"""What a sweep's own run in MLflow shows: charts, leaderboard, importances; and the champion in the registry."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

import optuna
import pytest
from stored import study_in, trial

from besom.app.store import create_store
from besom.compare import champion, importances
from besom.compare.record import record, recorded_importances
from besom.compare.trials import SweepTrials
from besom.errors import BesomError
from besom.paths import Store
from besom.tracking import MlflowTracker

pytestmark = pytest.mark.usefixtures("_no_server")


@pytest.fixture
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store.at(tmp_path_factory.mktemp("project") / "mlruns")
    create_store(made)
    return made


@pytest.fixture(scope="module")
def client(store: Store) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(store.mlflow_uri)


def tracker_of(store: Store, name: str) -> MlflowTracker:
    tracker = MlflowTracker()
    tracker.open_sweep(name, {"paths": {"store": str(store.root)}, "tracking": {"uri": None}})
    return tracker


def run_with_model(client: Any, tracker: MlflowTracker, number: int) -> str:
    """Make a trial's run with a logged model, as a trial does, but for the model's files."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    run_id = tracker.start_trial(number, {}, {})
    logged = client.create_logged_model(client.get_run(run_id).info.experiment_id, name="model", source_run_id=run_id)
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return run_id


def champion_run(client: Any, name: str) -> str:
    run_id: str = client.get_model_version_by_alias(name, champion.ALIAS).run_id
    return run_id


class Sweep:
    """A sweep of which a test makes one trial after another."""

    def __init__(self, store: Store, client: Any, name: str) -> None:
        self.client, self.name, self.uri = client, name, store.mlflow_uri
        self.tracker = tracker_of(store, name)
        self.study: optuna.Study = study_in(store, name)

    def add(self, *values: float) -> list[str]:
        run_ids = []
        for value in values:
            number = len(self.study.trials)
            run_ids.append(run_with_model(self.client, self.tracker, number))
            params = {"model.conv.0.filters": 1 + number, "model.activation": ("relu", "tanh")[number % 2]}
            facts = {"run_id": run_ids[-1], "n_params": 100 * (number + 1)}
            self.study.add_trial(trial("complete", [value], params, reports=[value], seconds=1, ago=5, **facts))
        return run_ids

    @property
    def id(self) -> str:
        return str(self.study.user_attrs["id"])

    @property
    def parent(self) -> Any:
        experiment = self.client.get_experiment_by_name(self.name)
        return self.client.search_runs([experiment.experiment_id], "tags.kind = 'sweep'")[0]


NAMES = (f"sweep-{number}" for number in itertools.count())


@pytest.fixture
def sweep(store: Store, client: Any) -> Sweep:
    return Sweep(store, client, next(NAMES))


def test_the_parent_run_has_charts_a_leaderboard_and_importances(sweep: Sweep, client: Any, tmp_path: Path) -> None:
    sweep.add(0.90, 0.95, 0.92, 0.97)
    record(sweep.uri, sweep.study)
    parent = sweep.parent
    folder = Path(client.download_artifacts(parent.info.run_id, "", str(tmp_path)))
    pictures = {file.stem for file in (folder / "charts").glob("*.png")}
    assert {"history", "importances", "parallel_coordinates", "pareto_front", "timeline"} <= pictures
    page = (folder / "charts.html").read_text(encoding="utf-8")
    assert all(f'id="chart-{slug}"' in page for slug in pictures)
    with (folder / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        board = list(csv.DictReader(file))
    assert [float(row["objective"]) for row in board] == [0.97, 0.95, 0.92, 0.90]
    shares = {name: value for name, value in parent.data.metrics.items() if name.startswith("importance.")}
    assert set(shares) == {"importance.conv.0.filters", "importance.activation"}
    assert sum(shares.values()) == pytest.approx(1)


def test_recorded_importances_are_those_of_these_trials_or_none(sweep: Sweep, client: Any) -> None:
    sweep.add(0.90, 0.95, 0.92, 0.97)
    assert recorded_importances(client, SweepTrials.of(sweep.study)) is None
    record(sweep.uri, sweep.study)
    trials = SweepTrials.of(sweep.study)
    assert recorded_importances(client, trials) == pytest.approx(importances.of(trials))
    sweep.add(0.91)
    assert recorded_importances(client, SweepTrials.of(sweep.study)) is None


def test_charts_are_drawn_anew_only_where_trials_have_ended_since(
    sweep: Sweep, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep.add(0.90, 0.95)
    record(sweep.uri, sweep.study)

    def refuse(*arguments: Any) -> None:
        raise AssertionError("written again")

    with monkeypatch.context() as patched:
        patched.setattr("besom.compare.record.write", refuse)
        record(sweep.uri, sweep.study)
        sweep.add(0.91)
        with pytest.raises(AssertionError, match="written again"):
            record(sweep.uri, sweep.study)
    record(sweep.uri, sweep.study)
    assert sweep.parent.data.tags["charts"] == "3 trials, best 1"


def test_the_alias_moves_only_to_a_better_trial(sweep: Sweep, client: Any) -> None:
    first, second = sweep.add(0.90, 0.95)
    record(sweep.uri, sweep.study)
    assert champion_run(client, sweep.name) == second != first
    sweep.add(0.95, 0.93)  # as good is not better
    record(sweep.uri, sweep.study)
    assert champion_run(client, sweep.name) == second
    (better,) = sweep.add(0.96)
    record(sweep.uri, sweep.study)
    version = client.get_model_version_by_alias(sweep.name, champion.ALIAS)
    assert (version.run_id, str(version.version), version.tags) == (better, "2", {"trial": "4", "objective": "0.96"})


def test_of_a_loss_the_smaller_is_the_champion(sweep: Sweep, client: Any) -> None:
    run_ids = sweep.add(0.5, 0.4)
    for number, value in enumerate((0.5, 0.4)):
        champion.crown(client, sweep.name, sweep.id, run_ids[number], number, value, is_maximized=False)
    assert champion_run(client, sweep.name) == run_ids[1]
    assert champion.crown(client, sweep.name, sweep.id, run_ids[0], 0, 0.5, is_maximized=False) is None


def test_a_model_that_somebody_else_registered_is_left_alone(sweep: Sweep, client: Any) -> None:
    client.create_registered_model(sweep.name)
    (run_id,) = sweep.add(0.9)
    with pytest.raises(BesomError, match="that this sweep did not register, which is left alone"):
        champion.crown(client, sweep.name, sweep.id, run_id, 0, 0.9, is_maximized=True)
    champion.forget(client, sweep.name, sweep.id)
    assert champion.find(client, sweep.name) is not None


def test_a_deleted_sweep_leaves_no_registered_model(sweep: Sweep, client: Any) -> None:
    (run_id,) = sweep.add(0.9)
    champion.crown(client, sweep.name, sweep.id, run_id, 0, 0.9, is_maximized=True)
    champion.forget(client, sweep.name, sweep.id)
    assert champion.find(client, sweep.name) is None
    champion.forget(client, sweep.name, sweep.id)


def test_a_run_without_a_model_becomes_no_champion(sweep: Sweep, client: Any) -> None:
    run_id = sweep.tracker.start_trial(0, {}, {})
    assert champion.crown(client, sweep.name, sweep.id, run_id, 0, 0.9, is_maximized=True) is None


def test_a_sweep_that_mlflow_does_not_know_is_passed_over(store: Store) -> None:
    record(store.mlflow_uri, study_in(store, "unknown"))


def test_the_champion_of_another_sweep_of_that_name_is_left_alone(sweep: Sweep, client: Any) -> None:
    (run_id,) = sweep.add(0.9)
    champion.crown(client, sweep.name, "id of another store's", run_id, 0, 0.9, is_maximized=True)
    champion.forget(client, sweep.name, sweep.id)
    assert champion.find(client, sweep.name) is not None
    for _ in range(2):  # the charts are there all the same, and are not drawn a second time
        with pytest.raises(BesomError, match="the best trial has no alias 'champion'"):
            record(sweep.uri, sweep.study)
        assert sweep.parent.data.tags["charts"] == "1 trials, best 0"


def test_importances_of_an_earlier_record_are_not_taken_for_those_of_now(sweep: Sweep, client: Any) -> None:
    sweep.add(0.90, 0.95, 0.92, 0.97)
    record(sweep.uri, sweep.study)
    sweep.study.add_trial(trial("complete", [0.93], {"model.activation": "relu"}, n_params=5))
    record(sweep.uri, sweep.study)
    trials = SweepTrials.of(sweep.study)
    assert set(importances.of(trials)) == {"model.activation"}
    assert recorded_importances(client, trials) == pytest.approx(importances.of(trials))


def test_a_confirmed_champion_keeps_its_alias_until_another_one_is_confirmed(sweep: Sweep, client: Any) -> None:
    first, second = sweep.add(0.90, 0.95)
    record(sweep.uri, sweep.study)
    tags = {champion.CONFIRMED: "true", "confirmed_mean": "0.91"}
    version = champion.confirm(client, sweep.name, sweep.id, first, 0, 0.90, tags)
    assert champion_run(client, sweep.name) == first != second
    (better,) = sweep.add(0.99)
    record(sweep.uri, sweep.study)
    found = client.get_model_version_by_alias(sweep.name, champion.ALIAS)
    assert (found.run_id, str(found.version)) == (first, version)
    assert found.tags == {"trial": "0", "objective": "0.9", **tags}
    champion.confirm(client, sweep.name, sweep.id, better, 2, 0.99, tags)
    assert champion.CONFIRMED not in client.get_model_version(sweep.name, version).tags
    assert champion_run(client, sweep.name) == better
    again = champion.confirm(client, sweep.name, sweep.id, first, 0, 0.90, {**tags, "confirmed_mean": "0.92"})
    assert again == version
    assert client.get_model_version_by_alias(sweep.name, champion.ALIAS).tags["confirmed_mean"] == "0.92"


def test_a_confirmation_leaves_a_model_that_somebody_else_registered_alone(sweep: Sweep, client: Any) -> None:
    client.create_registered_model(sweep.name)
    (run_id,) = sweep.add(0.9)
    with pytest.raises(BesomError, match="which is left alone"):
        champion.confirm(client, sweep.name, sweep.id, run_id, 0, 0.9, {champion.CONFIRMED: "true"})
