"""The sweeper where TensorFlow, Keras, MLflow and pandas are not: in somebody else's app, under two versions of Hydra.

The service tests make each environment of ``.ci/*.lock`` once, as ``make`` makes ``.venv``, and run the tests there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
HYDRAS = ("1.3", "1.4")
HEAVY = ("tensorflow", "keras", "mlflow", "pandas")
HYDRAS_OWN = {"hydra-core", "omegaconf", "hydra-joblib-launcher", "hydra-submitit-launcher"}
BESOMS_APP = (  # need what a foreign app has not: besom's command, its store, its model, its files
    "faults/test_corrupt.py",
    "faults/test_disk.py",
    "faults/test_faults_named.py",
    "faults/test_faults_processes.py",
    "faults/test_faults_signals.py",
    "faults/test_faults_spool.py",
    "faults/test_locked.py",
    "faults/test_server.py",
    "test_architecture.py",
    "test_artifacts.py",
    "test_bad_command.py",
    "test_bad_data.py",
    "test_bad_files.py",
    "test_audit.py",
    "test_canvas.py",
    "test_charts.py",
    "test_clean_clone.py",
    "test_cli.py",
    "test_confirm.py",
    "test_convolutions.py",
    "test_data.py",
    "test_databases.py",
    "test_deploy.py",
    "test_diff.py",
    "test_doctor.py",
    "test_export.py",
    "test_filter_pictures.py",
    "test_fingerprint.py",
    "test_folding.py",
    "test_frame.py",
    "test_geometry.py",
    "test_hostile_spool.py",
    "test_hostile_store.py",
    "test_idx.py",
    "test_kill.py",
    "test_left_alone.py",
    "test_lock.py",
    "test_measure.py",
    "test_mlflow_server.py",
    "test_mistakes.py",
    "test_model.py",
    "test_names.py",
    "test_notebook.py",
    "test_passed_on.py",
    "test_postgres.py",
    "test_postgres_upkeep.py",
    "test_whereabouts.py",
    "test_probe.py",
    "test_project_files.py",
    "test_prove.py",
    "test_provenance.py",
    "test_ray.py",
    "test_record.py",
    "test_relocate.py",
    "test_repair.py",
    "test_report.py",
    "test_reproduce.py",
    "test_reproduce_all.py",
    "test_reproduce_one_change.py",
    "test_same_bits.py",
    "test_secrets.py",
    "test_shared.py",
    "test_sources.py",
    "test_split.py",
    "test_spool.py",
    "test_statistics.py",
    "test_store.py",
    "test_sweep_files.py",
    "test_tracking.py",
    "test_training.py",
    "test_trial.py",
    "test_trial_run.py",
    "test_ui_browser.py",
    "test_ui_host.py",
    "test_uris.py",
    "test_verdict.py",
    "test_visible.py",
    "test_watch.py",
    "test_wheel.py",
    "test_withheld.py",
)
"""The test files that are not the sweeper's; every other one runs in every environment."""

Python = Callable[..., str]


def lock_of(hydra: str) -> Path:
    return ROOT / ".ci" / f"hydra-{hydra}.lock"


def pins_of(lock: Path) -> dict[str, list[Requirement]]:
    """Return the pins of a lock file by package: one a Python where their markers differ."""
    pins: dict[str, list[Requirement]] = {}
    for line in lock.read_text(encoding="utf-8").splitlines():
        if re.match(r"\w", line):
            requirement = Requirement(line.removesuffix("\\"))
            pins.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return pins


def declared_in(path: Path) -> list[Requirement]:
    """Return the requirements of an ``.in`` file and of those that it includes."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if included := re.match(r"-r (\S+)", line):
            found += declared_in(path.parent / included[1])
        elif line and not line.startswith("#"):
            found.append(Requirement(line))
    return found


@pytest.mark.parametrize("hydra", HYDRAS)
def test_a_lock_is_pinned_and_hashed_and_names_no_package_index(hydra: str) -> None:
    text = lock_of(hydra).read_text(encoding="utf-8")
    entries = [line for line in text.replace("\\\n", " ").splitlines() if re.match(r"\S", line)]
    assert len(entries) > 30
    assert not [line for line in entries if not re.match(r"\S+==\S+ .*--hash=sha256:[0-9a-f]{64}", line)]
    assert not re.findall(r"://|--(?:extra-)?index-url|--find-links|^-", text, flags=re.MULTILINE)


@pytest.mark.parametrize("hydra", HYDRAS)
def test_a_lock_holds_what_is_declared_and_nothing_heavy(hydra: str) -> None:
    pins = pins_of(lock_of(hydra))
    for requirement in declared_in(lock_of(hydra).with_suffix(".in")):
        fitting = [str(pin.specifier).removeprefix("==") in requirement.specifier
                   for pin in pins.get(canonicalize_name(requirement.name), [])]  # fmt: skip
        assert fitting, f"{requirement.name} is not in the lock: run make lock"
        assert all(fitting), f"{requirement} does not allow what is locked: run make lock"
    assert not set(HEAVY) & set(pins)


@pytest.mark.parametrize("hydra", HYDRAS)
def test_a_lock_has_the_same_versions_as_besoms_own_but_for_hydra(hydra: str) -> None:
    own, pins = pins_of(ROOT / "requirements.lock"), pins_of(lock_of(hydra))
    allowed = HYDRAS_OWN if hydra == "1.4" else set()
    differing = {
        name: (sorted({str(pin.specifier) for pin in pins[name]}), sorted({str(pin.specifier) for pin in own[name]}))
        for name in (pins.keys() & own.keys()) - allowed
        if {str(pin.specifier) for pin in pins[name]} != {str(pin.specifier) for pin in own[name]}
    }
    assert not differing


def test_every_test_file_of_besoms_app_is_there() -> None:
    missing = [name for name in BESOMS_APP if not (ROOT / "tests" / name).exists()]
    assert not missing


@pytest.mark.parametrize(
    ("arguments", "unused"),
    [(["--cfg", "job"], {*HEAVY, "optuna"}), (["--multirun", "hydra.sweeper.n_trials=2"], set(HEAVY))],
    ids=["start", "sweep"],
)
def test_a_foreign_app_loads_nothing_that_it_does_not_use(
    arguments: list[str], unused: set[str], tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    command = [sys.executable, "-X", "importtime", str(ROOT / "tests" / "apps" / "sphere.py"), *arguments]
    shown = run(*command, cwd=tmp_path, env=clean_environment)
    loaded = {name.split(".")[0] for name in re.findall(r"^import time:.*\| +(\S+)$", shown, flags=re.MULTILINE)}
    assert "hydra" in loaded
    assert not unused & loaded


def run(*command: str | Path, cwd: Path, env: dict[str, str], timeout: float = 120) -> str:
    """Run a command that must succeed and return all that it printed."""
    done = subprocess.run(command, cwd=cwd, env=env, timeout=timeout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module", params=HYDRAS)
def python(request: pytest.FixtureRequest, clean_environment: dict[str, str]) -> Python:
    """Return ``run(*arguments, cwd=ROOT, timeout=120)`` of an environment's Python; the environment is made once."""
    folder, lock = f".venv-hydra-{request.param}", lock_of(request.param).relative_to(ROOT)
    make = ROOT / ".ci" / "venv"
    run("sh", make, "test-services", folder, lock, cwd=ROOT, env={**os.environ, "PYTHON": sys.executable}, timeout=900)
    executable = ROOT / folder / "bin" / "python"
    return lambda *arguments, cwd=ROOT, timeout=120, env=None: run(
        executable, *arguments, cwd=cwd, env={**clean_environment, **(env or {})}, timeout=timeout
    )


@pytest.mark.service
@pytest.mark.timeout(960)
def test_the_environment_holds_nothing_heavy(python: Python) -> None:
    code = (
        f"from importlib.util import find_spec; print([n for n in {HEAVY} if find_spec(n)], find_spec('besom').origin)"
    )
    shown = python("-c", code)
    assert shown.split() == ["[]", str(ROOT / "src" / "besom" / "__init__.py")]


@pytest.mark.service
@pytest.mark.timeout(1800)
def test_the_sweepers_tests_pass_in_the_environment(python: Python) -> None:
    ignored = [f"--ignore=tests/{name}" for name in BESOMS_APP]
    options = ["-q", "-p", "no:cacheprovider", "--color=no", "--numprocesses=2", "--dist=loadfile"]
    shown = python("-m", "pytest", *options, *ignored, timeout=1700)
    passed = re.search(r"^(\d+) passed", shown, flags=re.MULTILINE)
    assert passed, shown
    assert int(passed[1]) >= 900


@pytest.mark.service
def test_the_wheel_works_in_the_environment(python: Python, tmp_path: Path) -> None:
    """Installed for real, besom comes before the other plugins, not after them as from a checkout."""
    build = ["wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, ROOT]
    python("-m", "pip", *build)
    (wheel,) = tmp_path.glob("besom-*.whl")
    site = tmp_path / "site"
    python("-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", site, wheel)
    app = [ROOT / "tests" / "apps" / "sphere.py", "--multirun", "hydra.sweeper.n_trials=3"]
    warnings = ["-W", "error", "-W", "ignore:The version_base parameter"]
    shown = python(*warnings, *app, cwd=tmp_path, env={"PYTHONPATH": str(site)})
    assert "warnings from" not in shown
    assert list(tmp_path.glob("multirun/*/*/optimization_results.yaml"))
