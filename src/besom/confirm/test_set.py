"""Opens the locked test images for one model: the only module of besom that does.

The network is built from the trusted config and its weights are checked in a fresh process; only then is the opening
written down, and only then are the images read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from besom.confirm.contender import Contender
from besom.engines.engine import OnReport
from besom.errors import BesomError, DataError
from besom.fingerprint import predictions_sha256
from besom.retrain.lanes import in_lanes
from besom.retrain.stored_model import StoredModel
from besom.seeding import fix_runtime
from besom.temporary import temporary_folder


@dataclass(frozen=True)
class Evaluation:
    """What a lane is to evaluate: a model, the trusted config of its run, the hash of what it gave for validation."""

    content: Mapping[str, Any]
    model: StoredModel
    predictions_sha256: str


def evaluate(contender: Contender, on_open: Callable[[], None]) -> tuple[int, int]:
    """Return how many of how many test images the stored model of a contender's trial names rightly.

    Args:
        on_open: called when the model is known to be the trial's, before the images are read.

    Raises:
        NotFound: the run has no model.
        BesomError: the model is not the one that the trial trained; nothing was opened then.
        DataError: there are no test images.
    """
    fix_runtime(contender.threads)

    def open_now(step: int, value: float) -> bool:
        on_open()
        return False

    with temporary_folder() as folder:
        expected = contender.home.tags.get("predictions_sha256", "")
        job = Evaluation(contender.content, StoredModel.fetch(contender.home, folder), expected)
        [(_, future)] = in_lanes(count_correct, [(job, open_now)], n_lanes=1, fresh=False)
    if error := future.exception():
        last = str(error).strip().splitlines()[-1]
        raise BesomError(f"the test set could not be evaluated: {last}") from error
    found = future.result()
    if isinstance(found, BesomError):
        raise found
    correct, n = found
    return correct, n


def count_correct(evaluation: Evaluation, channel: OnReport) -> tuple[int, int] | BesomError:
    """Evaluate in a process that may import TensorFlow; the channel hears when the images are about to be read."""
    import tensorflow as tf

    from besom import data
    from besom.configs.config import typed
    from besom.trial.epoch import predict
    from besom.trial.images import images_of

    config = typed(evaluation.content)
    try:
        dataset = data.load(config.data)
        model = evaluation.model.network(evaluation.content, dataset)
        _refuse_another_network(evaluation, predictions_sha256(predict(model, images_of(dataset).x_val)))
        if not data.count_test(config.data):
            raise DataError("there are no test images; expected at least 1, to say how good the winner is")
        channel(0, 0.0)
        x, y = data.load_test(config.data)
    except BesomError as error:
        return error  # a lane's own exceptions come back as text
    return int((predict(model, tf.constant(x)).argmax(axis=1) == y).sum()), len(y)


def _refuse_another_network(evaluation: Evaluation, found: str) -> None:
    """Raise `BesomError` where weights are those of the trial, but the network around them is not."""
    if found != evaluation.predictions_sha256:
        run_id = evaluation.model.run_id
        raise BesomError(
            f"the model of run {run_id} gives other predictions for the validation images than it gave when it was "
            f"trained, so the test set stays closed; 'besom reproduce {run_id} --from-model' says what is not as it was"
        )
