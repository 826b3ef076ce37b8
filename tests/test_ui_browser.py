"""What a person sees: `besom ui` on a store with a finished sweep, read by a real browser."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import BesomCommand

pytestmark = pytest.mark.service

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def project_with_sweep(tmp_path_factory: pytest.TempPathFactory, besom_command: BesomCommand) -> Path:
    folder = tmp_path_factory.mktemp("project")
    done = besom_command("sweep", "quick", "--trials", "3", "train.epochs=1", "data.n_train=200", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def trials(project_with_sweep: Path, besom_command: BesomCommand) -> list[dict[str, Any]]:
    shown = besom_command("runs", "quick", "--format", "json", cwd=project_with_sweep).stdout
    rows: list[dict[str, Any]] = json.loads(shown)["trials"]
    return rows


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def address(project_with_sweep: Path, clean_environment: dict[str, str]) -> Iterator[str]:
    """The address that `besom ui quick` prints once it serves; Ctrl-C ends it."""
    command = [sys.executable, "-m", "besom", "ui", "quick", "--port", str(free_port())]
    with subprocess.Popen(
        command, cwd=project_with_sweep, env=clean_environment, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        yield next(word for word in server.stdout.readline().split() if word.startswith("http"))
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 130


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[Any]:
    """The table of runs, best first, with every metric as a column: what two clicks in the UI give."""
    if CHROMIUM is None:
        pytest.skip("no chromium on PATH; apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 3000, "height": 1500})  # the table renders only what is in view
        page.set_default_timeout(60_000)
        page.goto(f"{address}?orderByKey=metrics.%60objective%60&orderByAsc=false")
        page.get_by_text("Show more columns").click()
        page.get_by_text(re.compile(r"^Metrics \(\d+\)")).click()
        page.keyboard.press("Escape")
        yield page
        browser.close()


def row_of(page: Any, run_id: str) -> list[str]:
    """Return the texts of a run's cells, once its metrics are there."""
    cells = page.locator(f"[row-id='{run_id}'] [role=gridcell]")
    cells.filter(has_text=re.compile(r"^\d{5,}$")).first.wait_for()
    return [text.strip() for text in cells.all_inner_texts()]


def test_every_trial_is_a_row_with_its_accuracy_and_its_parameters(page: Any, trials: list[dict[str, Any]]) -> None:
    assert len(trials) == 3
    for trial in trials:
        cells = row_of(page, trial["run_id"])
        assert str(trial["n_params"]) in cells
        numbers = [float(cell) for cell in cells if re.fullmatch(r"\d+(\.\d+)?", cell)]
        assert any(number == pytest.approx(trial["objective"], abs=5e-4) for number in numbers)


def test_the_page_asks_nothing_of_other_machines(page: Any, address: str) -> None:
    asked = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
    here = address.split("#", maxsplit=1)[0]
    assert asked
    assert not [name for name in asked if not name.startswith((here, "data:", "blob:"))]
