"""What the best trial's run left that a page shows: layers, pictures, confusion matrix, mistakes, hashes."""

from __future__ import annotations

import base64
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from besom.compare.table import Row, Table

HASHES = ("weights_sha256", "history_sha256", "predictions_sha256")
TEXTS = {
    "learning_curve": "Learning curve: loss and accuracy by epoch",
    "confusion_matrix": "Confusion matrix on the validation images",
    "filters": "The filters of {layer}: each is a block of weights as deep as the layer's input has channels",
    "feature_maps": "The feature maps that {layer} makes of one validation image, one map a filter",
}
MISTAKES = "Validation images that it got wrong, the surest mistakes first: true class, predicted class, probability"


@dataclass(frozen=True)
class Picture:
    """A PNG inside the page; ``text`` says what it shows, for who cannot see it too."""

    data: str
    text: str
    width: int
    height: int

    @classmethod
    def read(cls, file: Path, text: str) -> Picture:
        with Image.open(file) as image:
            width, height = image.size
        return cls(f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}", text, width, height)


@dataclass(frozen=True)
class ChampionPage:
    """What there is to show of the best trial; parts that its run lacks are None or empty."""

    layers: Table | None
    pictures: Sequence[Picture]
    confusion: Table | None
    mistakes: Picture | None
    facts: Table

    @classmethod
    def read(cls, folder: Path, run_id: str, tags: Mapping[str, str]) -> ChampionPage:
        """Read the artifacts of a run, laid into a folder.

        Args:
            tags: of the run.
        """
        mistakes = folder / "mistakes.png"
        return cls(
            layers=_csv_table(folder / "layers.csv", "Its layers"),
            pictures=_pictures(folder),
            confusion=_csv_table(folder / "confusion_matrix.csv", "The confusion matrix as a table"),
            mistakes=Picture.read(mistakes, MISTAKES) if mistakes.is_file() else None,
            facts=_facts(run_id, tags),
        )


def _pictures(folder: Path) -> list[Picture]:
    names = ("learning_curve", "confusion_matrix")
    found = [Picture.read(file, TEXTS[name]) for name in names if (file := folder / f"{name}.png").is_file()]
    for group in ("filters", "feature_maps"):
        files = sorted((folder / group).glob("conv_*.png"), key=lambda file: int(file.stem.removeprefix("conv_")))
        found += [Picture.read(file, TEXTS[group].format(layer=file.stem)) for file in files]
    return found


def _csv_table(file: Path, caption: str) -> Table | None:
    if not file.is_file():
        return None
    with file.open(encoding="utf-8", newline="") as text:
        header, *lines = csv.reader(text)
    numeric = [name for place, name in enumerate(header) if lines and all(_is_number(line[place]) for line in lines)]
    return Table(caption, header, [Row(line) for line in lines], numeric)


def _is_number(text: str) -> bool:
    return text.lstrip("-").replace(".", "", 1).isdigit()


def _facts(run_id: str, tags: Mapping[str, str]) -> Table:
    parts = {key: value for key, value in tags.items() if key in HASHES or key.startswith("fingerprint.")}
    rows = [Row((key, value)) for key, value in {"run_id": run_id, **dict(sorted(parts.items()))}.items()]
    return Table("What its result is known by, and depends on", ("part", "value"), rows)
