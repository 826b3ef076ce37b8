"""Real learning curves with their clocks: every point of a finite space, trained to its end by besom itself.

`measure` trains them (half an hour), `Table` is what replays them (pruning.py).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from besom_sweeps import BESOM, trials_with_history
from machine import about_machine

HERE = Path(__file__).resolve().parent
SWEEP = HERE / "curves.yaml"


@dataclass(frozen=True)
class Curve:
    """One point, trained to its end.

    Args:
        params: by dotted key.
        values: validation accuracy of each epoch.
        times: seconds from the trial's start to the end of each epoch.
        end: seconds from the trial's start to its end, model and pictures logged.
    """

    params: dict[str, Any]
    values: list[float]
    times: list[float]
    end: float

    def ended_after(self, epoch: int) -> float:
        """Return how long the trial takes when it is stopped after an epoch, counted from 0.

        A stopped trial logs no model and no pictures; it is charged for them all the same.
        """
        return self.times[epoch] + self.end - self.times[-1]


@dataclass(frozen=True)
class Table:
    """All curves of a space; ``space`` is ``hydra.sweeper.params``."""

    space: dict[str, str]
    curves: list[Curve]
    about: dict[str, Any]

    def by_params(self) -> dict[str, Curve]:
        """Return the curves by their point, as text."""
        return {point_text(curve.params): curve for curve in self.curves}

    @classmethod
    def read(cls, file: Path) -> Table:
        """Return what `write` wrote."""
        content = json.loads(file.read_text("utf-8"))
        return cls(content["space"], [Curve(**curve) for curve in content["curves"]], content["about"])

    def write(self, file: Path) -> None:
        """Write one curve a line."""
        curves = ",\n".join(json.dumps(asdict(curve)) for curve in self.curves)
        head = f'"about": {json.dumps(self.about)},\n"space": {json.dumps(self.space)}'
        file.write_text(f'{{{head},\n"curves": [\n{curves}\n]}}\n', encoding="utf-8")


def point_text(params: Mapping[str, Any]) -> str:
    """Return a point as text, by which it is found again."""
    return json.dumps(dict(sorted(params.items())))


def measure(store: Path, overrides: Sequence[str]) -> Table:
    """Train what of the table is not trained in a store yet, and return the whole of it.

    Args:
        overrides: of the sweep, such as ``data.path=mnist.npz``.
    """
    about, space = about_machine(), _space()
    subprocess.run([BESOM, "sweep", str(SWEEP), *overrides, f"paths.store={store}"], check=True)
    return Table(space, [_curve(space, *trial) for trial in trials_with_history(SWEEP.stem, store)], about)


def _space() -> dict[str, str]:
    from omegaconf import OmegaConf  # noqa: PLC0415  # replaying needs none

    return {str(key): str(text) for key, text in OmegaConf.load(SWEEP).hydra.sweeper.params.items()}


def _curve(space: Mapping[str, str], row: Mapping[str, Any], run: Any, history: Sequence[Any]) -> Curve:
    times = [(metric.timestamp - run.start_time) / 1000 for metric in history]
    values = [round(metric.value, 6) for metric in history]
    return Curve({key: row[key] for key in space}, values, times, (run.end_time - run.start_time) / 1000)
