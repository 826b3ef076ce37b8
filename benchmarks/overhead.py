"""What a sweep costs beside its trials: an empty objective, SQLite, Hydra's basic launcher, all in one process.

Runs the same app under the official Optuna sweeper and under besom's, in turn, and prints milliseconds a
trial and their ratio, the best value that each found beside. Then besom alone over many trials: what a
trial costs once there are so many, with and without ``hydra.sweeper.history``.

    python benchmarks/overhead.py                     both parts, as long as an hour on 2 cores
    python benchmarks/overhead.py --trials 200 --repeats 1 --growth 1000

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
from pathlib import Path

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
SPACE = ["x=interval(-5.0,5.0)", "y=interval(-5.0,5.0)", "z=choice(a,b,c)"]
WINDOW = 100


def main() -> None:
    """Run both parts and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, help="trials of the comparison")
    parser.add_argument("--repeats", type=int, default=3, help="how often each side runs")
    parser.add_argument("--samplers", nargs="+", default=["random", "tpe"])
    parser.add_argument("--growth", type=int, default=10_000, help="trials of the second part; 0 leaves it out")
    parser.add_argument("--history", type=int, default=1000)
    given = parser.parse_args()
    for sampler in given.samplers:
        compare(sampler, given.trials, given.repeats)
    if given.growth:
        grow(given.growth, None)
        grow(given.growth, given.history)


def compare(sampler: str, trials: int, repeats: int) -> None:
    """Print both sweepers side by side, run in turn so that a slow minute of the machine hits both."""
    runs: dict[str, list[dict[str, float]]] = {"optuna": [], "besom": []}
    for repeat in range(repeats):
        for sweeper in sorted(runs, reverse=bool(repeat % 2)):
            runs[sweeper].append(run(sweeper, sampler, trials, []))
    print(f"{trials} trials of an empty objective, sampler {sampler}, {repeats} runs each; median (lowest-highest)")
    for sweeper, found in runs.items():
        name = {"optuna": "hydra-optuna-sweeper 1.4.0rc3", "besom": "besom"}[sweeper]
        cells = [f"{key} {spread([one[key] / trials * 1000 for one in found])} ms a trial" for key in ("wall", "cpu")]
        print(f"  {name:<30} {'   '.join(cells)}   best value {statistics.median(one['best'] for one in found):.4f}")
    ratios = [one["wall"] / other["wall"] for one, other in zip(runs["besom"], runs["optuna"], strict=True)]
    cpu = [one["cpu"] / other["cpu"] for one, other in zip(runs["besom"], runs["optuna"], strict=True)]
    print(f"  besom / official: wall {spread(ratios, 2)}, cpu {spread(cpu, 2)}")


def grow(trials: int, history: int | None) -> None:
    """Print what a trial costs once there are 100, 1,000, … of them."""
    found = run("besom", "tpe", trials, [f"hydra.sweeper.history={history}"] if history else [])
    marks = [mark for mark in (WINDOW, 1000, 2000, 5000, 10_000) if mark <= trials]
    costs = ", ".join(f"{found[str(mark)]:.0f} ms at {mark:,}" for mark in marks)
    print(f"besom, tpe, history {history or 'unbounded'}: {costs} (wall a trial, mean of the last {WINDOW})")
    print(f"  best value {found['best']:.4f}")


def run(sweeper: str, sampler: str, trials: int, more: list[str]) -> dict[str, float]:
    """Run one sweep in a process of its own and return its seconds, its best value and, by mark, ms a trial."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "app.py").write_text(APP, encoding="utf-8")
        options = [
            *SPACE,
            *more,
            f"hydra/sweeper={sweeper}",
            f"hydra/sweeper/sampler={sampler}",
            "hydra.sweeper.sampler.seed=1",
            f"hydra.sweeper.n_trials={trials}",
            "hydra.sweeper.n_jobs=1",
            f"hydra.sweeper.storage=sqlite:///{folder / 'study.db'}",
            "hydra.sweeper.study_name=overhead",
            f"hydra.sweep.dir={folder / 'sweep'}",
        ]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [sys.executable, "app.py", "-m", *options], cwd=folder, capture_output=True, text=True, check=False
        )
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            sys.exit(done.stderr)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {"wall": wall, "cpu": cpu, **read(folder / "study.db")}


def read(database: Path) -> dict[str, float]:
    """Return the best value of a study and, by mark, how long a trial took there."""
    script = (
        "import json, optuna\n"
        "optuna.logging.set_verbosity(optuna.logging.ERROR)\n"
        f"study = optuna.load_study(study_name='overhead', storage='sqlite:///{database}')\n"
        "times = [trial.datetime_complete.timestamp() for trial in study.trials]\n"
        f"costs = {{n: (times[n - 1] - times[n - {WINDOW}]) / {WINDOW - 1} * 1000 for n in"
        " (100, 1000, 2000, 5000, 10000) if n <= len(times)}\n"
        "print(json.dumps({'best': study.best_value, **costs}))\n"
    )
    found: dict[str, float] = json.loads(subprocess.check_output([sys.executable, "-c", script], text=True))
    return found


def spread(values: list[float], digits: int = 1) -> str:
    """Return ``median (lowest-highest)``."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


if __name__ == "__main__":
    main()
