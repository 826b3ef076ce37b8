"""What `deploy/` starts is official, pinned, checked, reachable from this machine only, and holds no password."""

from __future__ import annotations

import json
import os
import re
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_project_files import locked_versions

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SCRIPTS = sorted(DEPLOY.rglob("*.sh"))
OFFICIAL = ("postgres", "ghcr.io/mlflow/mlflow")
"""Images that the makers of the programs publish themselves."""
ASKED = re.compile(r"\$\{\w+:\?[^}]+\}")
"""A variable of whoever starts it, without which compose refuses."""

services = pytest.mark.parametrize("service", SERVICES)


def environment(service: str) -> dict[str, str]:
    """Return a service's variables, however they are written."""
    given: dict[str, Any] | list[str] = SERVICES[service].get("environment", {})
    pairs = given.items() if isinstance(given, dict) else (one.partition("=")[::2] for one in given)
    return {name: str(value) for name, value in pairs}


def mounts(service: str) -> list[tuple[str, str]]:
    """Return what a service mounts, and where."""
    split: list[list[str]] = [volume.split(":") for volume in SERVICES[service].get("volumes", [])]
    return [(parts[0], parts[1]) for parts in split]


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions in capitals, each with what follows it."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    split = [line.strip().partition(" ") for line in text.splitlines() if line.strip()]
    return [(name.upper(), " ".join(rest.split())) for name, _, rest in split]


def all_of(instruction: str) -> list[str]:
    return [rest for name, rest in instructions() if name == instruction]


def copied() -> list[str]:
    """Return what the Dockerfile copies out of the repository, not what out of another stage."""
    lines = [line.split() for name in ("COPY", "ADD") for line in all_of(name) if "--from=" not in line]
    return [source for words in lines for source in words[:-1] if not source.startswith("--")]


def is_ignored(path: str, rules: list[str]) -> bool:
    """Tell whether `.dockerignore` leaves a path out: the last rule that meets it, or a folder above it, decides."""
    parts = path.split("/")
    above = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    ignored = False
    for rule in rules:
        pattern = rule.removeprefix("!").strip("/")
        deep = [one.split("/", depth)[-1] for one in above for depth in range(one.count("/") + 1)]
        met = deep if pattern.startswith("**/") else above
        if any(_meets(one, pattern.removeprefix("**/")) for one in met):
            ignored = not rule.startswith("!")
    return ignored


def _meets(path: str, pattern: str) -> bool:
    names, patterns = path.split("/"), pattern.split("/")
    return len(names) == len(patterns) and all(map(fnmatchcase, names, patterns))


def rules() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def test_there_are_both_servers() -> None:
    assert set(SERVICES) == {"postgres", "mlflow"}


class TestCompose:
    @services
    def test_an_image_is_an_official_one_of_one_version(self, service: str) -> None:
        name, _, tag = SERVICES[service]["image"].rpartition(":")
        assert name in OFFICIAL
        assert re.match(r"v?\d+", tag), f"{tag} is whatever is newest"
        assert "build" not in SERVICES[service]

    def test_mlflow_is_of_the_locked_version_with_its_database_drivers(self) -> None:
        ((locked, _),) = locked_versions()["mlflow"]
        assert SERVICES["mlflow"]["image"] == f"ghcr.io/mlflow/mlflow:v{locked}-full"

    @services
    def test_a_service_has_a_health_check_and_comes_back_after_a_reboot(self, service: str) -> None:
        check = SERVICES[service]["healthcheck"]
        assert check["test"][0] in ("CMD", "CMD-SHELL")
        assert len(check["test"]) > 1
        assert {"interval", "timeout", "retries", "start_period"} <= set(check)
        assert SERVICES[service]["restart"] == "unless-stopped"

    def test_the_health_of_mlflow_is_asked_by_python_that_compiles(self) -> None:
        *command, program = SERVICES["mlflow"]["healthcheck"]["test"]
        assert command == ["CMD", "python", "-c"]
        compile(program, "healthcheck", "exec")
        assert "http://127.0.0.1:5000/health" in program
        assert "--port=5000" in SERVICES["mlflow"]["command"]

    def test_mlflow_has_connections_for_all_its_threads_and_the_database_for_all_its_workers(self) -> None:
        pool = [int(environment("mlflow")[f"MLFLOW_SQLALCHEMYSTORE_{name}"]) for name in ("POOL_SIZE", "MAX_OVERFLOW")]
        options = " ".join([*SERVICES["mlflow"]["command"], *SERVICES["postgres"]["command"]])
        workers, most = (int(re.findall(rf"{name}=(\d+)", options)[0]) for name in ("workers", "max_connections"))
        assert sum(pool) > 40  # the threads of a worker, so one of them always gets the second connection it wants
        assert workers * sum(pool) < most - 20  # the rest is for sweeps

    def test_mlflow_waits_until_the_database_answers(self) -> None:
        assert SERVICES["mlflow"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}

    @services
    def test_every_port_is_open_to_this_machine_only(self, service: str) -> None:
        assert SERVICES[service]["ports"]
        for port in SERVICES[service]["ports"]:
            assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", str(port)), port
        assert "network_mode" not in SERVICES[service]

    @services
    def test_a_password_comes_from_who_starts_it(self, service: str) -> None:
        secret = {name: value for name, value in environment(service).items() if "PASSWORD" in name}
        assert secret, "both need one"
        assert [name for name, value in secret.items() if not ASKED.fullmatch(value)] == []

    @pytest.mark.parametrize("file", sorted(path for path in DEPLOY.rglob("*") if path.is_file()), ids=lambda p: p.name)
    def test_no_url_holds_a_password(self, file: Path) -> None:
        found = re.findall(r"://[^/\s:@]+:([^@\s]+)@", file.read_text(encoding="utf-8"))
        assert [one for one in found if not one.startswith("$")] == []

    def test_the_example_of_an_environment_names_the_variables_and_sets_none(self) -> None:
        lines = (DEPLOY / ".env.example").read_text(encoding="utf-8").splitlines()
        given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        asked = set(re.findall(r"\$\{(\w+)", json.dumps(COMPOSE)))
        assert given == dict.fromkeys(asked, "")

    def test_data_is_in_named_volumes_and_what_else_is_mounted_is_there(self) -> None:
        found = [source for service in SERVICES for source, _ in mounts(service)]
        files = [source for source in found if source.startswith(".")]
        assert sorted(set(found) - set(files)) == sorted(COMPOSE["volumes"])
        assert [source for source in files if not (DEPLOY / source).is_file()] == []

    def test_artifacts_go_into_the_volume(self) -> None:
        places = [place for source, place in mounts("mlflow") if source in COMPOSE["volumes"]]
        assert [f"--artifacts-destination={place}" in SERVICES["mlflow"]["command"] for place in places] == [True]

    def test_the_databases_of_the_urls_are_those_that_the_script_makes(self) -> None:
        script = (DEPLOY / "postgres" / "create-databases.sh").read_text(encoding="utf-8")
        (made,) = re.findall(r"^for database in (.*); do$", script, flags=re.MULTILINE)
        opening = (DEPLOY / "compose.yaml").read_text(encoding="utf-8").split("\nname:")[0]
        (study,) = re.findall(r"BESOM_STORAGE=\S+:5432/(\w+)", opening)
        run = environment("mlflow")["MLFLOW_BACKEND_STORE_URI"].rpartition("/")[2]
        assert made.split() == [study, run]


class TestDockerfile:
    def test_besom_is_what_it_runs_and_gets_the_arguments(self) -> None:
        assert [json.loads(rest) for rest in all_of("ENTRYPOINT")] == [["besom"]]

    def test_it_does_not_run_as_root(self) -> None:
        last = max(place for place, (name, _) in enumerate(instructions()) if name == "FROM")
        users = [rest for name, rest in instructions()[last:] if name == "USER"]
        assert users
        assert users[-1].split(":")[0] not in ("root", "0")

    def test_it_starts_from_official_images_of_one_version(self) -> None:
        images = [rest.split()[0] for rest in all_of("FROM")]
        assert len(images) == 2
        assert [image for image in images if not re.fullmatch(r"python:3\.\d+-slim-[a-z]+", image)] == []
        assert len(set(images)) == 1, "an environment of one Python does not run in another's image"

    def test_what_it_copies_is_in_the_repository_and_in_the_build(self) -> None:
        assert {"requirements.lock", "pyproject.toml", "src", "conf", "sweeps"} <= set(copied())
        assert [source for source in copied() if not (ROOT / source).exists()] == []
        assert [source for source in copied() if is_ignored(source, rules())] == []

    def test_the_wheel_has_all_that_pyproject_wants_in_it(self) -> None:
        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        named = re.findall(r"^readme = \"(.*)\"|^license-files = \[\"(.*)\"\]", text, flags=re.MULTILINE)
        assert {one or other for one, other in named} <= set(copied())
        assert len(named) == 2

    @pytest.mark.parametrize(
        "path", ["deploy/.env", "mlruns/mlflow.db", ".git/config", ".venv/bin/python", "src/besom/__pycache__/a.pyc"]
    )
    def test_the_build_gets_no_secret_store_or_history(self, path: str) -> None:
        assert is_ignored(path, rules())

    def test_packages_come_from_the_lock_alone_and_each_is_checked(self) -> None:
        steps = [
            step for rest in all_of("RUN") for step in rest.split("&&") if re.search(r"pip .*(install|wheel) ", step)
        ]
        assert len(steps) == 5
        assert [step for step in steps if not re.search(r"--require-hashes -r |--no-index ", step)] == []

    def test_no_file_names_a_package_index(self) -> None:
        text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
        assert not re.findall(r"https?://|index-url|INDEX_URL", text)


class TestScripts:
    def test_there_is_one(self) -> None:
        assert [script.name for script in SCRIPTS] == ["create-databases.sh"]

    @pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
    def test_a_script_can_be_run_and_is_read_by_sh(self, script: Path) -> None:
        assert os.access(script, os.X_OK)
        done = subprocess.run(["sh", "-n", script], capture_output=True, text=True, check=False, timeout=10)
        assert (done.returncode, done.stderr) == (0, "")
