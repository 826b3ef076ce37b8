"""Proves the promise of the same bits: trains many networks in warm lanes, then each again in a fresh process.

    python benchmarks/prove.py                      50 trials on lanes of 1 and of 2 threads; docs/reproducibility.md
    python benchmarks/prove.py --trials 6 --epochs 1 --images 300 --threads 1 --out found.json --page found.md

The trials go through every activation, optimizer, batch size, dropout, batch norm and pooling that besom knows, on real
digits, by `besom sweep`; then `besom reproduce SWEEP --all` trains every one of them again. Each axis has a step of its
own, so that neighbours in a lane have little in common. Ends with exit code 1 where a trial is missing or not
bit-identical, or more than one in ten has failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from besom_sweeps import BESOM
from machine import about_machine
from page import replaced

from besom.configs.schema import ACTIVATIONS, OPTIMIZERS
from besom.paths import write_atomically

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "reproducibility.md"
NAME = "prove"

AXES: dict[str, tuple[int, Sequence[Any]]] = {
    "model.activation": (1, ACTIVATIONS),
    "train.optimizer": (1, OPTIMIZERS),
    "train.batch_size": (8, (16, 32, 64, 100)),
    "model.dropout": (2, (0.0, 0.25, 0.5)),
    "model.conv.0.batch_norm": (3, (False, True)),
    "model.conv.1.batch_norm": (5, (True, False)),
    "model.conv.0.dropout": (7, (0.0, 0.2)),
    "model.conv.0.pool": (4, (None, 2)),
    "model.pooling": (6, (None, "avg", "max")),
}
"""Key → after how many trials its value changes, and its values in turn."""


def main() -> None:
    """Sweep, reproduce, write down what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of a lane; one sweep for each")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--images", type=int, default=4000, help="to train on, of data=mnist_5k")
    parser.add_argument("--out", type=Path, default=HERE / "prove.json", help="default: %(default)s")
    parser.add_argument("--page", type=Path, default=PAGE, help="default: %(default)s")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="besom-prove-") as folder:
        sweeps = [swept_and_reproduced(Path(folder), threads, given) for threads in given.threads]
    about = {"trials": given.trials, "epochs": given.epochs, "images": given.images}
    found = {**about_machine(), **about, "sweeps": sweeps}
    write_atomically(given.out, json.dumps(found, indent=1) + "\n")
    text = given.page.read_text("utf-8") if given.page.is_file() else ""
    given.page.write_text(replaced(text, NAME, section(found)), encoding="utf-8")
    for sweep in sweeps:
        print(summary(sweep))
    sys.exit(not all(is_proved(sweep["rows"], given.trials) for sweep in sweeps))


def is_proved(rows: Sequence[Mapping[str, Any]], n: int) -> bool:
    """Tell whether all trials are there and bit-identical; one in ten may have failed, the same way twice."""
    complete = sum(row["state"] == "COMPLETE" for row in rows)
    return len(rows) == n and complete >= 0.9 * n and all(row["verdict"] == "bit-identical" for row in rows)


def points(n: int) -> list[dict[str, Any]]:
    """Return so many configurations, each axis in its own step."""
    return [{key: values[place // step % len(values)] for key, (step, values) in AXES.items()} for place in range(n)]


def swept_and_reproduced(folder: Path, threads: int, given: argparse.Namespace) -> dict[str, Any]:
    """Run one sweep and reproduce all of it; return its trials with their verdicts, and how long both took."""
    name = f"{NAME}-{threads}"
    file = folder / f"{name}.yaml"
    file.write_text(sweep_file(given, threads), encoding="utf-8")
    seconds = [clocked(folder, "sweep", str(file))]
    rows = {row["number"]: row for row in asked(folder, "runs", name)["trials"]}
    started = time.perf_counter()
    verdicts = asked(folder, "reproduce", name, "--all", code=(0, 1))["reproductions"]
    seconds.append(time.perf_counter() - started)
    trials = [
        {
            **{key: rows[one["trial"]].get(key) for key in AXES},
            **{key: rows[one["trial"]][key] for key in ("number", "objective", "state")},
            **{key: one[key] for key in ("verdict", "cause", "differs", "first_epoch")},
        }
        for one in verdicts
    ]
    return {"threads": threads, "sweep_seconds": seconds[0], "reproduce_seconds": seconds[1], "rows": trials}


def sweep_file(given: argparse.Namespace, threads: int) -> str:
    """Return a sweep of exactly these trials."""
    params = {key: ",".join(word(value) for value in values) for key, (_, values) in AXES.items()}
    sweeper = {"direction": "maximize", "n_trials": given.trials, "params": params, "enqueue": points(given.trials)}
    config = {
        "defaults": [{"override /data": "mnist_5k"}, {"override /hydra/sweeper/sampler": "random"}],
        "data": {"n_train": given.images, "rescale": "unit"},
        "train": {"epochs": given.epochs, "threads": threads},
        "hydra": {"mode": "MULTIRUN", "sweeper": {**sweeper, "sampler": {"seed": 1}}},
    }
    return f"# @package _global_\n# Does each of these give the same bits again?\n{yaml.safe_dump(config)}"


def word(value: Any) -> str:
    """Return a value as an override writes it."""
    return value if isinstance(value, str) else json.dumps(value)


def clocked(folder: Path, *arguments: str) -> float:
    """Run a command of besom and return the seconds that it took."""
    started = time.perf_counter()
    done = subprocess.run([BESOM, *arguments], cwd=folder, stdout=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        sys.exit(f"prove: besom {' '.join(arguments)} ended with {done.returncode}")
    return time.perf_counter() - started


def asked(folder: Path, *arguments: str, code: tuple[int, ...] = (0,)) -> Any:
    """Return what a command of besom says as JSON."""
    command = [BESOM, *arguments, "--format", "json"]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in code:
        sys.exit(f"prove: besom {' '.join(arguments)} ended with {done.returncode}")
    return json.loads(done.stdout)


def summary(sweep: Mapping[str, Any]) -> str:
    """Return one line about a sweep."""
    verdicts, states = (Counter(row[key] for row in sweep["rows"]) for key in ("verdict", "state"))
    counts = ", ".join(f"{n} {name}" for name, n in verdicts.items())
    ended = ", ".join(f"{n} {name}" for name, n in states.items())
    return (
        f"lanes of {sweep['threads']}: {counts} ({ended}); sweep {sweep['sweep_seconds']:.0f} s, "
        f"all of it again {sweep['reproduce_seconds']:.0f} s"
    )


def section(found: Mapping[str, Any]) -> str:
    """Return the table of the page."""
    machine, besom = found["machine"], found["besom"]
    about = (
        f"{found['trials']} configurations, {found['epochs']} epochs of {found['images']:,} digits each. "
        f"{machine['cpu']}, {machine['cores']} cores, {found['date'][:10]}; besom {besom['version']} at "
        f"`{(besom['commit'] or 'no commit')[:10]}`. `make prove`"
    )
    lines = [f"- {summary(sweep)}" for sweep in found["sweeps"]]
    return "\n".join([about, "", *lines, "", *table(found["sweeps"])])


def table(sweeps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one row a configuration, its verdict on lanes of each number of threads beside it."""
    by_trial = [{row["number"]: row for row in sweep["rows"]} for sweep in sweeps]
    titles = ["trial", *(key.partition(".")[2] for key in AXES)]
    titles += [f"{what}, {n} thread{'s' * (n > 1)}" for n in (one["threads"] for one in sweeps) for what in WHAT]
    lines = [titles, ["---"] * len(titles)]
    for number, row in by_trial[0].items():
        found = [cell for trials in by_trial for cell in ending(trials.get(number))]
        lines.append([str(number), *(word(row[key]).replace("null", "-") for key in AXES), *found])
    return [f"| {' | '.join(line)} |" for line in lines]


WHAT = ("val. accuracy", "again")


def ending(row: Mapping[str, Any] | None) -> tuple[str, str]:
    """Return how a trial ended and how equal it came out again."""
    if row is None:
        return "-", "-"
    ended = row["state"] if row["objective"] is None else f"{row['objective']:.4f}"
    return ended, row["verdict"]


if __name__ == "__main__":
    main()
