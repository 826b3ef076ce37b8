"""One contract for whatever runs trials: lanes, and Hydra's launchers in batches. Real processes, real kills."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import optuna
import pytest
from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

import besom
from besom.engines.batches import BASIC, BatchEngine, SweptTask, capacity_of
from besom.engines.engine import Engine, Job, WorkerDied
from besom.engines.launcher import LanesLauncher, compose_job, job_folder
from besom.engines.storage_reporter import StorageReporter
from besom.errors import ConfigError
from besom.machine import this_machine
from besom.reporting import current_trial
from besom.results import TrialResult
from besom.storage import open_storage

PRUNER = {"_target_": "optuna.pruners.ThresholdPruner", "upper": 1.0}
LAUNCHERS = {
    "lanes": None,
    "ray": None,
    "basic": ["hydra/launcher=basic"],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit": ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=2"],
}
RAY = {
    "address": None,
    "n_lanes": 2,
    "threads_per_lane": 1,
    "cpus_per_lane": None,
    "gpus_per_lane": 0.0,
    "memory_per_lane": None,
    "trials_per_lane": 0,
    "env_vars": [],
    "preload": [],
    "log_folder": None,
}


class TwoWordsError(Exception):
    """Pickles, and does not unpickle."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


class FloatLike:
    """A number to who asks, and nothing that could be pickled."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __float__(self) -> float:
        return 4.0


def task(config: DictConfig) -> Any:  # noqa: C901  # a table in code
    """Do what the config says: a small language of misdeeds."""
    match config.do:
        case "tell":
            hydra = HydraConfig.get()
            besom.tell(job_num=hydra.job.num, folder=hydra.runtime.output_dir, pid=os.getpid())
            return config.x
        case "report":
            for step, value in enumerate((0.25, 0.5, config.x)):
                besom.report(step, value)
            return config.x
        case "raise":
            raise ValueError("x is wrong")
        case "exit":
            sys.exit(3)
        case "lock":
            return threading.Lock()
        case "float-like":
            return FloatLike()
        case "unreadable":
            raise TwoWordsError("two", "words")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "slow":
            time.sleep(0.5)
    return config.x


def hydra_app(conf: Path | str, *overrides: str) -> tuple[HydraContext, DictConfig]:
    """Give what Hydra gives to a sweeper: its context and the composed config of the multirun."""
    quiet = ("hydra.job_logging.root.handlers=[file]", "hydra/hydra_logging=none", "hydra.output_subdir=null")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Hydra 1.4 on what goes in 1.5: version_base, sampler groups of two sweepers
        version.setbase("1.3")
        Plugins.instance()
    hydra = Hydra("app", ConfigLoaderImpl(create_config_search_path(str(conf))))
    master = hydra.compose_config("config", [*quiet, *overrides], RunMode.MULTIRUN)
    return HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(master)), master


@dataclass
class Workshop:
    """An engine, a study to report to, and the means to compose jobs."""

    name: str
    engine: Engine
    context: HydraContext
    master: DictConfig
    url: str

    def job(self, number: int, do: str, x: float = 1.0) -> Job:
        overrides = (f"do={do}", f"x={x}")
        return Job(number, compose_job(self.context, self.master, overrides, number), None, overrides)

    def run(self, *jobs: Job, seconds: float = 90) -> dict[int, Future[JobReturn]]:
        """Run jobs to their end; return their futures by job number."""
        on_report = StorageReporter(self.url, "study", PRUNER)  # what a parent does with a report, in short
        futures = {job.number: self.engine.submit(job, partial(on_report, job.number)) for job in jobs}
        end = time.monotonic() + seconds
        while not all(future.done() for future in futures.values()):
            assert time.monotonic() < end, "a job did not end"
            self.engine.wait(0.5)
        return futures

    def result(self, number: int) -> TrialResult | None:
        return TrialResult.read(Path(self.master.hydra.sweep.dir) / str(number), number)

    @property
    def trials(self) -> list[optuna.trial.FrozenTrial]:
        return optuna.load_study(study_name="study", storage=open_storage(self.url)).trials


def start(name: str, context: HydraContext, master: DictConfig, url: str, folder: Path) -> Engine:
    if name == "lanes":
        settings = {
            "n_lanes": 2,
            "start_method": "spawn",
            "threads_per_lane": 1,
            "trials_per_lane": 0,
            "preload": [],
            "log_folder": str(folder / "logs"),
        }
        return LanesLauncher(settings, context, task)
    if name == "ray":
        from besom.engines.ray_launcher import RayLauncher

        return RayLauncher({**RAY, "log_folder": str(folder / "logs")}, context, task)
    return batch_engine(context, master, url, 2)


def batch_engine(context: HydraContext, master: DictConfig, url: str, capacity: int) -> BatchEngine:
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=master)
    return BatchEngine(launcher, SweptTask(task, url, "study", PRUNER), context, master, capacity)


@pytest.fixture(autouse=True, scope="module")
def _tasks_cross_as_from_main() -> Iterator[None]:
    """Pickle this module's task by value, as the task of a script is: workers need not find the tests."""
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


@contextmanager
def workshop_of(name: str, folder: Path) -> Iterator[Workshop]:
    if name == "ray":
        pytest.importorskip("ray", reason="Ray is not installed")
    if name in ("joblib", "submitit"):
        pytest.importorskip(f"hydra_plugins.hydra_{name}_launcher", reason=f"hydra-{name}-launcher is not installed")
    (folder / "conf").mkdir()
    (folder / "conf" / "config.yaml").write_text("do: tell\nx: 1.0\n")
    url = f"sqlite:///{folder / 'study.db'}"
    study = optuna.create_study(study_name="study", storage=open_storage(url))
    for _ in range(20):
        study.ask()
    overrides = (f"hydra.sweep.dir={folder / 'sweep'}", *(LAUNCHERS[name] or ()))
    context, master = hydra_app(folder / "conf", *overrides)
    before = list(logging.getLogger().handlers)
    with closing(start(name, context, master, url, folder)) as engine:
        yield Workshop(name, engine, context, master, url)
    for handler in [handler for handler in logging.getLogger().handlers if handler not in before]:
        handler.close()  # the log of the last job that ran in this process
        logging.getLogger().removeHandler(handler)


MISDEEDS = {
    3: ("raise", "ValueError: x is wrong"),
    4: ("exit", "the task called sys.exit(3)"),
    5: ("lock", "the task returned <unlocked _thread.lock object"),
    6: ("unreadable", "two words"),
}


# submitit starts a process for each job, and Ray a cluster, which takes a while
ENGINES = [pytest.param(name, marks=pytest.mark.service) if name in ("submitit", "ray") else name for name in LAUNCHERS]


@pytest.fixture(scope="module", params=ENGINES)
def workshop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with workshop_of(request.param, tmp_path_factory.mktemp(request.param)) as workshop:
        yield workshop


@pytest.fixture(scope="module")
def ended(workshop: Workshop) -> dict[int, Future[JobReturn]]:
    """All good jobs and all misdeeds that leave their worker alive, run at once."""
    misdeeds = [workshop.job(number, do) for number, (do, _) in MISDEEDS.items()]
    return workshop.run(
        workshop.job(2, "tell", 5.0),
        *misdeeds,
        workshop.job(7, "report", 0.75),
        workshop.job(8, "report", 2.0),
        workshop.job(9, "float-like"),
        workshop.job(12, "tell", 12.0),  # 10 and 11 were not to be trained
    )


class TestEveryEngine:
    """What the sweep relies on, whoever runs its trials."""

    @pytest.mark.parametrize(("number", "value"), [(2, 5.0), (12, 12.0)])
    def test_a_job_has_its_trials_number_and_folder(
        self, workshop: Workshop, ended: dict[int, Future[JobReturn]], number: int, value: float
    ) -> None:
        result = workshop.result(number)
        assert result is not None
        assert (result.state, result.values, result.number) == ("COMPLETE", [value], number)
        assert result.facts["job_num"] == number
        assert Path(result.facts["folder"]) == job_folder(workshop.job(number, "tell").config)

    def test_a_return_comes_back(self, ended: dict[int, Future[JobReturn]]) -> None:
        assert ended[2].result().return_value == 5.0

    @pytest.mark.parametrize("number", MISDEEDS)
    def test_a_misdeed_fails_its_own_trial_with_the_reason(
        self, workshop: Workshop, ended: dict[int, Future[JobReturn]], number: int
    ) -> None:
        result = workshop.result(number)
        assert result is not None
        assert (result.state, result.values) == ("FAIL", [])
        assert result.reason is not None
        assert MISDEEDS[number][1] in result.reason

    @pytest.mark.parametrize("number", [3, 6])
    def test_a_job_keeps_the_traceback_in_its_log(
        self, workshop: Workshop, ended: dict[int, Future[JobReturn]], number: int
    ) -> None:
        log = (job_folder(workshop.job(number, "raise").config) / "app.log").read_text()
        assert log.count("the trial failed") + log.count("Job failed") == 1  # ours under Hydra 1.3, its own under 1.4
        assert "Traceback (most recent call last)" in log
        assert MISDEEDS[number][1] in log

    def test_a_number_that_cannot_be_pickled_counts(
        self, workshop: Workshop, ended: dict[int, Future[JobReturn]]
    ) -> None:
        result = workshop.result(9)
        assert result is not None
        assert (result.state, result.values) == ("COMPLETE", [4.0])

    def test_reports_reach_the_study(self, workshop: Workshop, ended: dict[int, Future[JobReturn]]) -> None:
        assert workshop.trials[7].intermediate_values == {0: 0.25, 1: 0.5, 2: 0.75}
        assert workshop.trials[8].intermediate_values == {0: 0.25, 1: 0.5, 2: 2.0}

    def test_the_pruners_answer_comes_back(self, workshop: Workshop, ended: dict[int, Future[JobReturn]]) -> None:
        results = [workshop.result(7), workshop.result(8)]
        assert [result and result.state for result in results] == ["COMPLETE", "PRUNED"]
        assert results[1] is not None
        assert results[1].reason == "pruned at step 2 with 2"

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # submitit leaves the others alone
    @pytest.mark.filterwarnings("ignore:A worker stopped while some jobs:UserWarning")  # joblib, where it is slow
    def test_a_killed_worker_is_told_and_the_engine_lives_on(
        self, workshop: Workshop, ended: dict[int, Future[JobReturn]]
    ) -> None:
        if workshop.name == "basic":
            pytest.skip("its worker is this process")
        died = workshop.run(workshop.job(14, "die"), workshop.job(15, "slow"))
        assert isinstance(died[14].exception(), WorkerDied)
        assert workshop.result(14) is None
        again = workshop.run(workshop.job(16, "tell", 3.0))
        assert again[16].result().return_value == 3.0

    def test_a_queued_job_can_be_taken_back(self, workshop: Workshop, ended: dict[int, Future[JobReturn]]) -> None:
        busy = [workshop.engine.submit(workshop.job(number, "slow"), lambda step, value: False) for number in (17, 18)]
        queued = workshop.engine.submit(workshop.job(19, "tell"), lambda step, value: False)
        workshop.engine.cancel([queued])
        assert queued.cancelled()
        workshop.engine.cancel(busy)
        assert workshop.result(19) is None


class Batches(Launcher):
    """A launcher that writes down its batches, and does as it is told."""

    def __init__(self, answer: Callable[[list[int]], Any]) -> None:
        self.answer = answer
        self.batches: list[list[int]] = []
        self.composed: list[DictConfig] = []

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Any, initial_job_idx: int) -> list[JobReturn]:
        self.batches.append(list(range(initial_job_idx, initial_job_idx + len(job_overrides))))
        loader = self.hydra_context.config_loader
        self.composed += [loader.load_sweep_config(self.config, overrides) for overrides in job_overrides]
        self.answer(self.batches[-1])
        return [JobReturn() for _ in job_overrides]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[[Callable[[list[int]], Any]], tuple[Batches, Workshop]]]:
    """Return a maker of workshops around a `Batches` launcher."""
    with workshop_of("basic", tmp_path) as workshop:

        def made(answer: Callable[[list[int]], Any]) -> tuple[Batches, Workshop]:
            launcher = Batches(answer)
            swept = SweptTask(task, workshop.url, "study", PRUNER)
            workshop.engine = BatchEngine(launcher, swept, workshop.context, workshop.master, 4)
            return launcher, workshop

        yield made


def test_a_batch_is_a_run_of_numbers_that_follow_one_another(bench: Any) -> None:
    launcher, workshop = bench(lambda numbers: None)
    workshop.run(*(workshop.job(number, "tell", number) for number in (5, 3, 4, 8, 9, 11)))
    assert launcher.batches == [[3, 4, 5], [8, 9], [11]]


def test_jobs_are_composed_once(bench: Any) -> None:
    launcher, workshop = bench(lambda numbers: None)
    jobs = [workshop.job(number, "tell", number) for number in (3, 4)]
    workshop.run(*jobs)
    assert [id(config) for config in launcher.composed] == [id(job.config) for job in jobs]


def test_after_a_lost_batch_as_many_jobs_run_alone_as_were_lost(bench: Any) -> None:
    def lose_the_first(numbers: list[int]) -> None:
        if len(numbers) > 1:
            TrialResult(5, "COMPLETE", [1.0]).write(Path(workshop.master.hydra.sweep.dir, "5"))
        if 6 in numbers or 8 in numbers:
            raise OSError("a worker was killed")

    launcher, workshop = bench(lose_the_first)
    lost = workshop.run(*(workshop.job(number, "tell", number) for number in (5, 6, 7)))
    capacities = []
    for number in (8, 9):
        capacities.append(workshop.engine.capacity)
        workshop.run(workshop.job(number, "tell", number))
    assert launcher.batches == [[5, 6, 7], [8], [9]]
    assert {str(future.exception()) for future in lost.values()} == {
        "the launcher failed: OSError: a worker was killed"
    }
    assert (capacities, workshop.engine.capacity) == ([1, 1], 4)


def test_a_launcher_that_can_start_nothing_ends_the_sweep(bench: Any) -> None:
    def refuse(numbers: list[int]) -> None:
        raise RuntimeError("no such queue")

    _, workshop = bench(refuse)
    with pytest.raises(ConfigError, match="the launcher cannot run a trial: RuntimeError: no such queue"):
        workshop.run(workshop.job(3, "tell"))


def test_ctrl_c_passes_through(bench: Any) -> None:
    def interrupt(numbers: list[int]) -> None:
        raise KeyboardInterrupt("Ctrl-C")

    _, workshop = bench(interrupt)
    future = workshop.engine.submit(workshop.job(3, "tell"), lambda step, value: False)
    with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
        workshop.engine.wait(0)
    assert not future.done()


@pytest.mark.parametrize(
    ("launcher", "n_jobs", "expected"),
    [
        ({"_target_": BASIC}, None, 1),
        ({"_target_": BASIC}, 3, 3),
        ({"_target_": "joblib", "n_jobs": 5}, None, 5),
        ({"_target_": "joblib", "n_jobs": 5}, 2, 2),
        ({"_target_": "joblib", "n_jobs": -1}, None, "cores"),
        ({"_target_": "submitit"}, None, "cores"),
    ],
)
def test_a_batch_is_as_large_as_what_runs_at_once(launcher: dict[str, Any], n_jobs: int | None, expected: Any) -> None:
    from besom.cores import usable_cores

    cores = usable_cores()
    assert capacity_of(OmegaConf.create(launcher), n_jobs) == (cores if expected == "cores" else expected)


def test_basic_is_still_what_hydra_calls_it() -> None:
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher, BasicLauncherConf

    assert BasicLauncherConf._target_ == BASIC == f"{BasicLauncher.__module__}.{BasicLauncher.__qualname__}"


def test_a_swept_task_crosses_by_plain_pickle_and_unwraps_to_the_apps_own() -> None:
    swept = SweptTask(lambda config: config * 2, "sqlite://", "study", {}, run_ids={3: "run"})
    crossed = pickle.loads(pickle.dumps(swept))
    assert crossed.task_function(4) == 8
    assert crossed.run_ids == {3: "run"}
    assert swept.__wrapped__ is swept.task_function


@pytest.mark.parametrize(("machine", "is_elsewhere"), [(this_machine(), False), ("another/boot", True)])
def test_a_swept_task_knows_whether_its_parent_is_on_another_machine(
    machine: str, is_elsewhere: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def task(config: DictConfig) -> float:
        handle = current_trial()
        assert handle is not None
        seen.append(handle.is_elsewhere)
        return 0.5

    hydra = OmegaConf.create({"job": {"num": 0}, "runtime": {"output_dir": str(tmp_path)}})
    monkeypatch.setattr("besom.engines.batches.HydraConfig.get", lambda: hydra)
    swept = SweptTask(task, "sqlite://", "study", {}, machine=machine)
    assert pickle.loads(pickle.dumps(swept)).machine == machine
    assert swept(OmegaConf.create({})) == 0.5
    assert seen == [is_elsewhere]


class TestReportsThroughTheStorage:
    """The channel of trials under foreign launchers, as Optuna's own trial would behave."""

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'study.db'}"

    def study(self, url: str, directions: list[str]) -> optuna.Study:
        study = optuna.create_study(study_name="study", storage=open_storage(url), directions=directions)
        study.ask()
        return study

    @pytest.mark.parametrize(("value", "pruned"), [(0.5, False), (1.5, True), (float("nan"), True)])
    def test_the_pruner_is_asked(self, url: str, value: float, pruned: bool) -> None:
        self.study(url, ["minimize"])
        assert StorageReporter(url, "study", PRUNER)(0, 0, value) is pruned

    def test_of_a_step_that_is_reported_twice_the_first_value_counts(self, url: str) -> None:
        study = self.study(url, ["minimize"])
        reporter = StorageReporter(url, "study", PRUNER)
        reporter(0, 0, 0.5)
        with pytest.warns(UserWarning, match="already reported"):
            assert not reporter(0, 0, 1.5)
        assert study.trials[0].intermediate_values == {0: 0.5}

    def test_a_trial_that_is_given_up_is_told_to_stop(self, url: str) -> None:
        study = self.study(url, ["minimize"])
        study.tell(0, state=optuna.trial.TrialState.FAIL)
        assert StorageReporter(url, "study", {})(0, 0, 0.5)

    def test_with_several_objectives_reports_are_let_go(self, url: str) -> None:
        study = self.study(url, ["minimize", "maximize"])
        assert not StorageReporter(url, "study", {})(0, 0, 0.5)
        assert study.trials[0].intermediate_values == {}

    def test_on_another_machine_a_file_of_sqlite_is_not_written(self, url: str) -> None:
        study = self.study(url, ["minimize"])
        assert not StorageReporter(url, "study", PRUNER, is_elsewhere=True)(0, 0, 1.5)
        assert study.trials[0].intermediate_values == {}

    def test_no_connection_crosses_to_another_process(self, url: str) -> None:
        self.study(url, ["minimize"])
        reporter = StorageReporter(url, "study", PRUNER)
        reporter(0, 0, 0.5)
        assert pickle.loads(pickle.dumps(reporter))(0, 1, 1.5)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "250000 100000"}, 2),
        ({"cpu.max": "6400000 100000"}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({}, 8),
    ],
)
def test_a_container_is_given_no_more_lanes_than_cores(
    tmp_path: Path, files: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from besom.cores import usable_cores

    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{content}\n")
    assert usable_cores(tmp_path) == expected


@pytest.mark.parametrize(
    ("n_lanes", "threads", "is_told"), [(4, 1, False), (5, 1, True), (2, 2, False), (2, 3, True), (1, 8, False)]
)
def test_more_lanes_than_there_is_room_for_are_told_of(
    n_lanes: int, threads: int, is_told: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from besom.engines import launcher

    monkeypatch.setattr(launcher, "usable_cores", lambda: 4)
    launcher._tell_of_crowding(n_lanes, threads)
    assert ("is more than the 4 usable cores" in caplog.text) == is_told
