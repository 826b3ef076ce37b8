"""What MLflow shows of a sweep and of each trial, on a real store."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from besom.app.store import create_store
from besom.configs.schema import PathsConfig, TrackingConfig, TrainConfig, TrialConfig
from besom.data import Dataset
from besom.datasets.scaling import Scaling
from besom.errors import ConfigError, NotFound
from besom.paths import Store
from besom.spool.client import RunWriter
from besom.tracker import NoTracker, Tracker
from besom.tracking import (
    ENVIRONMENT,
    MlflowTracker,
    as_text,
    clipped,
    find_experiment,
    fix_environment,
    params_of,
    tracking_uri,
)
from besom.trial.run_logger import RunLogger, opened

pytestmark = [
    # MLflow silences it itself, but not where warnings are errors
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
    # MLflow's own mappers, with SQLAlchemy 2.1
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    # Keras' own conversion of variables, with NumPy 2
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

TRAIN = {"epochs": 2, "learning_rate": 1e-7, "early_stopping": None}
CONV = [{"filters": 3, "kernel_size": 5, "batch_norm": True}]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store.at(tmp_path_factory.mktemp("project") / "runs #1 é")
    create_store(made)
    return made


@pytest.fixture(scope="module")
def client(store: Store) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(store.mlflow_uri)


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def config_for(store: Store, uri: str | None = None) -> dict[str, Any]:
    return {
        "data": {"_target_": "besom.data.mnist_5k", "n_train": 8, "path": None},
        "model": {"conv": CONV},
        "train": TRAIN,
        "tracking": {"uri": uri, "experiment": "train"},
        "paths": {"store": str(store.root)},
    }


@pytest.fixture
def open_sweep(store: Store) -> Callable[[str], MlflowTracker]:
    def opened(name: str) -> MlflowTracker:
        tracker = MlflowTracker()
        tracker.open_sweep(name, config_for(store))
        return tracker

    return opened


def parent_of(client: Any, store: Store, name: str) -> Any:
    (parent,) = client.search_runs([find_experiment(store.mlflow_uri, name).experiment_id], "tags.kind = 'sweep'")
    return parent


class TestWhereRunsGo:
    @staticmethod
    def config(uri: str | None) -> TrialConfig:
        return TrialConfig({}, {}, TrainConfig(), TrackingConfig(uri), PathsConfig("/data/mlruns"))

    @pytest.mark.parametrize(
        ("given_uri", "environ", "expected"),
        [
            ("http://a", {"MLFLOW_TRACKING_URI": "http://b"}, "http://a"),
            (None, {"MLFLOW_TRACKING_URI": "http://b"}, "http://b"),
            (None, {"MLFLOW_TRACKING_URI": "http://me:secret@b"}, "http://me:secret@b"),
            (None, {}, "sqlite:////data/mlruns/mlflow.db"),
            ("databricks", {}, "databricks"),
        ],
    )
    def test_the_config_wins_over_the_variable_and_both_over_the_store(
        self, given_uri: str | None, environ: dict[str, str], expected: str
    ) -> None:
        assert tracking_uri(self.config(given_uri), environ) == expected

    @pytest.mark.parametrize("folder", ["runs", "/data/runs", "file:///data/runs"])
    def test_a_folder_is_refused(self, folder: str) -> None:
        with pytest.raises(ConfigError, match=r"^tracking\.uri='.*runs' is a folder; MLflow takes sqlite:///FILE"):
            tracking_uri(self.config(folder), {})
        with pytest.raises(ConfigError, match=r"^MLFLOW_TRACKING_URI='.*runs' is a folder"):
            tracking_uri(self.config(None), {"MLFLOW_TRACKING_URI": folder})

    def test_a_password_in_the_config_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"^tracking\.uri='http://me:\*\*\*@b' holds a password"):
            tracking_uri(self.config("http://me:secret@b"), {})


class TestWhatMlflowTakes:
    def test_the_environment_is_set_only_where_the_user_has_not(self) -> None:
        environment = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
        fix_environment(environment)
        assert environment == {**ENVIRONMENT, "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}

    @pytest.mark.parametrize(
        ("value", "text"),
        [(None, "null"), (True, "true"), (1e-7, "1e-07"), (32, "32"), ("1e-7", "1e-7"), ([1, "a"], '[1, "a"]')],
    )
    def test_values_are_written_as_in_yaml(self, value: Any, text: str) -> None:
        assert as_text(value) == text

    def test_params_are_the_leaves_without_urls_and_paths(self, store: Store) -> None:
        assert params_of(config_for(store)) == {
            "data._target_": "besom.data.mnist_5k",
            "data.n_train": "8",
            "model.conv.0.filters": "3",
            "model.conv.0.kernel_size": "5",
            "model.conv.0.batch_norm": "true",
            "train.epochs": "2",
            "train.learning_rate": "1e-07",
            "train.early_stopping": "null",
        }

    def test_characters_that_mlflow_refuses_are_replaced_in_keys(self) -> None:
        assert params_of({"model": {"a[0]": 1, "b@c": 2, "é-d": 3}}) == {
            "model.a_0_": "1",
            "model.b_c": "2",
            "model.é-d": "3",
        }

    @given(st.text(max_size=300), st.integers(min_value=100, max_value=200))
    def test_a_long_value_is_cut_to_the_limit_and_others_are_not_touched(self, value: str, length: int) -> None:
        cut = clipped(value, length)
        assert cut == value if len(value) <= length else (len(cut) == length and f"({len(value)} characters" in cut)

    def test_long_values_that_differ_only_at_their_ends_still_differ(self) -> None:
        assert clipped("a" * 7000 + "b", 6000) != clipped("a" * 7000 + "c", 6000)


class TestSweep:
    def test_the_parent_run_and_its_experiment_bear_the_name_of_the_sweep(
        self, open_sweep: Callable[[str], MlflowTracker], client: Any, store: Store
    ) -> None:
        open_sweep("named")
        parent = parent_of(client, store, "named")
        assert (parent.info.run_name, parent.info.status) == ("named", "RUNNING")
        assert int(parent.data.tags["pid"]) == os.getpid()
        assert client.get_experiment_by_name("named").artifact_location == (store.artifacts / "named").as_uri()

    def test_a_trial_is_a_running_child_with_its_config_as_params(
        self, open_sweep: Callable[[str], MlflowTracker], client: Any, store: Store
    ) -> None:
        run_id = open_sweep("child").start_trial(7, config_for(store), {"retry_of": "3"})
        run = client.get_run(run_id)
        assert (run.info.run_name, run.info.status) == ("child-7", "RUNNING")
        assert run.data.params == params_of(config_for(store))
        wanted = {"sweep": "child", "trial": "7", "state": "RUNNING", "kind": "trial", "retry_of": "3"}
        parent_id = parent_of(client, store, "child").info.run_id
        assert run.data.tags.items() >= {**wanted, "mlflow.parentRunId": parent_id}.items()
        assert float(run.data.tags["process_start"]) == psutil.Process().create_time()

    def test_a_config_of_many_and_long_leaves_is_taken(
        self, open_sweep: Callable[[str], MlflowTracker], client: Any
    ) -> None:
        config = {"model": {"conv": [CONV[0]] * 80, "text": "x" * 10_000}}
        run_id = open_sweep("deep").start_trial(0, config, {})
        params = client.get_run(run_id).data.params
        assert len(params) == 241
        assert len(params["model.text"]) == 6000

    @pytest.mark.parametrize(
        ("state", "died", "status"),
        [
            ("COMPLETE", False, "FINISHED"),
            ("COMPLETE", True, "FINISHED"),  # its result was whole before its parent died
            ("PRUNED", False, "KILLED"),
            ("FAIL", False, "FAILED"),
            ("FAIL", True, "KILLED"),
        ],
    )
    def test_a_run_ends_as_the_study_has_it(
        self, open_sweep: Callable[[str], MlflowTracker], client: Any, state: str, died: bool, status: str
    ) -> None:
        tracker = open_sweep("ends")
        run_id = tracker.start_trial(0, {}, {})
        tracker.end_trial(run_id, state, "because", died)
        first = client.get_run(run_id)
        assert (first.info.status, first.data.tags["state"], first.data.tags["reason"]) == (status, state, "because")
        time.sleep(0.002)
        tracker.end_trial(run_id, state, "because", died)
        assert client.get_run(run_id).info.end_time == first.info.end_time

    def test_a_reason_of_any_length_is_taken(self, open_sweep: Callable[[str], MlflowTracker], client: Any) -> None:
        tracker = open_sweep("long")
        run_id = tracker.start_trial(0, {}, {})
        tracker.end_trial(run_id, "FAIL", "no " * 5000, False)
        assert len(client.get_run(run_id).data.tags["reason"]) == 8000

    def test_a_resume_takes_up_the_parent_and_sees_what_still_runs(
        self, open_sweep: Callable[[str], MlflowTracker], client: Any, store: Store
    ) -> None:
        first = open_sweep("resumed")
        runs = [first.start_trial(number, {}, {}) for number in range(3)]
        first.end_trial(runs[1], "COMPLETE", None, False)
        first.close_sweep({"n_complete": 1}, 1, finished=False)
        ended = parent_of(client, store, "resumed")
        assert ended.info.status == "KILLED"
        second = open_sweep("resumed")
        again = parent_of(client, store, "resumed")
        assert (again.info.run_id, again.info.status) == (ended.info.run_id, "RUNNING")
        assert sorted(second.running_trials(), key=lambda run: run[1]) == [(runs[0], 0), (runs[2], 2)]
        second.close_sweep({"n_complete": 2}, 2, finished=True)
        parent = parent_of(client, store, "resumed")
        assert (parent.info.status, parent.data.metrics, parent.data.tags["best_trial"]) == (
            "FINISHED",
            {"n_complete": 2.0},
            "2",
        )

    def test_a_run_that_somebody_deleted_does_not_stop_the_sweep(
        self, open_sweep: Callable[[str], MlflowTracker], client: Any
    ) -> None:
        tracker = open_sweep("deleted")
        run_id = tracker.start_trial(0, {}, {})
        client.delete_run(run_id)
        tracker.end_trial(run_id, "COMPLETE", None, False)
        tracker.end_trial("0" * 32, "COMPLETE", None, False)
        assert tracker.running_trials() == []

    def test_an_experiment_in_the_trash_is_refused_with_the_ways_out(
        self, open_sweep: Callable[[str], MlflowTracker], client: Any, store: Store
    ) -> None:
        open_sweep("trashed")
        client.delete_experiment(find_experiment(store.mlflow_uri, "trashed").experiment_id)
        with pytest.raises(ConfigError, match=r"'trashed' is in the trash; .*\(besom delete trashed\), or use another"):
            open_sweep("trashed")

    def test_a_server_that_does_not_answer_is_the_users_to_mend(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
        with pytest.raises(
            ConfigError, match=r"^MLflow at http://me:\*\*\*@127\.0\.0\.1:9 cannot be used: "
        ) as refused:
            MlflowTracker().open_sweep("unheard", config_for(store))
        assert "secret" not in str(refused.value)

    def test_an_unknown_experiment_is_not_found(self, store: Store) -> None:
        with pytest.raises(NotFound, match="has no experiment 'nowhere'"):
            find_experiment(store.mlflow_uri, "nowhere")


class TestTrackerContract:
    """What the sweeper relies on, whoever records."""

    @pytest.fixture(params=[MlflowTracker, NoTracker])
    def tracker(self, request: pytest.FixtureRequest) -> Tracker:
        made: Tracker = request.param()
        return made

    def test_a_sweep_can_be_lived_through(self, tracker: Tracker, store: Store) -> None:
        tracker.open_sweep("contract", config_for(store))
        run_id = tracker.start_trial(0, config_for(store), {})
        assert tracker.running_trials() == ([(run_id, 0)] if run_id else [])
        for _ in range(2):
            tracker.end_trial(run_id or "none", "COMPLETE", None, False)
        assert tracker.running_trials() == []
        tracker.close_sweep({"n_complete": 1}, None, finished=True)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    rng = np.random.default_rng(0)
    x, y = rng.random((12, 6, 6, 1), dtype=np.float32), np.arange(12) % 3
    return Dataset("toy", x[:8], y[:8], x[8:], y[8:], 3, "a" * 64, "b" * 64, Scaling("none"))


@pytest.fixture(scope="module")
def model() -> Any:
    import keras

    layers = [keras.layers.Conv2D(2, 3), keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")]
    return keras.Sequential([keras.Input((6, 6, 1)), *layers])


@pytest.fixture
def logger(store: Store) -> RunLogger:
    return begun(store, "train")


def begun(store: Store, experiment: str) -> RunLogger:
    """Return the logger of a training's run."""
    uri = store.mlflow_uri
    logger = RunLogger.start(uri, opened(uri, experiment, store), "one", store)
    logger.log_config(config_for(store))
    return logger


class TestOneRun:
    def test_a_training_of_its_own_is_one_run_with_its_config(
        self, logger: RunLogger, client: Any, store: Store
    ) -> None:
        run = client.get_run(logger.run_id)
        assert (run.info.run_name, run.info.status) == ("one", "RUNNING")
        assert run.data.params == params_of(config_for(store))
        assert run.data.tags.items() >= {"kind": "train", "state": "RUNNING"}.items()

    @pytest.mark.parametrize(("status", "state"), [("FINISHED", "COMPLETE"), ("FAILED", "FAIL"), ("KILLED", "FAIL")])
    def test_it_ends_as_it_is_told(self, logger: RunLogger, client: Any, status: str, state: str) -> None:
        logger.end(status)
        run = client.get_run(logger.run_id)
        assert (run.info.status, run.data.tags["state"]) == (status, state)

    @pytest.mark.parametrize(
        ("is_elsewhere", "uri", "waits"),
        [(False, None, False), (True, None, True), (True, "http://127.0.0.1:9", False)],
        ids=["here", "elsewhere", "elsewhere, with a server"],
    )
    def test_on_another_machine_what_is_logged_waits_where_mlflow_is_a_file(
        self,
        is_elsewhere: bool,
        uri: str | None,
        waits: bool,
        store: Store,
        client: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        run_id = begun(store, "sweep").run_id
        told: list[Any] = []
        if uri is not None:  # nothing answers there
            monkeypatch.setattr(RunWriter, "_attempt", lambda self, operation, files: told.append(operation))
        logger = RunLogger.attach(uri or store.mlflow_uri, run_id, store, 0, is_elsewhere=is_elsewhere)
        logger.log_epoch(0, {"val_loss": 0.5})
        assert logger.is_spooling is waits
        assert ("val_loss" in client.get_run(run_id).data.metrics) is (not waits and uri is None)
        assert len(told) == (0 if uri is None else 2)

    def test_epochs_become_steps(self, logger: RunLogger, client: Any) -> None:
        for epoch, loss in enumerate([0.5, 0.25, 0.75]):
            logger.log_epoch(epoch, {"val_loss": loss, "val_accuracy": 1 - loss})
        points = client.get_metric_history(logger.run_id, "val_loss")
        assert [(point.step, point.value) for point in points] == [(0, 0.5), (1, 0.25), (2, 0.75)]
        assert client.get_run(logger.run_id).data.metrics["val_accuracy"] == 0.25

    def test_the_dataset_is_an_input_with_its_digest_and_split(
        self, logger: RunLogger, client: Any, dataset: Dataset
    ) -> None:
        logger.log_dataset(dataset)
        (given_input,) = client.get_run(logger.run_id).inputs.dataset_inputs
        assert (given_input.dataset.name, given_input.dataset.digest) == ("toy", "a" * 36)
        tags = {tag.key: tag.value for tag in given_input.tags}
        assert tags == {"mlflow.data.context": "training", "n_train": "8", "n_val": "4", "split_digest": "b" * 64}

    def test_a_folder_becomes_artifacts(self, logger: RunLogger, client: Any, tmp_path: Path) -> None:
        (tmp_path / "filters").mkdir()
        (tmp_path / "config.yaml").write_text("a: 1\n")
        (tmp_path / "filters" / "conv_0.png").write_bytes(b"x")
        logger.log_folder(tmp_path)
        assert {file.path for file in client.list_artifacts(logger.run_id)} == {"config.yaml", "filters"}
        assert [file.path for file in client.list_artifacts(logger.run_id, "filters")] == ["filters/conv_0.png"]

    def test_the_model_loads_back_and_predicts_the_same(
        self,
        logger: RunLogger,
        client: Any,
        store: Store,
        dataset: Dataset,
        model: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        import mlflow.keras
        import mlflow.pyfunc

        logger.log_model(model, dataset, {"objective": 0.5}, {"weights_sha256": "abc"})
        [output] = client.get_run(logger.run_id).outputs.model_outputs
        model_id = output.model_id
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store.mlflow_uri)
        expected = model.predict(dataset.x_val, verbose=0)
        uri = f"runs:/{logger.run_id}/model"
        np.testing.assert_array_equal(mlflow.keras.load_model(uri).predict(dataset.x_val, verbose=0), expected)
        loaded = mlflow.pyfunc.load_model(uri)
        np.testing.assert_array_equal(loaded.predict(dataset.x_val), expected)
        assert [spec.shape for spec in loaded.metadata.signature.inputs.inputs] == [(-1, 6, 6, 1)]
        assert [spec.shape for spec in loaded.metadata.signature.outputs.inputs] == [(-1, 3)]
        logged = client.get_logged_model(model_id)
        assert (logged.name, logged.source_run_id, str(logged.status)) == ("model", logger.run_id, "READY")
        assert [(metric.key, metric.value) for metric in logged.metrics] == [("objective", 0.5)]
        run = client.get_run(logger.run_id).data
        assert (run.metrics["objective"], run.tags["weights_sha256"]) == (0.5, "abc")

    def test_nothing_leaks_from_one_trial_to_the_next_in_a_process(
        self, open_sweep: Callable[[str], MlflowTracker], client: Any, store: Store, dataset: Dataset, model: Any
    ) -> None:
        import mlflow

        tracker = open_sweep("lane")
        runs = [tracker.start_trial(number, {"train": {"seed": number}}, {}) for number in range(2)]
        models = []
        for number, run_id in enumerate(runs):
            logger = RunLogger.attach(store.mlflow_uri, run_id, store)
            logger.log_model(model, dataset, {f"only_{number}": 1.0}, {})
            models += [one.model_id for one in client.get_run(run_id).outputs.model_outputs]
            assert mlflow.active_run() is None
        for number, (run_id, model_id) in enumerate(zip(runs, models, strict=True)):
            run, logged = client.get_run(run_id), client.get_logged_model(model_id)
            assert run.data.metrics == {f"only_{number}": 1.0}
            assert run.info.status == "RUNNING"  # the parent ends it, after the study
            assert [output.model_id for output in run.outputs.model_outputs] == [model_id]
            assert (logged.params, logged.source_run_id) == ({"train.seed": str(number)}, run_id)
            assert [metric.key for metric in logged.metrics] == [f"only_{number}"]

    def test_nothing_is_said_and_nothing_is_written_outside_the_store(
        self,
        store: Store,
        dataset: Dataset,
        model: Any,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        quiet: None,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        logger = begun(store, "quiet")
        logger.log_dataset(dataset)
        logger.log_model(model, dataset, {}, {})
        logger.end("FINISHED")
        assert list(tmp_path.iterdir()) == []


@pytest.fixture
def quiet(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fails a test in which anything is printed or logged."""
    with caplog.at_level(logging.INFO):
        yield
    assert (*capfd.readouterr(), caplog.text) == ("", "", "")
