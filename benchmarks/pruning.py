"""How much sooner a sweep gets there that prunes: Optuna's pruners under besom's study, on real learning curves.

The curves are measured once (`--measure`, half an hour; benchmarks/curves.json), with the seconds of each epoch.
A sweep is then replayed in simulated time, with besom's own study, samplers and pruners: two lanes, each trial as
long as it took when it was measured, stopped where the pruner says so. So a hundred sweeps take a
minute, and two ways to sweep differ in nothing but their sampler and pruner.

A seed's target is the best validation accuracy of its unpruned TPE sweep less 0.1 percentage points; the figure is the
time until a complete trial reaches it, as a share of the unpruned sweep's. A sweep that has not reached the target
with its last trial goes on, up to the last point of the table.

    python benchmarks/pruning.py --measure --data mnist.npz
    python benchmarks/pruning.py                              replays what was measured
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import statistics
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from curves import Curve, Table, measure, point_text
from optuna.exceptions import ExperimentalWarning

from besom.options import PRUNERS, SAMPLERS
from besom.paths import write_atomically
from besom.results import TrialResult
from besom.search.pruners import build_pruner
from besom.search.search import Search
from besom.search.space import parse
from besom.sweep.study import SweepStudy

HERE = Path(__file__).resolve().parent
TABLE = HERE / "curves.json"
LANES = 2
TRIALS = 40
"""As in sweeps/tpe.yaml."""
MARGIN = 0.001


@dataclass(frozen=True)
class Way:
    """One way to sweep: an option of ``hydra/sweeper/sampler``, one of ``hydra/sweeper/pruner``, its arguments."""

    label: str
    sampler: str
    pruner: str = "none"
    arguments: tuple[tuple[str, Any], ...] = ()

    def pruner_config(self) -> dict[str, Any]:
        """Return ``hydra.sweeper.pruner``."""
        return {**PRUNERS[self.pruner], **dict(self.arguments)}


BASE = Way("TPE", "tpe")
WAYS = (
    BASE,
    Way("random", "random"),
    Way("TPE, median", "tpe", "median"),
    Way("TPE, median, from the 2nd epoch", "tpe", "median", (("n_warmup_steps", 1),)),
    Way("TPE, percentile 25", "tpe", "percentile", (("percentile", 25.0),)),
    Way("TPE, percentile 75", "tpe", "percentile", (("percentile", 75.0),)),
    Way("TPE, successive halving by 2", "tpe", "successive_halving", (("min_resource", 1), ("reduction_factor", 2))),
    Way("TPE, successive halving by 3", "tpe", "successive_halving", (("min_resource", 1), ("reduction_factor", 3))),
    Way("TPE, hyperband", "tpe", "hyperband", (("min_resource", 1), ("max_resource", 5), ("reduction_factor", 3))),
    Way("random, median", "random", "median"),
    Way("random, halving by 2", "random", "successive_halving", (("min_resource", 1), ("reduction_factor", 2))),
)


@dataclass
class Outcome:
    """What one replayed sweep did.

    ``reached`` is when a complete trial was as good as the target, in seconds; ``end``, ``best``, ``epochs`` and
    ``pruned`` are of its first 40 trials.
    """

    reached: float | None = None
    end: float = 0.0
    best: float = 0.0
    epochs: int = 0
    pruned: int = 0


class Replay:
    """One sweep in simulated time.

    Args:
        target: an accuracy; the sweep goes on past its last trial until it is reached. None to stop there.
    """

    def __init__(self, table: Table, way: Way, seed: int, target: float | None = None) -> None:
        self.outcome = Outcome()
        self._curves, self._seed, self._target = table.by_params(), seed, target
        search = Search(["maximize"], parse(table.space)[0], {**SAMPLERS[way.sampler], "seed": seed})
        self._study = SweepStudy(None, "replay", search, {}, build_pruner(way.pruner_config()))
        self._next: list[tuple[float, int, int, float, Curve]] = []
        """When which trial reaches the end of which epoch; when it was started."""

    def run(self) -> Outcome:
        """Replay the sweep to its end."""
        for _ in range(LANES):
            self._start(0.0)
        while self._next:
            self._end_epoch(*heapq.heappop(self._next))
        return self.outcome

    def _start(self, now: float) -> None:
        is_over = self._target is None or self.outcome.reached is not None
        if is_over and len(self._study.trials) >= TRIALS:
            return
        trial = self._study.ask(self._seed)
        if trial is not None:
            curve = self._curves[point_text(trial.point)]
            heapq.heappush(self._next, (now + curve.times[0], trial.number, 0, now, curve))

    def _end_epoch(self, now: float, number: int, epoch: int, started: float, curve: Curve) -> None:
        self.outcome.epochs += number < TRIALS
        if self._study.report(number, epoch, curve.values[epoch]):
            self._study.finish(TrialResult(number, "PRUNED"))
            self.outcome.pruned += number < TRIALS
        elif epoch + 1 < len(curve.values):
            heapq.heappush(self._next, (started + curve.times[epoch + 1], number, epoch + 1, started, curve))
            return
        else:
            self._complete(number, started, curve)
        end = started + curve.ended_after(epoch)
        if number < TRIALS:
            self.outcome.end = max(self.outcome.end, end)
        self._start(end)

    def _complete(self, number: int, started: float, curve: Curve) -> None:
        value, outcome = max(curve.values), self.outcome
        self._study.finish(TrialResult(number, "COMPLETE", [value]))
        if number < TRIALS:
            outcome.best = max(outcome.best, value)
        if self._target is not None and outcome.reached is None and value >= self._target:
            outcome.reached = started + curve.end


def main() -> None:
    """Measure where asked to, replay every way with every seed, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="train the curves first; done without it where none are")
    parser.add_argument("--data", default=os.environ.get("BESOM_MNIST_NPZ"), help="mnist.npz, for --measure")
    parser.add_argument("--store", type=Path, help="where --measure trains; what is there already is not trained again")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--out", type=Path, default=HERE / "pruning.json", help="default: %(default)s")
    given = parser.parse_args()
    if given.measure or not TABLE.is_file():
        with tempfile.TemporaryDirectory(prefix="besom-curves-") as folder:
            overrides = [f"data.path={Path(given.data).resolve()}"] if given.data else []
            measure(given.store.resolve() if given.store else Path(folder), overrides).write(TABLE)
    warnings.simplefilter("ignore", ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    table = Table.read(TABLE)
    report = {**table.about, "points": len(table.curves), "trials": TRIALS, "lanes": LANES, "ways": []}
    targets = {seed: Replay(table, BASE, seed).run().best - MARGIN for seed in range(given.seeds)}
    for way in WAYS:
        runs = [vars(Replay(table, way, seed, target).run()) for seed, target in targets.items()]
        report["ways"].append({"label": way.label, "runs": runs})
    write_atomically(given.out, json.dumps(report, indent=1) + "\n")
    print(text(report))


def text(report: Mapping[str, Any]) -> str:
    """Return the report as a table of text."""
    base = report["ways"][0]["runs"]
    lines = [f"{'':<34} {'time to target':>22} {'not reached':>12} {'time of 40':>22} {'epochs':>7} {'best, pp':>20}"]
    for way in report["ways"]:
        row = summary(way["runs"], base)
        lines.append(
            f"{way['label']:<34} {quartiles(row['reached']):>22} {row['missed']:>12} {quartiles(row['end']):>22} "
            f"{statistics.median(run['epochs'] for run in way['runs']):>7.0f} {quartiles(row['gain']):>20}"
        )
    return "\n".join(lines)


def summary(runs: list[dict[str, Any]], base: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a way's figures, seed by seed: times as shares of the unpruned TPE sweep's, the best in points."""
    pairs = list(zip(runs, base, strict=True))
    return {
        "reached": [run["reached"] / other["reached"] for run, other in pairs if run["reached"] is not None],
        "missed": sum(run["reached"] is None for run in runs),
        "end": [run["end"] / other["end"] for run, other in pairs],
        "gain": [100 * (run["best"] - other["best"]) for run, other in pairs],
    }


def quartiles(values: list[float]) -> str:
    """Return ``median (lower quartile to upper quartile)``."""
    if len(values) < 2:
        return "".join(f"{value:.2f}" for value in values)
    lower, middle, upper = statistics.quantiles(values, n=4)
    return f"{middle:.2f} ({lower:.2f} to {upper:.2f})"


if __name__ == "__main__":
    main()
