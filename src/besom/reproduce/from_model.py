"""Evaluates the model that a run stored, in a fresh process, and holds it against what the run said of it.

Quicker than training again, and weaker: it shows that the stored model gives the stored predictions, not where the
model came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from besom.engines.engine import OnReport
from besom.errors import BesomError, NotFound, one_line
from besom.reproduce.again import KIND, keep_verdict
from besom.reproduce.request import Options, Request
from besom.reproduce.verdict import Rerun, Verdict, judged
from besom.results import TrialResult
from besom.retrain.lanes import in_lanes, never
from besom.retrain.runs import abandon_runs, close_dead, end_run, start_run
from besom.retrain.stored_model import StoredModel
from besom.seeding import fix_runtime
from besom.signals import put_off
from besom.temporary import temporary_folder
from besom.tracking import log_values

COMPARED = ("weights", "predictions")


@dataclass(frozen=True)
class Evaluation:
    """What a lane is to evaluate: a model, and the trusted config of its run."""

    content: Mapping[str, Any]
    model: StoredModel


def reevaluate(request: Request, options: Options) -> Verdict:
    """Evaluate a run's stored model on its validation images; leaves a run of kind ``reproduction``.

    Raises:
        NotFound: the run has no model.
        BesomError: the model's file was changed.
    """
    run = request.run
    if request.original.state != "COMPLETE":
        raise NotFound(f"run {run.run_id} is {request.original.state} and has no model; expected one that is COMPLETE")
    with temporary_folder() as folder:
        facts = _in_a_lane(Evaluation(request.content, StoredModel.fetch(run, folder)), request.threads, options)
    close_dead(run.client, run.experiment_id, KIND)
    name = f"{run.tags.get('mlflow.runName', run.run_id)}-evaluated"
    run_ids: list[str] = []
    tags = {"kind": KIND, "reproduces": run.run_id, "method": "from-model"}
    result = TrialResult(-1, "COMPLETE", [facts["val_accuracy"]], facts=facts)
    try:
        with put_off():
            run_ids.append(start_run(run, name, request.content, tags))
        [run_id] = run_ids
        log_values(run.client, run_id, {"val_accuracy": facts["val_accuracy"]})
        rerun = Rerun(run_id, result, {"val_accuracy": result.values})
        verdict = judged(request.original, rerun, request.foreseen, COMPARED)
        keep_verdict(run.client, verdict)
        end_run(run.client, run_id, result)
    except BaseException:
        abandon_runs(run.client, run_ids)
        raise
    return verdict


def _in_a_lane(evaluation: Evaluation, threads: int, options: Options) -> dict[str, Any]:
    fix_runtime(threads, onednn=options.onednn)
    [(_, future)] = in_lanes(evaluate, [(evaluation, never)], n_lanes=1, fresh=False)
    if error := future.exception():  # the lane died
        raise BesomError(f"the stored model could not be evaluated: {one_line(error)}") from error
    found = future.result()
    if isinstance(found, BesomError):
        raise found
    facts: dict[str, Any] = found
    return facts


def evaluate(evaluation: Evaluation, channel: OnReport) -> dict[str, Any] | BesomError:
    """Return the hashes and the accuracy of a stored model; in a process that may import TensorFlow.

    besom's own errors are returned: what a lane raises comes back as text.
    """
    from besom import data
    from besom.configs.config import typed
    from besom.fingerprint import predictions_sha256, weights_sha256
    from besom.trial.epoch import predict
    from besom.trial.images import images_of

    try:
        dataset = data.load(typed(evaluation.content).data)
        model = evaluation.model.network(evaluation.content, dataset)
    except BesomError as error:
        return error
    probabilities = predict(model, images_of(dataset).x_val)
    return {
        "weights_sha256": weights_sha256(model.get_weights()),
        "predictions_sha256": predictions_sha256(probabilities),
        "val_accuracy": float((probabilities.argmax(axis=1) == dataset.y_val).mean()),
        "n_val": len(dataset.y_val),
    }
