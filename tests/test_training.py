"""Training gives the same bits whatever surrounds it, keeps the right epoch, and stops when it should."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from besom import data
from besom.configs.schema import OBJECTIVES, OPTIMIZERS, CnnConfig, ConvConfig, TrainConfig
from besom.data import Dataset
from besom.errors import ConfigError, NonFinite, TrialPruned
from besom.fingerprint import history_sha256, weights_sha256
from besom.model import build
from besom.reporting import TrialHandle, running
from besom.seeding import epoch_order, runtime_environment
from besom.trial import epoch as epoch_module
from besom.trial import training
from besom.trial.images import images_of
from besom.trial.outcome import Fit, PrunedFit

N_TRAIN = 330  # ten batches of 32 and one of 10
PROGRAM = "from test_training import *; print(*trained(PLAIN), *trained(RICH))"

SMALL = CnnConfig(conv=[ConvConfig(filters=2, kernel_size=5, strides=2)], dense=8)
PLAIN = (SMALL, TrainConfig(epochs=2, objective_epoch="last"))
RICH = (
    CnnConfig(
        conv=[ConvConfig(filters=3, batch_norm=True, pool=2, dropout=0.2), ConvConfig(filters=2, activation="relu")],
        pooling="avg",
        dropout=0.3,
    ),
    TrainConfig(epochs=2, optimizer="adam", batch_size=50, seed=7),
)


def digits(n_train: int = N_TRAIN) -> Dataset:
    return data.load({"_target_": "besom.data.mnist_5k", "n_train": n_train, "n_val": 100, "n_test": 100})


def fitted(train: TrainConfig, config: CnnConfig = SMALL, callbacks: Any = ()) -> tuple[keras.Model, Fit]:
    training.start_trial(train)
    model = build(config, (28, 28, 1), 10)
    return model, training.fit(model, digits(), train, callbacks)


def trained(setting: tuple[CnnConfig, TrainConfig]) -> tuple[str, str]:
    """Return the hashes of weights and history."""
    config, train = setting
    model, fit = fitted(train, config)
    return weights_sha256(model.get_weights()), history_sha256(fit.history)


class Witness(keras.callbacks.Callback):
    """A callback of somebody else's, which must never miss an end."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seen.append(f"epoch {epoch}")

    def on_train_end(self, logs: Any = None) -> None:
        self.seen.append("end")


@pytest.fixture(scope="module")
def fresh() -> list[str]:
    """Hashes of `PLAIN`'s and `RICH`'s weights and history, trained in a process that did nothing before."""
    command = [sys.executable, "-c", PROGRAM]
    shown = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    return shown.stdout.split()


def test_a_trial_in_a_warm_process_gives_the_bits_of_a_fresh_one(fresh: list[str]) -> None:
    assert [*trained(RICH), *trained(PLAIN)] == fresh[2:] + fresh[:2]


@pytest.mark.parametrize("steps", [1, 7])
def test_steps_per_execution_changes_no_bit(steps: int, fresh: list[str]) -> None:
    config, train = RICH
    assert [*trained((config, TrainConfig(**{**vars(train), "steps_per_execution": steps})))] == fresh[2:]


@pytest.mark.parametrize("change", [{"seed": 1}, {"batch_size": 33}])
def test_what_should_change_the_weights_does(change: dict[str, Any], fresh: list[str]) -> None:
    assert trained((SMALL, TrainConfig(**{**vars(PLAIN[1]), **change})))[0] != fresh[0]


def test_fit_equals_the_textbook_loop_to_the_bit(fresh: list[str]) -> None:
    _, train = PLAIN
    training.start_trial(train)
    model = build(SMALL, (28, 28, 1), 10)
    optimizer, dataset = keras.optimizers.RMSprop(0.001), digits()
    truth = data.one_hot(dataset.y_train, 10)
    optimizer.build(model.trainable_variables)

    @tf.function(reduce_retracing=True)
    def step(x: tf.Tensor, y: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(keras.losses.categorical_crossentropy(y, model(x)))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    for epoch in range(train.epochs):
        order = epoch_order(train.seed, epoch, N_TRAIN)
        for start in range(0, N_TRAIN, train.batch_size):
            rows = order[start : start + train.batch_size]
            step(tf.constant(dataset.x_train[rows]), tf.constant(truth[rows]))
    assert weights_sha256(model.get_weights()) == fresh[0]


def test_a_longer_training_starts_as_the_shorter_one(fresh: list[str]) -> None:
    _, fit = fitted(TrainConfig(epochs=3))
    assert history_sha256({name: values[:2] for name, values in fit.history.items()}) == fresh[1]


def test_every_image_is_seen_once_an_epoch_the_last_partial_batch_too() -> None:
    _, fit = fitted(TrainConfig(epochs=2))
    right = [accuracy * N_TRAIN for accuracy in fit.history["train_accuracy"]]
    assert right == pytest.approx([round(count) for count in right], abs=1e-3)


def test_a_history_has_four_metrics_for_each_epoch() -> None:
    _, fit = fitted(TrainConfig(epochs=2))
    assert list(fit.history) == ["train_loss", "train_accuracy", "val_loss", "val_accuracy"]
    assert {len(values) for values in fit.history.values()} == {2}
    assert all(isinstance(value, float) for values in fit.history.values() for value in values)
    assert fit.fit_seconds > 0


def judged(model: keras.Model, objective: str) -> float:
    """Return what a model's weights give for a validation metric, computed without Keras' metrics."""
    y = digits().y_val
    probabilities = epoch_module.predict(model, digits().x_val)
    if objective == "val_accuracy":
        return float(np.mean(probabilities.argmax(axis=1) == y))
    return float(np.mean(-np.log(probabilities[np.arange(len(y)), y])))


# a learning rate so large that training wanders: the best epoch of validation is not the last
RESTLESS: dict[str, Any] = {"epochs": 6, "learning_rate": 0.03}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_best_epoch_is_the_one_of_highest_accuracy_or_lowest_loss_and_its_weights_are_kept(objective: str) -> None:
    model, fit = fitted(TrainConfig(**RESTLESS, objective=objective))
    values = fit.history[objective]
    best = max(values) if objective.endswith("accuracy") else min(values)
    assert (fit.objective, fit.best_epoch) == (best, values.index(best))
    if objective.startswith("val"):
        assert fit.best_epoch < 5
        assert judged(model, objective) == pytest.approx(best, rel=1e-4)


def test_the_last_epoch_counts_where_the_config_says_so() -> None:
    model, fit = fitted(TrainConfig(**RESTLESS, objective_epoch="last"))
    assert (fit.best_epoch, fit.objective) == (5, fit.history["val_accuracy"][5])
    assert judged(model, "val_accuracy") == pytest.approx(fit.objective, rel=1e-4)


def test_early_stopping_waits_as_many_epochs_as_its_patience() -> None:
    train = TrainConfig(**{**RESTLESS, "epochs": 12}, early_stopping=2, objective_epoch="last")
    _, fit = fitted(train)
    values = fit.history["val_accuracy"]
    assert len(values) == values.index(max(values)) + 1 + 2 < 12
    assert fit.best_epoch == len(values) - 1


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_of_the_schema_is_keras_own_with_the_learning_rate_given(optimizer: str) -> None:
    model = build(SMALL, (28, 28, 1), 10)
    training._compile(model, images_of(digits()), TrainConfig(optimizer=optimizer, learning_rate=0.25))
    assert type(model.optimizer).__name__.lower() == optimizer
    assert float(model.optimizer.learning_rate) == 0.25


def test_any_keras_callback_works_and_sees_the_whole_training(tmp_path: Path) -> None:
    witness = Witness()
    extra = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(learning_rate=0.5))
    table = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    _, fit = fitted(TrainConfig(epochs=2), callbacks=[witness, extra, table])
    assert witness.seen == ["epoch 0", "epoch 1", "end"]
    header, *lines = (tmp_path / "log.csv").read_text().splitlines()
    assert header == "epoch,accuracy,learning_rate,loss,val_accuracy,val_loss"
    assert len(lines) == 2
    assert list(fit.history) == list(training.METRICS)


def test_a_callback_that_stops_the_training_leaves_the_epochs_so_far() -> None:
    def stop(epoch: int, logs: Any) -> None:
        fitting.stop_training = epoch == 1

    training.start_trial(TrainConfig())
    fitting = build(SMALL, (28, 28, 1), 10)
    callback = keras.callbacks.LambdaCallback(on_epoch_end=stop)
    fit = training.fit(fitting, digits(), TrainConfig(epochs=9), [callback])
    assert len(fit.history["val_loss"]) == 2


def channel(reports: list[tuple[int, float]], prune_at: int | None) -> Any:
    def send(step: int, value: float) -> bool:
        reports.append((step, value))
        return step == prune_at

    return send


@pytest.mark.parametrize("objective", ["val_accuracy", "train_loss"])
def test_the_objective_of_each_epoch_is_reported(objective: str) -> None:
    reports: list[tuple[int, float]] = []
    with running(TrialHandle(0, None, channel(reports, prune_at=None))):
        _, fit = fitted(TrainConfig(epochs=2, objective=objective))
    assert reports == list(enumerate(fit.history[objective]))


def test_a_pruned_training_ends_for_every_callback_and_hands_over_what_it_has(fresh: list[str]) -> None:
    reports: list[tuple[int, float]] = []
    witness = Witness()
    handle = TrialHandle(0, None, channel(reports, prune_at=1))
    with running(handle), pytest.raises(PrunedFit, match=r"^pruned at step 1 with 0\.\d+$") as caught:
        fitted(TrainConfig(epochs=5), callbacks=[witness])
    assert isinstance(caught.value, TrialPruned)
    assert witness.seen == ["epoch 0", "epoch 1", "end"]
    assert reports == list(enumerate(caught.value.fit.history["val_accuracy"]))
    assert history_sha256(caught.value.fit.history) == fresh[1]
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.fit) == (str(caught.value), caught.value.fit)


def test_a_loss_that_is_no_number_stops_the_training_at_once() -> None:
    reports: list[tuple[int, float]] = []
    witness = Witness()
    train = TrainConfig(epochs=3, learning_rate=1e30, optimizer="sgd", steps_per_execution=1)
    message = r"^train_loss became nan in epoch 0, .*a train.learning_rate below 1e\+30"
    with running(TrialHandle(0, None, channel(reports, prune_at=None))), pytest.raises(NonFinite, match=message):
        fitted(train, callbacks=[witness])
    assert witness.seen == ["epoch 0", "end"]
    assert reports == []


def test_predictions_are_those_of_keras_to_the_bit() -> None:
    model, _ = fitted(RICH[1], RICH[0])
    x = np.tile(digits().x_val, (12, 1, 1, 1))[:1150]
    found = epoch_module.predict(model, x)
    assert found.dtype == np.float32
    assert found.shape == (1150, 10)
    assert np.array_equal(found, model.predict(x, batch_size=epoch_module.FORWARD_BATCH, verbose=0))


@pytest.mark.parametrize("train", [RICH[1], TrainConfig(**RESTLESS)], ids=["batch norm", "best epoch not the last"])
def test_the_probabilities_of_a_fit_are_those_of_the_weights_it_kept_to_the_bit(
    train: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoch_module, "FORWARD_BATCH", 30)  # three batches, and one of 10
    model, fit = fitted(train, RICH[0])
    assert fit.probabilities is not None
    assert np.array_equal(fit.probabilities, epoch_module.predict(model, digits().x_val))


def test_validation_in_batches_is_what_keras_evaluates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epoch_module, "FORWARD_BATCH", 30)
    model, fit = fitted(TrainConfig(epochs=2, objective_epoch="last"), RICH[0])
    labels = data.one_hot(digits().y_val, 10)
    found = model.evaluate(digits().x_val, labels, batch_size=30, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(fit.history["val_loss"][-1], rel=1e-6)
    assert found["accuracy"] == pytest.approx(fit.history["val_accuracy"][-1], rel=1e-6)


class Sceptic(keras.Model):
    """A model with a step of its own: it closes its eyes to be validated."""

    def test_step(self, images_and_labels: Any) -> Any:
        images, labels = images_and_labels
        return super().test_step((tf.zeros_like(images), labels))


def test_a_model_validates_by_its_own_test_step() -> None:
    training.start_trial(TrainConfig())
    inputs = keras.Input((28, 28, 1))
    outputs = keras.layers.Dense(10, activation="softmax")(keras.layers.Flatten()(inputs))
    model = Sceptic(inputs, outputs)
    fit = training.fit(model, digits(), TrainConfig(epochs=2, objective_epoch="last"))
    assert fit.history["val_accuracy"] == pytest.approx([0.1, 0.1])  # of ten classes alike
    assert fit.history["train_accuracy"][-1] > 0.2
    assert fit.probabilities is not None
    assert np.array_equal(fit.probabilities, epoch_module.predict(model, digits().x_val))


def test_a_process_trains_with_one_number_of_threads_only() -> None:
    training.prepare_process(1)
    with pytest.raises(ConfigError, match=r"train.threads=2 .*this process trains with 1; expected train.threads=1"):
        training.prepare_process(2)


def test_an_environment_that_came_after_tensorflow_is_refused() -> None:
    program = (
        "import os; os.environ['TF_ENABLE_ONEDNN_OPTS'] = '0'; import tensorflow; "
        "from besom.seeding import fix_runtime; fix_runtime(1); "
        "from besom.trial import training; training.prepare_process(1)"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "ConfigError: TensorFlow of this process runs without oneDNN; expected with it: call" in shown.stderr


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("OMP_NUM_THREADS", "2", r"OMP_NUM_THREADS='2' .*expected '1': call besom.seeding.fix_runtime"),
        ("TF_ENABLE_ONEDNN_OPTS", "0", r"runs with oneDNN; expected without it: call besom.seeding.fix_runtime"),
    ],
)
def test_a_process_with_another_environment_is_refused(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_threads", None)
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        training.prepare_process(1)


def test_nothing_of_a_trial_is_left_when_the_next_one_begins() -> None:
    def left_over() -> int:
        training.start_trial(RICH[1])
        return sum(isinstance(thing, FuncGraph) for thing in gc.get_objects())

    config = CnnConfig(conv=[ConvConfig(filters=2, activation="swish")], dense=8)
    counts = []
    for _ in range(3):
        fitted(RICH[1], config)
        counts.append(left_over())
    assert counts[0] == counts[1] == counts[2]


@pytest.mark.skipif(sys.platform != "linux", reason="lanes are copied on Linux only")
def test_what_lanes_are_copied_from_has_computed_nothing_and_has_one_thread() -> None:
    program = (
        "import besom.trial.preload; from pathlib import Path; from tensorflow.python.eager.context import context; "
        "print(context()._initialized, *(file.read_text().strip() for file in Path('/proc/self/task').glob('*/comm')))"
    )
    environment = os.environ | runtime_environment(1)
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    is_initialized, *threads = shown.stdout.split()
    assert is_initialized == "False"
    # pyarrow's allocator has a thread that knows what to do when its process is forked
    assert len([name for name in threads if name != "jemalloc_bg_thd"]) == 1
