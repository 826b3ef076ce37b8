"""The same sweep on lanes of this machine and on lanes of a Ray cluster that it starts: what the engine costs.

Two pieces of work: ``peers``, the 8 networks of benchmarks/peers.py, and ``short``, 40 trainings of a second each,
where what is paid once a trial shows most. Engines take turns, another one first each round. Two clocks: the whole
command, and the *span* from the moment that a lane begins the first trial (Hydra writes its ``.hydra/config.yaml``
then) to the end of the last one's run in MLflow, which leaves starting up and ending out. Every point has to have the
same weights on both.

    python benchmarks/engines.py --data mnist.npz                            three rounds; twenty minutes
    python benchmarks/engines.py --rounds 1 --images 600 --epochs 1          does everything work?

Ends with exit code 1 where the engines' weights differ.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from besom_sweeps import BESOM, trials_with_history
from machine import about_machine, add_data
from summary import spread

from besom.paths import write_atomically

HERE = Path(__file__).resolve().parent
ENGINES = ("lanes", "ray")
SHORT = """\
# @package _global_
defaults:
  - override /data: mnist_5k
  - override /hydra/sweeper/sampler: grid
data: {n_train: 1000, n_val: 500}
train: {epochs: 2}
hydra:
  mode: MULTIRUN
  sweeper:
    direction: maximize
    n_trials: null
    params:
      model.conv.0.filters: choice(2, 3, 4, 5, 6)
      model.conv.1.filters: choice(4, 6)
      model.activation: choice(relu, swish)
      model.conv.0.kernel_size: choice(3, 5)
"""


def main() -> None:
    """Run every piece of work on every engine, so many rounds, keep each run at once, print the table."""
    given = options()
    report: dict[str, Any] = {**about_machine(), "runs": []}
    with tempfile.TemporaryDirectory(prefix="besom-engines-") as name:
        short = Path(name, "short.yaml")
        short.write_text(SHORT, encoding="utf-8")
        peers = [str(HERE / "contestants" / "cnn_grid.yaml"), f"data.n_train={given.images}"]
        peers += [f"data.n_val={max(10, given.images // 5)}", f"train.epochs={given.epochs}"]
        peers += [f"data.path={os.path.abspath(given.data)}"] if given.data else []
        for number in range(given.rounds):
            for work, command in {"peers": peers, "short": [str(short)]}.items():
                if given.only not in (None, work):
                    continue
                for engine in ENGINES if number % 2 == 0 else ENGINES[::-1]:
                    clocks = run(engine, command, Path(name, f"{work}-{engine}-{number}"))
                    report["runs"].append({"round": number, "work": work, "engine": engine, **clocks})
                    write_atomically(given.out, json.dumps(report, indent=1) + "\n")
    for row in rows(report):
        print("  ".join(f"{cell:<24}" for cell in row))
    found = {json.dumps([one["work"], one["weights"]]) for one in report["runs"]}
    sys.exit(len(found) != len({one["work"] for one in report["runs"]}))


def options() -> argparse.Namespace:
    """Return the command's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data(parser)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=50_000, help="training images of peers; a fifth validate")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of peers")
    parser.add_argument("--only", choices=("peers", "short"), help="one piece of work")
    parser.add_argument("--out", type=Path, default=HERE / "engines.json", help="default: %(default)s")
    return parser.parse_args()


def run(engine: str, command: list[str], store: Path) -> dict[str, Any]:
    """Run a sweep on an engine; return its clocks, the accuracies and the hash of the weights of every point."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("BESOM", "HYDRA", "MLFLOW", "RAY"))}
    start = time.perf_counter()
    done = subprocess.run(
        [BESOM, "sweep", *command, "--engine", engine, "--name", "work", f"paths.store={store}"],
        env=kept, capture_output=True, text=True, check=False,
    )  # fmt: skip
    wall = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"engines: {engine} ended with {done.returncode}: {done.stdout}{done.stderr}")
    started = min(file.stat().st_mtime for file in store.glob("jobs/work/*/.hydra/config.yaml"))
    ends, accuracies, weights = [], [], {}
    for trial, info, _ in trials_with_history("work", store):
        ends.append(info.end_time / 1000)
        accuracies.append(trial["objective"])
        weights[json.dumps([trial[key] for key in sorted(trial) if key.startswith("model.")])] = trial["weights_sha256"]
    print(f"{store.name}: {wall:.1f} s, span {max(ends) - started:.1f} s", file=sys.stderr)
    return {
        "wall": wall,
        "span": max(ends) - started,
        "trials": len(ends),
        "best": max(accuracies),
        "mean": statistics.fmean(accuracies),
        "weights": dict(sorted(weights.items())),
    }


def rows(report: Mapping[str, Any]) -> list[list[str]]:
    """Return a table: work and engine, both clocks, throughput by either clock over that of lanes in the same round."""
    found = [["", "wall s", "span s", "trials / s", "x lanes, span", "x lanes, wall", "best", "mean"]]
    for work in dict.fromkeys(one["work"] for one in report["runs"]):
        base = {one["round"]: one for one in report["runs"] if one["work"] == work and one["engine"] == "lanes"}
        for engine in ENGINES:
            runs = [one for one in report["runs"] if one["work"] == work and one["engine"] == engine]
            ratios = {clock: [base[one["round"]][clock] / one[clock] for one in runs] for clock in ("span", "wall")}
            found.append(
                [
                    f"{work}, {runs[0]['trials']} trials, {engine}",
                    spread([one["wall"] for one in runs], 1),
                    spread([one["span"] for one in runs], 1),
                    f"{statistics.median(one['trials'] / one['span'] for one in runs):.3f}",
                    spread(ratios["span"], 2),
                    spread(ratios["wall"], 2),
                    f"{runs[0]['best']:.4f}",
                    f"{runs[0]['mean']:.4f}",
                ]
            )
    return found


if __name__ == "__main__":
    main()
