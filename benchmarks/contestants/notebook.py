"""A notebook's loop: an Optuna study, ``model.fit`` on both cores, MLflow by hand or by its autologging.

    python notebook.py --data split.npz [--autolog | --tuned]

``--tuned`` is what somebody adds who knows where Keras spends time on small networks: 25 steps in one call,
large batches for validation.
"""

from __future__ import annotations

import time
from typing import Any

import mlflow
import mlflow.keras
import optuna
import work


def main() -> None:
    """Run the grid, one trial after another."""
    given = work.arguments("--autolog", "--tuned")
    data = work.load(given.data)
    work.open_mlflow()
    if given.autolog:
        mlflow.keras.autolog()
    compiling, fitting = work.tuning(given.tuned)
    results: list[dict[str, Any]] = []

    def objective(trial: optuna.Trial) -> float:
        params = {name: trial.suggest_categorical(name, values) for name, values in work.GRID.items()}
        model = work.network(**params, **compiling)
        with mlflow.start_run():
            mlflow.log_params(params)
            started = time.perf_counter()
            history = work.fit(model, data, given.epochs, [] if given.autolog else [work.epoch_logger()], **fitting)
            seconds = time.perf_counter() - started
            if not given.autolog:
                work.log_model(model)
        results.append(work.result(params, history.history["val_accuracy"], seconds, model.count_params()))
        return results[-1]["val_accuracy"]

    study = optuna.create_study(
        storage="sqlite:///study.db", direction="maximize", sampler=optuna.samplers.GridSampler(work.GRID)
    )
    study.optimize(objective)
    work.write_results(results)


if __name__ == "__main__":
    main()
