"""Somebody else's app, with a ``conf/`` of its own and Hydra's own launcher, swept through its real command line."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import until
from optuna.trial import FrozenTrial

from besom.storage import load_study
from besom.sweep.tally import OWN, outcome

APP = """
import time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig

import besom


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config):
    with Path(HydraConfig.get().sweep.dir, "trained.txt").open("a") as log:
        log.write(f"{HydraConfig.get().job.num} {config}\\n")
    for step in range(2):
        besom.report(step, config.x)
    time.sleep(config.seconds)
    return config.x + config.model.bonus + len(config.layers)


if __name__ == "__main__":
    main()
"""
CONFIG = """
defaults: [_self_, {model: small}, {override hydra/sweeper: besom}]
x: 0
seconds: 0.0
layers: []
hydra:
  sweep: {dir: sweep}
  sweeper:
    sampler: {seed: 3}
    params:
      x: range(0,4)
      model: choice(small,large)
      model.width: {when: {model: large}, sweep: "choice(1,2)"}
      layers: choice([],[8,8])
"""


class App:
    """The app in a folder, and what its study holds."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        (folder / "conf" / "model").mkdir(parents=True)
        self.write("app.py", APP)
        self.write("conf/config.yaml", CONFIG)
        self.write("conf/model/small.yaml", "bonus: 0\n")
        self.write("conf/model/large.yaml", "bonus: 100\nwidth: 0\n")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    def start(self, *overrides: str) -> subprocess.Popen[str]:
        command = [sys.executable, "app.py", "-m", *overrides]
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip

    def run(self, *overrides: str) -> tuple[int, str]:
        with self.start(*overrides) as parent:
            output, _ = parent.communicate(timeout=120)
        return parent.returncode, output

    @property
    def trials(self) -> list[FrozenTrial]:
        return load_study(f"sqlite:///{self.folder / 'sweep' / 'study.db'}", "app").trials

    @property
    def own(self) -> list[FrozenTrial]:
        return [trial for trial in self.trials if outcome(trial) in OWN]

    @property
    def trained(self) -> list[str]:
        log = self.folder / "sweep" / "trained.txt"
        return log.read_text().splitlines() if log.exists() else []

    @property
    def results(self) -> dict[str, Any]:
        loaded: dict[str, Any] = yaml.safe_load((self.folder / "sweep" / "optimization_results.yaml").read_text())
        return loaded


@pytest.fixture
def app(tmp_path: Path, clean_environment: dict[str, str]) -> App:
    return App(tmp_path, clean_environment)


@pytest.mark.parametrize("sampler", ["tpe", "grid"])
def test_a_conditional_space_is_gone_through_once(app: App, sampler: str) -> None:
    code, output = app.run(f"hydra/sweeper/sampler={sampler}", "hydra.sweeper.n_trials=null")
    assert code == 0, output
    assert "all 24 points of the search space were tried" in output  # 4 x (1 + 2) x 2
    assert len(app.own) == len({str(trial.params) for trial in app.own}) == 24
    for trial in app.own:
        assert ("model.width" in trial.params) == (trial.params["model"] == "large")
    overrides = (app.folder / "sweep" / "0" / ".hydra" / "overrides.yaml").read_text()
    assert ("model.width" in overrides) == (app.trials[0].params["model"] == "large")
    assert app.results["best_params"]["layers"] in ([], [8, 8])


def test_a_sampler_that_cannot_leave_parameters_out_is_refused_before_anything(app: App) -> None:
    code, output = app.run("hydra/sweeper/sampler=qmc")
    assert code == 2
    assert "QMCSampler cannot search a space in which a parameter depends on another, as model.width" in output
    assert not (app.folder / "sweep" / "study.db").exists()


def test_edits_of_configs_reach_neither_running_nor_resumed_trials_and_edits_of_code_are_told(app: App) -> None:
    assert app.run("hydra.sweeper.n_trials=3")[0] == 0
    app.write("conf/model/large.yaml", "bonus: 500\nwidth: 0\n")
    app.write("app.py", APP.replace("range(2)", "range(1)"))
    code, output = app.run("hydra.sweeper.n_trials=24")
    assert code == 0, output
    assert "code changed since the sweep was started: app.py" in output
    assert {trial.value // 100 for trial in app.own if trial.params["model"] == "large" and trial.value} == {1}


def test_a_sweep_in_one_process_survives_kill_9(app: App) -> None:
    overrides = ("seconds=0.2", "hydra.sweeper.n_trials=8")
    with app.start(*overrides) as parent:
        until(lambda: len(app.trained) >= 3)
        parent.kill()
    code, output = app.run(*overrides)
    assert code == 0, output
    assert len(app.own) == len({str(trial.params) for trial in app.own}) == 8
    assert [trial.number for trial in app.trials] == list(range(len(app.trials)))
    assert "RUNNING" not in {trial.state.name for trial in app.trials}


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_in_one_process_stops_the_trial_and_the_sweep_can_be_resumed(app: App, times: int) -> None:
    with app.start("seconds=60", "hydra.sweeper.n_trials=2") as parent:
        until(lambda: len(app.trained) >= 1)
        for _ in range(times):
            parent.send_signal(signal.SIGINT)
        output, _ = parent.communicate(timeout=60)
    assert parent.returncode == 130, output
    assert "the same command goes on from here" in output
    left = [trial for trial in app.trials if trial.state.name == "RUNNING"]
    assert len(left) <= times - 1  # twice is at once: the next start closes it
    assert app.run("seconds=60", "hydra.sweeper.timeout=0", "hydra.sweeper.n_trials=2")[0] == 0
    assert "RUNNING" not in {trial.state.name for trial in app.trials}


def test_a_launcher_that_cannot_stop_one_trial_is_not_asked_to(app: App) -> None:
    code, output = app.run("hydra.sweeper.trial_timeout=5")
    assert code == 2
    assert "hydra.sweeper.trial_timeout=5 needs a launcher that can stop one trial, and hydra/launcher=basic" in output


def test_the_lanes_of_besom_take_the_app_too(app: App) -> None:
    code, output = app.run("hydra/launcher=besom_lanes", "hydra.sweeper.n_trials=4")
    assert code == 0, output
    assert "Launching" not in output
    assert {trial.state.name for trial in app.trials} == {"COMPLETE"}


def test_a_new_folder_at_each_start_resumes_from_the_storage_and_its_first_copies(app: App) -> None:
    storage = f"hydra.sweeper.storage='sqlite:///{app.folder / 'all.db'}'"
    common = (storage, "hydra.sweeper.study_name=all", "hydra/sweeper/sampler=grid")
    assert app.run(*common, "hydra.sweep.dir=first", "hydra.sweeper.n_trials=12")[0] == 0
    app.write("conf/model/large.yaml", "bonus: 500\nwidth: 0\n")
    code, output = app.run(*common, "hydra.sweep.dir=second", "hydra.sweeper.n_trials=24")
    assert code == 0, output
    trials = load_study(f"sqlite:///{app.folder / 'all.db'}", "all").trials
    assert len({str(trial.params) for trial in trials}) == len(trials) == 24
    assert {trial.value // 100 for trial in trials if trial.params["model"] == "large" and trial.value} == {1}
    results = yaml.safe_load((app.folder / "second" / "optimization_results.yaml").read_text())
    assert (app.folder / "second" / results["best_job"] / "result.json").is_file()


MOODY = """
def extend(config, trial):
    if trial.params["x"] == 2:
        raise ValueError("no two")
    trial.suggest_categorical("+w", [1, 2])
"""


@pytest.mark.service  # for the time that it takes
def test_a_custom_search_space_that_fails_at_one_value_fails_those_trials_only(app: App) -> None:
    app.write("moody.py", MOODY)
    app.environment = {**app.environment, "PYTHONPATH": str(app.folder)}
    declared = ("hydra.sweeper.params={x:'range(0,4)'}", "hydra.sweeper.custom_search_space=moody.extend")
    code, output = app.run(*declared, "hydra.sweeper.n_trials=30", "hydra.sweeper.max_failure_rate=1.0")
    assert code == 0, output
    failed = [trial for trial in app.own if trial.state.name == "FAIL"]
    assert failed
    assert all("moody.extend failed: ValueError: no two" in trial.user_attrs["reason"] for trial in failed)
    done = [trial for trial in app.own if trial.state.name == "COMPLETE"]
    assert {trial.params["x"] for trial in done} == {0, 1, 3}
    assert len({str(trial.params) for trial in done}) == len(done)
    assert app.run(*declared, "hydra.sweeper.n_trials=31", "hydra.sweeper.max_failure_rate=1.0")[0] == 0
