"""Optuna's own ask and tell on a storage, for benchmarks/scale.py: so many trials under way, one process, no lanes.

    python optuna_alone.py STORAGE random|tpe TRIALS SECONDS

Below it, no sweep on that storage can be, that asks and tells as Optuna does. Writes ``clocks.txt``.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import optuna

LANES = 64
Result = TypeVar("Result")


def main(storage: str, sampler: str, trials: int, seconds: float) -> None:
    """Run the study until it has so many trials, or for so long."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    samplers = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}
    study = optuna.create_study(storage=storage, study_name="alone", sampler=samplers[sampler](seed=1))
    lines: list[str] = []

    def clocked(what: str, call: Callable[[], Result]) -> Result:
        start = time.perf_counter()
        found = call()
        lines.append(f"{what}\t{time.perf_counter() - start}\t{time.time()}\n")
        return found

    def ask() -> tuple[optuna.Trial, float]:
        trial = study.ask()
        value = (trial.suggest_float("x", -5, 5) - 1) ** 2 + (trial.suggest_float("y", -5, 5) + 2) ** 2
        value += trial.suggest_int("z", 1, 9) + (trial.suggest_categorical("kind", ["a", "b", "c"]) == "a")
        return trial, value

    started, under_way = time.monotonic(), deque[tuple[optuna.Trial, float]]()
    told = asked = 0
    while told < trials and time.monotonic() - started < seconds:
        if asked < trials and len(under_way) < LANES:
            under_way.append(clocked("ask", ask))
            asked += 1
            continue
        trial, value = under_way.popleft()
        for step in range(3):
            trial.report(value + 1 / (step + 1), step)
        clocked("tell", lambda trial=trial, value=value: study.tell(trial, value))  # type: ignore[misc]
        told += 1
    Path("clocks.txt").write_text("".join(lines), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
