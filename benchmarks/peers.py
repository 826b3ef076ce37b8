"""How long one sweep takes under besom and under what people use instead, wall clock from start to exit.

The work: 8 CNNs (3 or 6 filters of 5x5, then 6 or 12, relu or swish, dense 84) for 3 epochs of 50,000 MNIST images
each, 10,000 for validation, batches of 32, RMSprop, pixels 0 to 255. Everybody trains all 8, logs params, the metrics
of each epoch and the model to MLflow, and starts as a fresh process in a fresh folder. Contestants run in turn, in
another order each round.

    .venv/bin/python benchmarks/peers.py --data mnist.npz
    .venv/bin/python benchmarks/peers.py --append --rounds 1                     one more round to those there are
    .venv/bin/python benchmarks/peers.py --images 600 --epochs 1 --rounds 1      does everything work?

The peers live in contestants/ and run from .venv-peers, which has no besom; `make bench-peers` makes both.
Everybody gets the same images: besom reads MNIST's own file and splits it; this script does the same once with
besom's code and hands the peers the parts as one npz file. Peers run with oneDNN, as besom does; who trains two at
a time gives each one thread, who trains one at a time leaves both cores to TensorFlow. *Tuned* peers run as many
batches in one call as besom does (``steps_per_execution=25``) and validate in batches of 1,000, as it does too; the
others leave both as Keras has them, 1 and 32.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from besom_sweeps import BESOM, trials_with_history
from machine import about_machine, add_data
from summary import configuration, rows, spread

from besom.configs.schema import DataConfig
from besom.data import load
from besom.errors import UserError
from besom.paths import write_atomically

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
CONTESTANTS = HERE / "contestants"
OURS = ROOT / ".venv" / "bin"
PEERS = ROOT / ".venv-peers" / "bin"
SWEEP = CONTESTANTS / "cnn_grid.yaml"
PACKAGES = {name: name for name in ("tensorflow", "keras", "numpy", "mlflow", "optuna")} | {"hydra-core": "hydra"}
PEER_PACKAGES = {
    **PACKAGES,
    "keras-tuner": "keras_tuner",
    "ray": "ray.tune",
    "hydra-optuna-sweeper": "hydra_plugins.hydra_optuna_sweeper.config",
    "hydra-joblib-launcher": "hydra_plugins.hydra_joblib_launcher.config",
}
"""Package → what of it is imported."""
ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONPATH": str(CONTESTANTS),
    "RAY_USAGE_STATS_ENABLED": "0",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_ENABLE_ONEDNN_OPTS": "1",
}
"""What peers run with, so that none is slower than besom for a reason that is not its own."""
LEFT_OUT = ("MLFLOW_", "BESOM_", "OMP_", "TF_", "RAY_", "KERAS_", "PYTHONPATH")
"""How the variables start that nobody inherits from the shell."""
TIMEOUT = 7200
VERSIONS = """
import importlib, json, platform, sys
from importlib.metadata import version
modules = json.loads(sys.argv[1])
for module in modules.values():  # brings them from the disk into memory, before the first clock starts
    importlib.import_module(module)
print(json.dumps({"python": platform.python_version(), **{name: version(name) for name in modules}}))
"""


@dataclass(frozen=True)
class Contestant:
    """Somebody who can run the sweep.

    Args:
        script: in contestants/; empty for besom.
        flags: more arguments of the script.
        style: how it takes ``data`` and ``epochs``: as ``--data FILE``, or as Hydra's ``data=FILE``.
        counts_cpu: whether all its processes are its children, so that their CPU seconds are known.
        by_default: whether it runs without being named by ``--only``.
    """

    label: str
    script: str = ""
    flags: tuple[str, ...] = ()
    style: str = "--{}"
    counts_cpu: bool = True
    by_default: bool = True


ALL = {
    "besom": Contestant("besom, 2 lanes"),
    "one-lane": Contestant("besom, 1 lane", flags=("hydra.launcher.n_lanes=1",), by_default=False),
    "notebook": Contestant("Optuna loop + fit, MLflow by hand", "notebook.py"),
    "autolog": Contestant("Optuna loop + fit, MLflow autolog", "notebook.py", ("--autolog",)),
    "keras-tuner": Contestant("KerasTuner", "kerastuner.py"),
    "ray-tune": Contestant("Ray Tune, 2 at a time", "raytune.py", counts_cpu=False),
    "hydra-joblib": Contestant("Hydra + Optuna + joblib, 2 at a time", "hydra_joblib/app.py", style="{}"),
    "tuned": Contestant("Optuna loop + tuned fit, MLflow by hand", "notebook.py", ("--tuned",)),
    "hydra-tuned": Contestant(
        "Hydra + Optuna + joblib, tuned fit, 2 at a time", "hydra_joblib/app.py", ("tuned=true",), style="{}"
    ),
    "ray-tuned": Contestant(
        "Ray Tune, tuned fit, 2 at a time", "raytune.py", ("--tuned",), counts_cpu=False, by_default=False
    ),
}


@dataclass(frozen=True)
class Work:
    """What everybody trains.

    Args:
        source: MNIST's own file; None is Keras' cached copy.
        split: the npz file for the peers.
    """

    images: int
    epochs: int
    source: str | None
    split: Path = field(default_factory=Path)

    @property
    def val_images(self) -> int:
        """One for five training images, as 10,000 are for 50,000."""
        return max(10, self.images // 5)


def main() -> None:
    """Run all contestants so many rounds, keep each run at once, print the table."""
    given = options()
    work = Work(given.images, given.epochs, given.data and os.path.abspath(given.data))
    with tempfile.TemporaryDirectory(prefix="besom-peers-") as name:
        work = with_split(work, Path(name) / "split.npz")
        names = given.only or [name for name, contestant in ALL.items() if contestant.by_default]
        fresh = {**about(work), "contestants": {name: ALL[name].label for name in names}, "runs": []}
        report = continued(given.out, fresh) if given.append else fresh
        first = 1 + max((run["round"] for run in report["runs"]), default=-1)
        for number in range(first, first + given.rounds):
            shift = number % len(names)
            for contestant in [*names[shift:], *names[:shift]]:
                report["runs"].append({"round": number, **run(contestant, work, Path(name))})
                write_atomically(given.out, json.dumps(report, indent=1) + "\n")
                print(f"round {number + 1}: {contestant} {report['runs'][-1]['wall']:.1f} s", file=sys.stderr)
    print(table(report))


def continued(file: Path, fresh: dict[str, Any]) -> dict[str, Any]:
    """Return the report to which further rounds are added; exit where it is of other work, versions or machine."""
    if not file.is_file():
        return fresh
    report = json.loads(file.read_text("utf-8"))
    report["machine"]["load_at_start"] = fresh["machine"]["load_at_start"]
    different = [key for key in ("work", "versions", "machine", "besom") if report[key] != fresh[key]]
    if different:
        print(f"peers: {file} is of other {' and '.join(different)} than now; leave --append away", file=sys.stderr)
        sys.exit(2)
    names = report["contestants"] | fresh["contestants"]
    return {**report, "contestants": {name: names[name] for name in ALL if name in names}}


def options() -> argparse.Namespace:
    """Return the command's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data(parser)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=ALL, metavar="NAME", help=", ".join(ALL))
    parser.add_argument("--append", action="store_true", help="keep the rounds that --out already has")
    parser.add_argument("--images", type=int, default=50_000, help="training images; a fifth as many validate")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "peers.json", help="default: %(default)s")
    return parser.parse_args()


def with_split(work: Work, file: Path) -> Work:
    """Write the peers' images and return the work with them; exit where there are none."""
    try:
        images = load(DataConfig("besom.data.mnist", work.source, work.images, work.val_images, 10_000))
    except UserError as error:
        print(f"peers: {error}; give the whole MNIST by --data mnist.npz", file=sys.stderr)
        sys.exit(2)
    pixels = {"x_train": images.x_train.astype(np.uint8), "x_val": images.x_val.astype(np.uint8)}
    np.savez(file, **pixels, y_train=images.y_train, y_val=images.y_val)
    return Work(work.images, work.epochs, work.source, file)


def run(name: str, work: Work, folder: Path) -> dict[str, Any]:
    """Run one contestant in a folder of its own and return its clock, CPU seconds and checked results."""
    contestant, place, load_before = ALL[name], folder / name, os.getloadavg()[0]
    place.mkdir()
    command, environment = commands(contestant, work, place)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    call(name, command, environment, place)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    results = json.loads((place / "results.json").read_text("utf-8")) if contestant.script else of_besom(place)
    check(name, results, work)
    shutil.rmtree(place)
    return {
        "contestant": name,
        "wall": wall,
        "cpu": cpu if contestant.counts_cpu else None,
        "load_before": load_before,
        "results": sorted(results, key=lambda result: configuration(result["params"])),
    }


def commands(contestant: Contestant, work: Work, place: Path) -> tuple[list[str], dict[str, str]]:
    """Return a contestant's command line and environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(LEFT_OUT)}
    if contestant.script:
        pairs = (("data", work.split), ("epochs", work.epochs))
        if contestant.style == "{}":
            values = [f"{key}={value}" for key, value in pairs]
        else:
            values = [text for key, value in pairs for text in (contestant.style.format(key), str(value))]
        script = str(CONTESTANTS / contestant.script)
        return [str(PEERS / "python"), script, *values, *contestant.flags], environment | ENVIRONMENT
    overrides = [
        f"data.n_train={work.images}",
        f"data.n_val={work.val_images}",
        f"train.epochs={work.epochs}",
        f"paths.store={place / 'store'}",
        *contestant.flags,
    ]
    if work.source:
        overrides.append(f"data.path={work.source}")
    return [BESOM, "sweep", str(SWEEP), *overrides], environment


def call(name: str, command: Sequence[str], environment: Mapping[str, str], place: Path) -> None:
    """Run a command to its end; where it fails or hangs, show what it printed and exit."""
    with (place / "output.txt").open("wb") as output:  # a pipe would be kept open by daemons
        process = subprocess.Popen(
            command, cwd=place, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(TIMEOUT)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            code = f"a kill after {TIMEOUT} s"
    if code:
        fail(name, f"ended with {code}", place)


def fail(name: str, reason: str, place: Path) -> None:
    """Exit with a contestant's output."""
    print((place / "output.txt").read_text("utf-8", errors="replace"), file=sys.stderr)
    sys.exit(f"peers: {name} {reason}; its output is above")


def of_besom(place: Path) -> list[dict[str, Any]]:
    """Return besom's results from its own reports and MLflow's history."""
    return [
        {
            "params": {
                "filters_0": trial["model.conv.0.filters"],
                "filters_1": trial["model.conv.1.filters"],
                "activation": trial["model.activation"],
            },
            "val_accuracy": trial["objective"],
            "val_accuracy_by_epoch": [metric.value for metric in history],
            "seconds": trial["fit_seconds"],
            "n_params": trial["n_params"],
        }
        for trial, _, history in trials_with_history(SWEEP.stem, place / "store")
    ]


def check(name: str, results: Sequence[Mapping[str, Any]], work: Work) -> None:
    """Exit unless all 8 configurations were trained for all epochs, each network of the size it is to have."""
    wrong = [result for result in results if result["n_params"] != n_params(result["params"])]
    if wrong:
        sys.exit(f"peers: {name} trained another network: {wrong[0]}")
    found = {configuration(result["params"]) for result in results}
    epochs = {len(result["val_accuracy_by_epoch"]) for result in results}
    if len(results) != 8 or len(found) != 8 or epochs != {work.epochs}:
        sys.exit(f"peers: {name} trained {len(results)} times, {sorted(found)}, epochs {sorted(epochs)}; expected 8")


def n_params(params: Mapping[str, Any]) -> int:
    """Return the number of parameters of a configuration: two convolutions of 5x5, dense 84, 10 classes."""
    first, second = params["filters_0"], params["filters_1"]
    return (25 * first + first) + (25 * first * second + second) + (20 * 20 * second * 84 + 84) + (84 * 10 + 10)


def about(work: Work) -> dict[str, Any]:
    """Return what the numbers depend on: machine, versions, date and work."""
    return {
        **about_machine(),
        "versions": {"besom": versions(OURS, PACKAGES), "peers": versions(PEERS, PEER_PACKAGES)},
        "work": {
            "configurations": 8,
            "epochs": work.epochs,
            "images": work.images,
            "val_images": work.val_images,
            "batch_size": 32,
        },
    }


def versions(folder: Path, packages: Mapping[str, str]) -> dict[str, str]:
    """Return the versions of an environment's Python and packages; exit where there is none."""
    if not (folder / "python").exists():
        print(f"peers: {folder.parent.name} is missing; make it by: make bench-peers", file=sys.stderr)
        sys.exit(2)
    command = [str(folder / "python"), "-c", VERSIONS, json.dumps(packages)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    )
    return json.loads(done.stdout)


def table(report: Mapping[str, Any]) -> str:
    """Return the runs as text: one line a contestant."""
    work = report["work"]
    lines = [
        f"{work['configurations']} CNNs x {work['epochs']} epochs x {work['images']:,} images; median (lowest-highest)",
        f"{'':<40} {'wall s':>16} {'CPU s':>16} {'x besom':>8} {'best':>7} {'mean':>7} {'largest difference':>19}",
    ]
    for row in rows(report):
        ratio = f"{statistics.median(row.ratios):.2f}" if row.ratios else ""
        difference = "" if row.difference is None else f"{row.difference:.4f}"
        lines.append(
            f"{row.label:<40} {spread(row.walls):>16} {spread(row.cpus) if row.cpus else 'not counted':>16} {ratio:>8} "
            f"{row.best:>7.4f} {row.mean:>7.4f} {difference:>19}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
