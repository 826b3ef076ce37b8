"""The sweep's promises on a cheap function, through a real Hydra app, with real kills."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
import yaml
from conftest import all_gone, lanes_of, until

from besom.storage import load_study
from besom.sweep.tally import OWN, outcome

APP = Path(__file__).parent / "apps" / "toy.py"
SPACE = ("x=1,2,3", "y=range(0,4)")  # 12 points


class Toy:
    """The toy app in one folder, and what its study holds."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment

    def command(self, *overrides: str) -> list[str]:
        swept = {text.split("=")[0] for text in overrides}
        space = [text for text in SPACE if text.split("=")[0] not in swept]
        seed = [] if any("sampler" in text for text in overrides) else ["hydra.sweeper.sampler.seed=1"]
        return [sys.executable, str(APP), "-m", *space, *seed, *overrides]

    def run(self, *overrides: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*overrides),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def start(self, *overrides: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*overrides),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def trials(self) -> list[optuna.trial.FrozenTrial]:
        return load_study(f"sqlite:///{self.folder / 'sweep' / 'study.db'}", "toy").trials

    @property
    def own(self) -> list[optuna.trial.FrozenTrial]:
        return [trial for trial in self.trials if outcome(trial) in OWN]

    @property
    def points(self) -> list[tuple[Any, ...]]:
        return [tuple(trial.params.values()) for trial in self.own]

    @property
    def trained(self) -> list[str]:
        log = self.folder / "sweep" / "trained.txt"
        return log.read_text().splitlines() if log.exists() else []

    @property
    def results(self) -> dict[str, Any]:
        loaded: dict[str, Any] = yaml.safe_load((self.folder / "sweep" / "optimization_results.yaml").read_text())
        return loaded

    def result(self, number: int) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.folder / "sweep" / str(number) / "result.json").read_text())
        return loaded


@pytest.fixture
def toy(tmp_path: Path, clean_environment: dict[str, str]) -> Toy:
    return Toy(tmp_path, clean_environment)


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_a_finite_space_is_trained_once_each_and_then_the_sweep_ends(toy: Toy, sampler: str) -> None:
    done = toy.run(f"hydra/sweeper/sampler={sampler}", "hydra.sweeper.n_trials=50")
    assert done.returncode == 0, done.stderr
    assert sorted(toy.points) == sorted((x, y) for x in (1, 2, 3) for y in range(4))
    assert [trial.number for trial in toy.trials] == list(range(12))
    assert len(toy.trained) == 12
    assert max(trial.value or 0 for trial in toy.trials) == 33


def test_a_complete_sweep_trains_nothing_again(toy: Toy) -> None:
    toy.run("hydra.sweeper.n_trials=3")
    again = toy.run("hydra.sweeper.n_trials=3")
    assert again.returncode == 0, again.stderr
    assert len(toy.trials) == len(toy.trained) == 3


def test_a_raised_total_runs_only_the_new_ones(toy: Toy) -> None:
    toy.run("hydra.sweeper.n_trials=3")
    toy.run("hydra.sweeper.n_trials=5")
    assert len(toy.trials) == len(toy.trained) == len(set(toy.points)) == 5


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("random", marks=pytest.mark.service)])
def test_a_resumed_sequential_sweep_asks_for_the_points_of_an_uninterrupted_one(
    toy: Toy, tmp_path: Path, sampler: str
) -> None:
    common = (f"hydra/sweeper/sampler={sampler}", "hydra.sweeper.sampler.seed=5", "hydra.launcher.n_lanes=1")
    whole = Toy(tmp_path / "whole", toy.environment)
    whole.folder.mkdir()
    assert whole.run(*common, "hydra.sweeper.n_trials=12").returncode == 0
    for total in (5, 12):
        toy.run(*common, f"hydra.sweeper.n_trials={total}")
    assert toy.points == whole.points


def test_changed_settings_are_refused_and_listed(toy: Toy) -> None:
    toy.run("hydra.sweeper.n_trials=2")
    before = toy.trials
    refused = toy.run("hydra.sweeper.n_trials=3", "y=range(0,5)", "seconds=0.5")
    assert refused.returncode == 2
    assert "seconds: was 0.0, is 0.5" in refused.stderr
    assert 'hydra.sweeper.params.y: was "range(0,4)", is "range(0,5)"' in refused.stderr
    assert "hydra.sweeper.study_name" in refused.stderr
    assert toy.trials == before


REASONS = {
    "raise": "ValueError: x is three",
    "exit": "the task called sys.exit(3)",
    "nan": "the objective is nan; expected a finite number",
    "inf": "the objective is inf; expected a finite number",
    "none": "the task returned None; expected a finite number",
    "text": "the task returned 'three'; expected a finite number",
    "memory": "MemoryError",
    "tells": "ValueError: point is a name of besom's own and cannot be told",
    "unpicklable": "unlocked _thread.lock object",
}


def test_every_failing_trial_has_its_reason_and_the_sweep_goes_on(toy: Toy) -> None:
    misdeeds = ",".join(f"'{misdeed}'" for misdeed in REASONS)
    done = toy.run(f"misdeed={misdeeds}", "x=2,3", "y=1", "hydra.sweeper.max_failure_rate=1.0")
    assert done.returncode == 0, done.stderr
    assert Counter(trial.state.name for trial in toy.trials) == {"COMPLETE": 9, "FAIL": 9}
    failed = [trial for trial in toy.trials if trial.state.name == "FAIL"]
    assert {trial.params["x"] for trial in failed} == {3}
    for trial in failed:
        assert REASONS[trial.params["misdeed"]] in trial.user_attrs["reason"]
        assert toy.result(trial.number)["state"] == "FAIL"


def test_too_many_failures_stop_the_sweep(toy: Toy) -> None:
    stopped = toy.run("misdeed=raise", "x=3,4", "y=1", "hydra.sweeper.sampler.seed=2", "hydra.launcher.n_lanes=1")
    assert stopped.returncode == 1
    assert "hydra.sweeper.max_failure_rate=0.0 allows" in stopped.stderr
    assert "RUNNING" not in {trial.state.name for trial in toy.trials}


def test_a_point_that_kills_its_lane_is_tried_again_and_then_fails_for_good(toy: Toy) -> None:
    done = toy.run("misdeed=die", "x=2,3", "y=1", "hydra.sweeper.max_failure_rate=1.0", "hydra.sweeper.n_trials=9")
    assert done.returncode == 0, done.stderr
    deadly = [trial for trial in toy.trials if trial.params["x"] == 3]
    assert [outcome(trial) for trial in deadly] == ["lane_died", "lane_died", "failed"]
    assert "SIGKILL" in deadly[-1].user_attrs["reason"]
    assert "given up after 2 retries" in deadly[-1].user_attrs["reason"]
    assert [trial.user_attrs.get("retry_of") for trial in deadly] == [None, deadly[0].number, deadly[1].number]
    assert len(toy.own) == 2


def test_a_lane_killed_from_outside_costs_an_attempt_not_a_trial(toy: Toy) -> None:
    with toy.start("seconds=0.3", "hydra.sweeper.n_trials=12") as parent:
        until(lambda: len(toy.trained) >= 2)
        victims = lanes_of(parent.pid)
        assert victims
        victims[0].kill()
        output, _ = parent.communicate(timeout=120)
    assert parent.returncode == 0, output
    assert "its point is tried again" in output
    assert len(toy.own) == len(set(toy.points)) == 12
    assert {trial.state.name for trial in toy.own} == {"COMPLETE"}
    assert [outcome(trial) for trial in toy.trials].count("lane_died") == 1


@pytest.mark.parametrize("n_trained", [pytest.param(1, marks=pytest.mark.service), 6])
def test_a_sweep_survives_kill_9_of_its_parent(toy: Toy, n_trained: int) -> None:
    overrides = ("seconds=0.2", "hydra.sweeper.n_trials=12")
    with toy.start(*overrides) as parent:
        until(lambda: len(toy.trained) >= n_trained)
        lanes = lanes_of(parent.pid)
        parent.kill()
    until(lambda: all_gone(lanes))
    finished = {trial.number: trial.value for trial in toy.own}
    done = toy.run(*overrides)
    assert done.returncode == 0, done.stderr
    assert len(toy.own) == len(set(toy.points)) == 12
    assert {trial.state.name for trial in toy.trials} <= {"COMPLETE", "FAIL"}
    assert finished.items() <= {trial.number: trial.value for trial in toy.own}.items()
    lost = [trial for trial in toy.trials if outcome(trial) == "parent_died"]
    assert all(tuple(trial.params.values()) in toy.points for trial in lost)


def test_a_finished_job_of_a_killed_parent_is_told_not_trained_again(toy: Toy) -> None:
    flag = toy.folder / "flag"
    flag.touch()
    overrides = (
        "misdeed=sleep",
        f"flag={flag}",
        "x=2,3",
        "y=1",
        "hydra.launcher.n_lanes=2",
        "hydra.sweeper.n_trials=2",
    )
    with toy.start(*overrides) as parent:
        until(lambda: any((toy.folder / "sweep" / str(n) / "result.json").exists() for n in (0, 1)))
        os.kill(parent.pid, signal.SIGSTOP)  # between result.json and tell, if it was not faster
        lanes = lanes_of(parent.pid)
        parent.kill()
    until(lambda: all_gone(lanes))
    flag.unlink()
    trained = Counter(line.split(maxsplit=1)[1] for line in toy.trained)
    assert toy.run(*overrides).returncode == 0
    after = Counter(line.split(maxsplit=1)[1] for line in toy.trained)
    assert after == trained + Counter(["3 1"])
    assert sorted(toy.points) == [(2,), (3,)]


def test_ctrl_c_closes_what_runs_and_the_sweep_can_be_resumed(toy: Toy) -> None:
    with toy.start("seconds=0.3", "hydra.sweeper.n_trials=6") as parent:
        until(lambda: len(toy.trained) >= 2)
        lanes = lanes_of(parent.pid)
        parent.send_signal(signal.SIGINT)
        output, _ = parent.communicate(timeout=60)
    assert "besom: interrupted; the same command goes on from here" in output
    assert parent.returncode == 130
    assert all_gone(lanes)
    assert "RUNNING" not in {trial.state.name for trial in toy.trials}
    assert "interrupted" in {outcome(trial) for trial in toy.trials}
    assert toy.run("seconds=0.3", "hydra.sweeper.n_trials=6").returncode == 0
    assert len(toy.own) == len(set(toy.points)) == 6


@pytest.mark.parametrize("when", ["start", "end"])
def test_ctrl_c_is_heard_while_a_tracker_passes_on_what_waited(toy: Toy, when: str) -> None:
    tracker = "hydra.sweeper.tracker={_target_: slow_tracker.SlowTracker}"
    toy.environment = {**toy.environment, "SLOW_AT": when}
    with toy.start("hydra.sweeper.n_trials=2", tracker) as parent:
        until((toy.folder / "passing_on").exists)
        parent.send_signal(signal.SIGINT)
        output, _ = parent.communicate(timeout=30)
    assert "besom: interrupted; the same command goes on from here" in output
    assert parent.returncode == 130
    assert len(toy.own) == (0 if when == "start" else 2)


def test_a_second_parent_is_refused_while_the_first_lives(toy: Toy) -> None:
    with toy.start("seconds=60") as parent:
        until(lambda: len(toy.trained) >= 1)
        refused = toy.run("seconds=60")
        trials = len(toy.trials)
        parent.send_signal(signal.SIGINT)
        parent.communicate(timeout=60)
    assert refused.returncode == 2
    assert f'"pid": {parent.pid}' in refused.stderr
    assert "is being run by" in refused.stderr
    assert trials <= 2


def test_enqueued_points_come_first_and_once(toy: Toy) -> None:
    point = "hydra.sweeper.enqueue=[{x:3,y:1},{x:3,y:1}]"
    assert toy.run(point, "hydra.sweeper.n_trials=3", "hydra.launcher.n_lanes=1").returncode == 0
    assert toy.points[0] == (3, 1)
    assert toy.points.count((3, 1)) == 1


def test_a_pruned_trial_is_pruned_not_failed(toy: Toy) -> None:
    pruner = ("hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=2")
    done = toy.run(*pruner, "hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=3", "hydra.sweeper.n_trials=12")
    assert done.returncode == 0, done.stderr
    pruned = [trial for trial in toy.trials if trial.state.name == "PRUNED"]
    assert pruned
    assert all(outcome(trial) == "pruned" and trial.intermediate_values for trial in pruned)
    assert not [trial for trial in toy.trials if trial.state.name == "FAIL"]


def test_a_timeout_starts_no_new_trial(toy: Toy) -> None:
    assert toy.run("seconds=0.5", "hydra.sweeper.timeout=2").returncode == 0
    assert 0 < len(toy.own) < 12


def test_a_drawn_seed_is_stored_and_used_again(toy: Toy) -> None:
    first = ("hydra/sweeper/sampler=random", "hydra.launcher.n_lanes=1")
    toy.run(*first, "hydra.sweeper.n_trials=2")
    toy.run(*first, "hydra.sweeper.n_trials=6")
    study = load_study(f"sqlite:///{toy.folder / 'sweep' / 'study.db'}", "toy")
    other = Toy(toy.folder / "other", toy.environment)
    other.folder.mkdir()
    other.run(*first, "hydra.sweeper.n_trials=6", f"hydra.sweeper.sampler.seed={study.user_attrs['seed']}")
    assert toy.points == other.points


@pytest.mark.service  # for the time that it takes
def test_forty_kills_of_workers_cost_no_trial(toy: Toy) -> None:
    """60 trials, 40 times ``kill -9`` on a random lane: 60 finished trials of 60 distinct points."""
    rng = random.Random(20)
    kills = started = 0
    space = ("x=range(0,10)", "y=range(0,8)", "seconds=0.2")
    with toy.start(
        *space, "hydra.sweeper.n_trials=60", "hydra.sweeper.retries=40", "hydra.launcher.n_lanes=2"
    ) as parent:
        while kills < 40:
            # every kill meets a sweep that has started a trial since the one before
            until(lambda before=started: len(toy.trained) > before or parent.poll() is not None)
            if parent.poll() is not None:
                break
            started = len(toy.trained)
            with suppress(psutil.NoSuchProcess, IndexError):
                rng.choice(lanes_of(parent.pid)).kill()
                kills += 1
        output, _ = parent.communicate(timeout=200)
    assert parent.returncode == 0, output
    assert kills == 40
    assert len(toy.own) == len(set(toy.points)) == 60
    assert {trial.state.name for trial in toy.own} == {"COMPLETE"}
    assert "RUNNING" not in {trial.state.name for trial in toy.trials}


def test_the_results_file_names_trial_folder_and_values(toy: Toy) -> None:
    toy.run("hydra.sweeper.n_trials=12")
    best = max(toy.trials, key=lambda trial: trial.value or 0)
    assert toy.results == {
        "name": "optuna",
        "best_params": {"x": 3, "y": 3},
        "best_value": 33.0,
        "best_trial": best.number,
        "best_job": str(best.number),
    }


def test_several_objectives_give_a_front(toy: Toy) -> None:
    done = toy.run("returns=two", "hydra.sweeper.direction=[maximize,minimize]", "y=0,1")
    assert done.returncode == 0, done.stderr
    assert [(found["params"], found["values"]) for found in toy.results["solutions"]] == [
        ({"x": 3, "y": 1}, [3.0, -1.0])
    ]
    assert toy.result(0)["value"] is None
    assert len(toy.result(0)["values"]) == 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["hydra/sweeper/pruner=median"], "hydra.sweeper.pruner"),
        (["hydra.sweeper.target_value=1.0"], "hydra.sweeper.target_value=1.0 needs one objective"),
        (["hydra.sweeper.patience=1"], "hydra.sweeper.patience=1 needs one objective"),
    ],
)
def test_what_needs_one_objective_is_refused_with_two(toy: Toy, overrides: list[str], message: str) -> None:
    refused = toy.run("returns=two", "hydra.sweeper.direction=[maximize,minimize]", *overrides)
    assert refused.returncode == 2
    assert message in refused.stderr
    assert not (toy.folder / "sweep" / "study.db").exists()


def test_the_wrong_number_of_objectives_fails(toy: Toy) -> None:
    toy.run("returns=two", "x=1", "y=1,2", "hydra.sweeper.max_failure_rate=1.0")
    assert [trial.user_attrs["reason"] for trial in toy.trials if trial.params == {"y": 2}] == [
        "the task returned [1, -2]; expected a finite number"
    ]


def test_a_target_ends_the_sweep(toy: Toy) -> None:
    done = toy.run("hydra/sweeper/sampler=grid", "hydra.sweeper.target_value=21", "hydra.launcher.n_lanes=1")
    assert done.returncode == 0, done.stderr
    assert "hydra.sweeper.target_value=21.0 is reached" in done.stderr
    assert toy.points[-1] == (2, 1)
    assert len(toy.trials) == 6


def test_stagnation_ends_the_sweep(toy: Toy) -> None:
    grid = ("hydra/sweeper/sampler=grid", "hydra.launcher.n_lanes=1", "x=3,1,2", "y=3,2,1,0")
    done = toy.run(*grid, "hydra.sweeper.patience=4")
    assert "no better trial in hydra.sweeper.patience=4 trials" in done.stderr
    assert len(toy.trials) == 5


def test_fail_fast_ends_the_sweep_at_the_first_failure_whatever_the_rate(toy: Toy) -> None:
    options = ("misdeed=raise", "x=3,1", "y=1,2", "hydra.sweeper.max_failure_rate=1.0", "hydra.sweeper.fail_fast=true")
    stopped = toy.run(*options, "hydra/sweeper/sampler=grid", "hydra.launcher.n_lanes=1")
    assert stopped.returncode == 1
    assert "fail_fast is set: ValueError: x is three" in stopped.stderr
    assert len(toy.trials) == 1


def test_a_stopped_sweep_goes_on_when_more_failures_are_allowed(toy: Toy) -> None:
    options = ("misdeed=raise", "x=3,1", "y=1,2", "hydra/sweeper/sampler=grid", "hydra.launcher.n_lanes=1")
    assert toy.run(*options).returncode == 1
    assert toy.run(*options, "hydra.sweeper.max_failure_rate=1.0").returncode == 0
    assert Counter(trial.state.name for trial in toy.trials) == {"FAIL": 2, "COMPLETE": 2}


def test_a_trial_that_takes_too_long_fails_and_the_sweep_goes_on(toy: Toy) -> None:
    limit = ("hydra.sweeper.trial_timeout=1.0", "hydra.sweeper.max_failure_rate=1.0")
    done = toy.run("misdeed=sleep", "x=2,3", "y=1", *limit)
    assert done.returncode == 0, done.stderr
    late = [trial for trial in toy.trials if trial.params["x"] == 3]
    assert [trial.state.name for trial in late] == ["FAIL"]
    assert late[0].user_attrs["reason"] == "longer than hydra.sweeper.trial_timeout=1 seconds"


def test_a_point_that_cannot_be_composed_fails_and_the_sweep_goes_on(toy: Toy) -> None:
    done = toy.run("+extra=good,missing", "x=1", "y=1", "hydra.sweeper.max_failure_rate=1.0")
    assert done.returncode == 0, done.stderr
    assert Counter(trial.state.name for trial in toy.trials) == {"COMPLETE": 1, "FAIL": 1}


def test_constraints_are_decided_by_what_a_trial_tells(toy: Toy) -> None:
    done = toy.run("hydra.sweeper.constraints=['size <= 200']")
    assert done.returncode == 0, done.stderr
    assert toy.results["best_params"] == {"x": 2, "y": 3}
    for trial in toy.trials:
        assert trial.state.name == "COMPLETE"
        assert trial.constraints == {"size <= 200": trial.params["x"] * 100 - 200}


def test_a_returned_mapping_tells_facts_beside_the_objective(toy: Toy) -> None:
    toy.run("returns=mapping", "hydra.sweeper.constraints=['cost < 2']")
    assert toy.results["best_params"] == {"x": 3, "y": 1}


def test_a_constraint_that_nobody_told_about_fails_the_trial(toy: Toy) -> None:
    toy.run("x=1", "y=1,2", "hydra.sweeper.constraints=['weight <= 200']", "hydra.sweeper.max_failure_rate=1.0")
    assert "needs weight, which the trial did not tell; it told size" in toy.trials[0].user_attrs["reason"]


def test_a_constraint_that_cannot_be_computed_fails_the_trial(toy: Toy) -> None:
    toy.run("x=0,1", "y=1", "hydra.sweeper.constraints=['1000 / size <= 200']", "hydra.sweeper.max_failure_rate=1.0")
    failed = [trial for trial in toy.trials if trial.state.name == "FAIL"]
    assert [trial.params["x"] for trial in failed] == [0]
    assert "constraint '1000 / size <= 200' cannot be computed" in failed[0].user_attrs["reason"]


@pytest.mark.parametrize("misdeed", ["die", pytest.param("raise", marks=pytest.mark.service)])
def test_a_sweep_stopped_by_failures_stays_stopped_until_more_are_allowed(toy: Toy, misdeed: str) -> None:
    options = (f"misdeed={misdeed}", "x=3,1", "y=1", "hydra/sweeper/sampler=grid", "hydra.launcher.n_lanes=1")
    for _ in range(2):
        stopped = toy.run(*options)
        assert stopped.returncode == 1, stopped.stderr
        assert "hydra.sweeper.max_failure_rate=0.0 allows" in stopped.stderr
    assert len(toy.own) == 1
    assert toy.run(*options, "hydra.sweeper.max_failure_rate=1.0").returncode == 0
    assert len(toy.own) == 2


def test_a_folder_with_the_jobs_of_another_study_is_refused(toy: Toy) -> None:
    toy.run("hydra.sweeper.n_trials=2")
    before = toy.result(0)
    refused = toy.run("hydra.sweeper.n_trials=2", "hydra.sweeper.study_name=other")
    assert refused.returncode == 2
    assert "holds the jobs of another study than 'other'" in refused.stderr
    assert toy.result(0) == before


def test_two_parents_of_one_study_in_two_folders_are_refused(toy: Toy) -> None:
    with toy.start("seconds=60") as parent:
        until(lambda: len(toy.trained) >= 1)
        storage = f"hydra.sweeper.storage='sqlite:///{toy.folder / 'sweep' / 'study.db'}'"
        refused = toy.run("seconds=60", storage, "hydra.sweep.dir=elsewhere")
        parent.send_signal(signal.SIGINT)
        parent.communicate(timeout=60)
    assert refused.returncode == 2
    assert f'"pid": {parent.pid}' in refused.stderr


def test_a_start_with_nothing_to_do_says_so_and_writes_the_results(toy: Toy) -> None:
    toy.run("hydra.sweeper.n_trials=2")
    file = toy.folder / "sweep" / "optimization_results.yaml"
    before = file.read_text()
    file.unlink()
    again = toy.run("hydra.sweeper.n_trials=2")
    assert "hydra.sweeper.n_trials=2 is reached" in again.stderr
    assert file.read_text() == before


def test_a_study_of_somebody_else_is_refused(toy: Toy) -> None:
    study = optuna.create_study(study_name="toy", storage=f"sqlite:///{toy.folder / 'old.db'}")
    study.optimize(lambda trial: float(trial.suggest_int("x", 1, 3)), n_trials=2)
    refused = toy.run(f"hydra.sweeper.storage='sqlite:///{toy.folder / 'old.db'}?timeout=60'")
    assert refused.returncode == 2
    assert "holds trials that besom did not run" in refused.stderr
