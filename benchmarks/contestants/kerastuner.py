"""KerasTuner's grid search in one process; MLflow in ``HyperModel.fit``, where its users put such things.

python kerastuner.py --data split.npz
"""

from __future__ import annotations

import time
from typing import Any

import keras_tuner
import mlflow
import work


class Cnn(keras_tuner.HyperModel):
    """The CNN and its training."""

    def __init__(self) -> None:
        super().__init__()
        self.results: list[dict[str, Any]] = []

    def build(self, hp: keras_tuner.HyperParameters) -> Any:
        """Return the compiled CNN."""
        return work.network(**{name: hp.Choice(name, values) for name, values in work.GRID.items()})

    def fit(self, hp: keras_tuner.HyperParameters, model: Any, *args: Any, **kwargs: Any) -> Any:
        """Train into an MLflow run; KerasTuner's own callbacks, which save the best weights, are in ``kwargs``."""
        with mlflow.start_run():
            mlflow.log_params(hp.values)
            kwargs["callbacks"] = [*kwargs["callbacks"], work.epoch_logger()]
            started = time.perf_counter()
            history = model.fit(*args, **kwargs)
            seconds = time.perf_counter() - started
            work.log_model(model)
        by_epoch = history.history["val_accuracy"]
        self.results.append(work.result(hp.values, by_epoch, seconds, model.count_params()))
        return history


def main() -> None:
    """Run the grid, one trial after another."""
    given = work.arguments()
    x_train, y_train, x_val, y_val = work.load(given.data)
    work.open_mlflow()
    cnn = Cnn()
    tuner = keras_tuner.GridSearch(
        cnn, objective="val_accuracy", executions_per_trial=1, directory="keras_tuner", project_name="grid"
    )
    tuner.search(
        x_train,
        y_train,
        batch_size=work.BATCH_SIZE,
        epochs=given.epochs,
        validation_data=(x_val, y_val),
        verbose=0,
    )
    work.write_results(cnn.results)


if __name__ == "__main__":
    main()
