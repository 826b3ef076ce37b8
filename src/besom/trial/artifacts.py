"""The files that a trial leaves for people: tables as CSV, pictures, the frozen config.

Writes into a folder; knows nothing of MLflow, and of Keras only the numbers that came out of it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from besom.configs.config import to_yaml
from besom.geometry import Geometry
from besom.provenance.origin import Origin
from besom.trial.outcome import Fit, Outcome

if TYPE_CHECKING:
    from besom.data import Dataset
    from besom.trial.convolutions import Opened

SHOWN_PREDICTIONS = 5
"""Images in ``predictions.csv``: as many as the seed prints."""

MAPS_BYTES = 200_000
"""What ``feature_maps/maps.npz`` takes at most, beside the image."""


def write(
    folder: Path,
    *,
    config: Mapping[str, Any],
    geometry: Geometry | None,
    origin: Origin | None = None,
    fit: Fit | None = None,
    fingerprint: Mapping[str, Any] | None = None,
    outcome: Outcome | None = None,
    opened: Opened | None = None,
) -> None:
    """Write every artifact of a trial that there is something for.

    Args:
        folder: made if it is missing; files of the same names are replaced.
        config: the frozen config, from which the trial can be run again.
        geometry: None for a user's own model builder.
        origin: the code and packages that it ran with.
        fit: the finished epochs, None where there is none.
        fingerprint: what the result depends on; None where the data never came.
        outcome: None where the trial was pruned or failed.
        opened: what the model makes of one image, None where nothing of that can be shown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    if geometry is not None:
        _write_layers(folder / "layers.csv", geometry)
    if origin is not None:
        origin.write(folder)
    if fingerprint:
        text = json.dumps(fingerprint, indent=1, sort_keys=True, ensure_ascii=False)
        (folder / "fingerprint.json").write_text(text + "\n", encoding="utf-8")
    if fit is not None:
        from besom.trial.pictures import learning_curve_picture

        learning_curve_picture(folder / "learning_curve.png", fit)
    if outcome is not None:
        _write_outcome(folder, outcome)
    if opened is not None:
        _write_opened(folder, opened)


def _write_outcome(folder: Path, outcome: Outcome) -> None:
    from besom.trial.pictures import confusion_matrix_picture

    counts = confusion_matrix(outcome.probabilities, outcome.dataset.y_val)
    _write_confusion_matrix(folder / "confusion_matrix.csv", counts)
    confusion_matrix_picture(folder / "confusion_matrix.png", counts)
    _write_predictions(folder / "predictions.csv", outcome.probabilities, outcome.dataset)
    _write_mistakes(folder, outcome)


def _write_mistakes(folder: Path, outcome: Outcome) -> None:
    """Write which validation images were taken for another class: a table of all, a picture where there are some."""
    from besom.trial.mistakes import mistakes_of, mistakes_picture

    found = mistakes_of(outcome.probabilities, outcome.dataset.y_val)
    rows = ((one.place, one.truth, one.predicted, f"{one.probability:.4f}") for one in found)
    _write_csv(folder / "mistakes.csv", ("index", "truth", "predicted", "probability"), rows)
    if found:
        mistakes_picture(folder / "mistakes.png", found, outcome.dataset)


def _write_opened(folder: Path, opened: Opened) -> None:
    """Write two pictures for each convolution, N as in ``model.conv.N``, and the numbers of the second one's."""
    from besom.trial.filter_pictures import feature_maps_picture, filters_picture

    filters, maps = folder / "filters", folder / "feature_maps"
    for place in (filters, maps):
        place.mkdir(exist_ok=True)
    for number, layer in enumerate(opened.convolutions):
        filters_picture(filters / f"conv_{number}.png", layer)
        feature_maps_picture(maps / f"conv_{number}.png", opened, layer)
    np.savez(maps / "maps.npz", allow_pickle=False, image=opened.image, **_small_maps(opened))


def _small_maps(opened: Opened) -> dict[str, NDArray[np.float32]]:
    """Return the feature maps of each layer, its first ones where all would be too large, none where one would be."""
    room = MAPS_BYTES // len(opened.convolutions)
    found = {}
    for number, layer in enumerate(opened.convolutions):
        fitting = room // layer.maps[..., 0].nbytes
        if fitting:
            found[f"conv_{number}"] = layer.maps[..., :fitting]
    return found


def confusion_matrix(probabilities: NDArray[np.float32], truth: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count images by class.

    Args:
        probabilities: shape (n, n_classes).
        truth: labels, shape (n,).

    Returns:
        Counts of shape (n_classes, n_classes): row = the true class, column = the predicted one.
    """
    n_classes = probabilities.shape[1]
    cells = truth * n_classes + probabilities.argmax(axis=1)
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)


def _write_layers(path: Path, geometry: Geometry) -> None:
    rows = (
        (layer.name, _by(layer.output_shape), _by(layer.filter_shape or ()), layer.params, layer.formula, layer.macs)
        for layer in geometry.layers
    )
    _write_csv(path, ("name", "output_shape", "filter_shape", "params", "formula", "macs"), rows)


def _write_confusion_matrix(path: Path, counts: NDArray[np.int64]) -> None:
    rows = ((truth, *row) for truth, row in enumerate(counts.tolist()))
    _write_csv(path, ("truth", *(f"predicted_{label}" for label in range(len(counts)))), rows)


def _write_predictions(path: Path, probabilities: NDArray[np.float32], dataset: Dataset) -> None:
    """Write the seed's table: probabilities rounded to 2 digits beside the one-hot truth."""
    from besom.data import one_hot

    truth = one_hot(dataset.y_val[:SHOWN_PREDICTIONS], dataset.n_classes).astype(int).tolist()
    some = probabilities[:SHOWN_PREDICTIONS]
    rows = (
        (*(f"{value:.2f}" for value in row), *known, row.argmax(), label)
        for row, known, label in zip(some, truth, dataset.y_val, strict=False)
    )
    labels = range(dataset.n_classes)
    _write_csv(path, (*(f"p{n}" for n in labels), *(f"t{n}" for n in labels), "predicted", "truth"), rows)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
