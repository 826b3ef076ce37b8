"""The typed shape of a besom config: one dataclass per group option, checked when it is built.

OmegaConf checks key names and types while Hydra composes; what a type cannot say (ranges, words)
is checked in ``__post_init__``, which runs once, when `besom.configs.config.typed` turns text into objects.
Knows nothing of TensorFlow, Optuna or MLflow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from besom.errors import ConfigError, one_of

PADDINGS = ("valid", "same")
RESCALES = ("none", "unit", "standardize")
POOLINGS = ("avg", "max")
OPTIMIZERS = ("rmsprop", "adam", "adamw", "nadam", "adamax", "adagrad", "sgd", "lion")
OBJECTIVES = ("val_accuracy", "val_loss", "train_accuracy", "train_loss")
OBJECTIVE_EPOCHS = ("best", "last")
ACTIVATIONS = (
    "swish", "relu", "tanh", "sigmoid", "elu", "selu", "gelu", "silu", "mish", "softplus",
    "softsign", "leaky_relu", "relu6", "hard_sigmoid", "hard_swish", "hard_silu", "exponential", "linear",
)  # fmt: skip


def _at_least(minimum: float, **values: float | None) -> None:
    """Raise `ConfigError` for the first value that is given and below ``minimum``."""
    for name, value in values.items():
        if value is not None and value < minimum:
            raise ConfigError(f"{name}={value!r} is too small; expected at least {minimum}")


def _known(words: tuple[str, ...], **values: str | None) -> None:
    """Raise `ConfigError` for the first value that is given and not one of ``words``."""
    for name, value in values.items():
        if value is not None and value not in words:
            raise ConfigError(one_of(name, value, words))


def _fraction(**values: float) -> None:
    """Raise `ConfigError` for the first value outside [0, 1)."""
    for name, value in values.items():
        if not 0.0 <= value < 1.0:
            raise ConfigError(f"{name}={value!r} is out of range; expected 0 <= {name} < 1")


@dataclass
class ConvConfig:
    """One convolution block: Conv2D → batch norm → activation → max pooling → dropout.

    ``kernel_size``, ``strides`` and ``pool`` are sides of squares, in pixels; ``activation: null``
    takes ``model.activation``; ``pool: null`` does not pool.
    """

    filters: int = 8
    kernel_size: int = 3
    activation: str | None = None
    padding: str = "valid"
    strides: int = 1
    pool: int | None = None
    batch_norm: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _at_least(1, filters=self.filters, kernel_size=self.kernel_size, strides=self.strides, pool=self.pool)
        _known(PADDINGS, padding=self.padding)
        _known(ACTIVATIONS, activation=self.activation)
        _fraction(dropout=self.dropout)


@dataclass
class CnnConfig:
    """The convolutional network of `besom.model.cnn`.

    ``depth`` uses only the first so many of ``conv`` (null: all of them). ``pooling`` replaces
    Flatten by global ``avg`` or ``max`` pooling. ``dense`` is the width of the hidden dense layer
    (0: none), followed by ``dropout``.
    """

    _target_: str = "besom.model.cnn"
    conv: list[ConvConfig] = field(default_factory=list)
    depth: int | None = None
    activation: str = "swish"
    pooling: str | None = None
    dense: int = 84
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _at_least(0, dense=self.dense, depth=self.depth)
        if self.depth is not None and self.depth > len(self.conv):
            raise ConfigError(
                f"model.depth={self.depth} uses more layers than there are; expected at most {len(self.conv)}, "
                f"the length of model.conv"
            )
        _known(ACTIVATIONS, activation=self.activation)
        _known(POOLINGS, pooling=self.pooling)
        _fraction(dropout=self.dropout)

    @property
    def layers(self) -> list[ConvConfig]:
        """The convolution blocks in use: the first ``depth`` of ``conv``."""
        return self.conv[: self.depth]


@dataclass
class DataConfig:
    """Where the images come from and how they are split.

    ``n_train``, ``n_val`` and ``n_test`` are numbers of images; null takes what is left
    (``n_train``) or a tenth (``n_val``, ``n_test``). The split is seeded and stratified.
    """

    _target_: str = "besom.data.mnist_5k"
    path: str | None = None
    n_train: int | None = None
    n_val: int | None = None
    n_test: int | None = None
    split_seed: int = 0
    rescale: str = "none"

    def __post_init__(self) -> None:
        _at_least(1, n_train=self.n_train, n_val=self.n_val)
        _at_least(0, n_test=self.n_test, split_seed=self.split_seed)
        _known(RESCALES, rescale=self.rescale)


@dataclass
class TrainConfig:
    """How a model is fitted.

    ``objective`` is read at the ``best`` or ``last`` epoch (``objective_epoch``), and the weights
    kept are those of that epoch. ``early_stopping`` is the patience in epochs (null: off).
    ``threads`` is the number of threads of one training process; another number gives other bits.
    So does ``fold``, which computes convolutions of few channels in a faster way (`besom.trial.folding`).
    """

    epochs: int = 10
    batch_size: int = 32
    optimizer: str = "rmsprop"
    learning_rate: float = 0.001
    seed: int = 0
    threads: int = 1
    steps_per_execution: int = 25
    fold: bool = True
    objective: str = "val_accuracy"
    objective_epoch: str = "best"
    early_stopping: int | None = None

    def __post_init__(self) -> None:
        _at_least(1, epochs=self.epochs, batch_size=self.batch_size, threads=self.threads)
        _at_least(1, steps_per_execution=self.steps_per_execution, early_stopping=self.early_stopping)
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"train.seed={self.seed} is out of range; expected 0 <= seed < 2**32")
        if not 0 < self.learning_rate < float("inf"):
            raise ConfigError(f"train.learning_rate={self.learning_rate} is out of range; expected a positive number")
        _known(OPTIMIZERS, optimizer=self.optimizer)
        _known(OBJECTIVES, objective=self.objective)
        _known(OBJECTIVE_EPOCHS, objective_epoch=self.objective_epoch)


@dataclass
class TrackingConfig:
    """Where runs go: ``uri``, else ``MLFLOW_TRACKING_URI``, else the store.

    ``experiment`` names the MLflow experiment of `besom train`; a sweep's is the sweep's name.
    ``system_metrics`` logs CPU, memory, disk and network of the machine while a trial runs.
    """

    uri: str | None = None
    experiment: str = "train"
    system_metrics: bool = False


@dataclass
class PathsConfig:
    """``store`` is the one folder that holds everything: databases, artifacts, job folders."""

    store: str = "mlruns"


@dataclass
class TrialConfig:
    """One trial's config, typed: what `besom.trial.trial` needs and nothing of the sweep.

    ``data`` and ``model`` are dataclasses of this module, or a plain dict when a user's own
    ``_target_`` is named there.
    """

    data: Any
    model: Any
    train: TrainConfig
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
