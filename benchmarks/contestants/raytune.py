"""Ray Tune: two trials at a time, one core and one TensorFlow thread each, workers kept between trials.

python raytune.py --data split.npz [--tuned]
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import ray
import work
from ray import tune


def train(config: dict[str, Any], data: Any, epochs: int, uri: str, tuned: bool) -> None:
    """Train one configuration; Tune and MLflow are told of each epoch."""
    import keras
    from ray.air.integrations.mlflow import setup_mlflow

    compiling, fitting = work.tuning(tuned)
    model = work.network(**config, **compiling)
    mlflow = setup_mlflow(config, tracking_uri=uri, experiment_name=work.EXPERIMENT)
    started = time.perf_counter()

    def report(epoch: int, logs: dict[str, float]) -> None:
        tune.report({**logs, "seconds": time.perf_counter() - started, "n_params": model.count_params()})

    callbacks = [work.epoch_logger(), keras.callbacks.LambdaCallback(on_epoch_end=report)]
    work.fit(model, data, epochs, callbacks, **fitting)
    work.log_model(model)
    mlflow.end_run()


def result_of(one: tune.Result) -> dict[str, Any]:
    """Return what is reported of one of Tune's results."""
    last = one.metrics
    return work.result(one.config, one.metrics_dataframe["val_accuracy"], last["seconds"], last["n_params"])


def main() -> None:
    """Run the grid, two trials at a time."""
    given = work.arguments("--tuned")
    # workers inherit these; OMP_NUM_THREADS=1 is what Ray itself gives a trial of one CPU
    os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")
    uri = work.open_mlflow()
    ray.init(include_dashboard=False, num_cpus=2)
    trainable = tune.with_parameters(train, data=work.load(given.data), epochs=given.epochs, uri=uri, tuned=given.tuned)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={name: tune.grid_search(values) for name, values in work.GRID.items()},
        tune_config=tune.TuneConfig(metric="val_accuracy", mode="max", max_concurrent_trials=2, reuse_actors=True),
        run_config=tune.RunConfig(name="grid", storage_path=str(Path.cwd() / "ray"), verbose=1),
    )
    found = tuner.fit()
    if found.errors:
        raise found.errors[0]
    work.write_results([result_of(one) for one in found])
    ray.shutdown()


if __name__ == "__main__":
    main()
