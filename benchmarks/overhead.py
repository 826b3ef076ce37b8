"""What a sweep costs beside its trials: an empty objective, SQLite, Hydra's basic launcher, all in one process.

Runs the same app under the official Optuna sweeper and under besom's, in turn, and prints milliseconds a
trial and their ratio, the best value that each found beside. Then besom alone: what a trial costs once there
are so many of them, with and without ``hydra.sweeper.history``.

    python benchmarks/overhead.py                     both parts, about half an hour
    python benchmarks/overhead.py --trials 200 --repeats 1 --growth 100 1000

Needs an environment with besom and hydra-optuna-sweeper 1.4.0rc3; `make bench` has one.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from machine import about_machine
from summary import spread

from besom.paths import write_atomically

HERE = Path(__file__).resolve().parent
NAMES = {"official": "hydra-optuna-sweeper 1.4.0rc3", "besom": "besom"}

APP = """
import hydra
from hydra.core.config_store import ConfigStore

ConfigStore.instance().store(name="config", node={"x": 0.0, "y": 0.0, "z": "a"})


@hydra.main(version_base="1.3", config_path=None, config_name="config")
def main(config):
    return (config.x - 1) ** 2 + (config.y + 2) ** 2 + (config.z == "a")


if __name__ == "__main__":
    main()
"""
READ = """
import json, optuna, sys
study = optuna.load_study(study_name="overhead", storage=f"sqlite:///{sys.argv[1]}")
times = [trial.datetime_complete.timestamp() for trial in study.trials[-int(sys.argv[2]):]]
print(json.dumps({"best": study.best_value, "window": (times[-1] - times[0]) / (len(times) - 1) * 1000}))
"""
FILL = """
import optuna, random, sys
study = optuna.load_study(study_name="overhead", storage=f"sqlite:///{sys.argv[1]}")
rng, first = random.Random(0), study.trials[0]
for point in range(1, int(sys.argv[2]) + 1):
    params = {"x": rng.uniform(-5, 5), "y": rng.uniform(-5, 5), "z": rng.choice("abc")}
    value = (params["x"] - 1) ** 2 + (params["y"] + 2) ** 2 + (params["z"] == "a")
    study.add_trial(optuna.trial.create_trial(
        value=value, params=params, distributions=first.distributions, user_attrs={**first.user_attrs, "point": point}))
"""
SPACE = ["x=interval(-5.0,5.0)", "y=interval(-5.0,5.0)", "z=choice(a,b,c)"]
WINDOW = 100


def main() -> None:
    """Run both parts, keep them and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, help="trials of the comparison")
    parser.add_argument("--repeats", type=int, default=3, help="how often each side runs")
    parser.add_argument("--samplers", nargs="*", default=["random", "tpe"])
    parser.add_argument(
        "--growth", type=int, nargs="*", default=[10, 100, 1000, 10_000], help="how many trials there are"
    )
    parser.add_argument("--history", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=HERE / "overhead.json", help="default: %(default)s")
    given = parser.parse_args()
    report = {**about_machine(), "trials": given.trials, "window": WINDOW, "samplers": {}, "growth": []}
    for sampler in given.samplers:
        report["samplers"][sampler] = compare(sampler, given.trials, given.repeats)
        print(comparison(sampler, given.trials, report["samplers"][sampler]))
    for history in (None, given.history) if given.growth else ():
        report["growth"].append({"history": history, "milliseconds": grow(given.growth, history)})
        print(growth(report["growth"][-1]))
    write_atomically(given.out, json.dumps(report, indent=1) + "\n")


def compare(sampler: str, trials: int, repeats: int) -> dict[str, list[dict[str, float]]]:
    """Run both sweepers in turn, so that a slow minute of the machine hits both; return ms a trial and best values."""
    runs: dict[str, list[dict[str, float]]] = {"official": [], "besom": []}
    for repeat in range(repeats):
        for sweeper in sorted(runs, reverse=bool(repeat % 2)):
            found = run({"official": "optuna"}.get(sweeper, sweeper), sampler, trials, [])
            costs = {key: found[key] / trials * 1000 for key in ("wall", "cpu")}
            runs[sweeper].append({**costs, "best": found["best"]})
    return runs


def comparison(sampler: str, trials: int, runs: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Return both sweepers side by side as text."""
    n_runs = len(runs["besom"])
    lines = [f"{trials} trials of an empty objective, sampler {sampler}, {n_runs} runs each; median (lowest-highest)"]
    for sweeper, found in runs.items():
        cells = [f"{key} {spread([one[key] for one in found], 1)} ms a trial" for key in ("wall", "cpu")]
        best = statistics.median(one["best"] for one in found)
        lines.append(f"  {NAMES[sweeper]:<30} {'   '.join(cells)}   best value {best:.4f}")
    ratios = {key: [one[key] / other[key] for one, other in zip(runs["besom"], runs["official"], strict=True)]
              for key in ("wall", "cpu")}  # fmt: skip
    lines.append(f"  besom / official: {', '.join(f'{key} {spread(values, 2)}' for key, values in ratios.items())}")
    return "\n".join(lines)


def grow(marks: Sequence[int], history: int | None) -> dict[str, float]:
    """Return what a trial costs once there are so many: the study is filled up to there, then the sweep goes on."""
    more = [f"hydra.sweeper.history={history}"] if history else []
    return {str(mark): run("besom", "tpe", mark + WINDOW, more, filled=mark)["window"] for mark in marks}


def growth(part: Mapping[str, Any]) -> str:
    """Return the cost at each number of trials as text."""
    costs = ", ".join(f"{cost:.0f} ms at {int(mark):,}" for mark, cost in part["milliseconds"].items())
    return f"besom, tpe, history {part['history'] or 'unbounded'}: {costs} (wall a trial, mean of {WINDOW})"


def run(sweeper: str, sampler: str, trials: int, more: list[str], filled: int = 0) -> dict[str, float]:
    """Run one sweep in a process of its own; return its seconds, its best value and ms a trial at its end.

    Args:
        filled: how many of the trials are put into the study without being run.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "app.py").write_text(APP, encoding="utf-8")
        options = [
            *SPACE,
            *more,
            f"hydra/sweeper={sweeper}",
            f"hydra/sweeper/sampler={sampler}",
            "hydra.sweeper.sampler.seed=1",
            "hydra.sweeper.n_jobs=1",
            f"hydra.sweeper.storage=sqlite:///{folder / 'study.db'}",
            "hydra.sweeper.study_name=overhead",
            f"hydra.sweep.dir={folder / 'sweep'}",
        ]
        if filled:
            call(["app.py", "-m", *options, "hydra.sweeper.n_trials=1"], folder)
            call(["-c", FILL, str(folder / "study.db"), str(filled - 1)], folder)
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        call(["app.py", "-m", *options, f"hydra.sweeper.n_trials={trials}"], folder)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        read: dict[str, float] = json.loads(call(["-c", READ, str(folder / "study.db"), str(WINDOW)], folder))
        return {"wall": wall, "cpu": cpu, **read}


def call(arguments: list[str], folder: Path) -> str:
    """Run Python in a folder and return what it printed."""
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return done.stdout


if __name__ == "__main__":
    main()
