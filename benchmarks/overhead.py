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
from pathlib import Path

from summary import spread

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
    """Run both parts and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, help="trials of the comparison")
    parser.add_argument("--repeats", type=int, default=3, help="how often each side runs")
    parser.add_argument("--samplers", nargs="*", default=["random", "tpe"])
    parser.add_argument("--growth", type=int, nargs="*", default=[100, 1000, 10_000], help="how many trials there are")
    parser.add_argument("--history", type=int, default=1000)
    given = parser.parse_args()
    for sampler in given.samplers:
        compare(sampler, given.trials, given.repeats)
    for history in (None, given.history) if given.growth else ():
        grow(given.growth, history)


def compare(sampler: str, trials: int, repeats: int) -> None:
    """Print both sweepers side by side, run in turn so that a slow minute of the machine hits both."""
    runs: dict[str, list[dict[str, float]]] = {"optuna": [], "besom": []}
    for repeat in range(repeats):
        for sweeper in sorted(runs, reverse=bool(repeat % 2)):
            runs[sweeper].append(run(sweeper, sampler, trials, []))
    print(f"{trials} trials of an empty objective, sampler {sampler}, {repeats} runs each; median (lowest-highest)")
    for sweeper, found in runs.items():
        name = {"optuna": "hydra-optuna-sweeper 1.4.0rc3", "besom": "besom"}[sweeper]
        cells = [
            f"{key} {spread([one[key] / trials * 1000 for one in found], 1)} ms a trial" for key in ("wall", "cpu")
        ]
        print(f"  {name:<30} {'   '.join(cells)}   best value {statistics.median(one['best'] for one in found):.4f}")
    ratios = [one["wall"] / other["wall"] for one, other in zip(runs["besom"], runs["optuna"], strict=True)]
    cpu = [one["cpu"] / other["cpu"] for one, other in zip(runs["besom"], runs["optuna"], strict=True)]
    print(f"  besom / official: wall {spread(ratios, 2)}, cpu {spread(cpu, 2)}")


def grow(marks: list[int], history: int | None) -> None:
    """Print what a trial costs once there are so many: the study is filled up to there, then the sweep goes on."""
    more = [f"hydra.sweeper.history={history}"] if history else []
    found = [run("besom", "tpe", mark + WINDOW, more, filled=mark)["window"] for mark in marks]
    costs = ", ".join(f"{cost:.0f} ms at {mark:,}" for mark, cost in zip(marks, found, strict=True))
    print(f"besom, tpe, history {history or 'unbounded'}: {costs} (wall a trial, mean of {WINDOW})")


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
