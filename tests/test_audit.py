"""Every lock file pins by hash and names no index; `make audit` is no good end where nobody could be asked."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = sorted(str(file.relative_to(ROOT)) for file in (*ROOT.glob("*.lock"), *ROOT.glob(".ci/*.lock"),
                                                         *ROOT.glob("benchmarks/*.lock")))  # fmt: skip


@pytest.mark.parametrize("lock", LOCKS)
def test_every_lock_pins_every_package_by_hash_and_names_no_index(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    entries = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    loose = [entry for entry in entries if not re.match(r"\S+==\S+ .*--hash=sha256:[0-9a-f]{64}", entry)]
    assert not loose
    assert len(entries) > 20
    assert not re.findall(r"://|--(?:extra-)?index-url|--find-links|--trusted-host|^-", text, flags=re.MULTILINE)


def test_make_audit_looks_at_every_lock() -> None:
    [named] = re.findall(r"^LOCKS := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(named.split()) == LOCKS


def test_environments_are_made_with_hashes_only() -> None:
    installs = re.findall(r"^ *install (.*-r .*)$", (ROOT / ".ci/venv").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(installs) == 2
    assert all(install.startswith("--require-hashes -r ") for install in installs)


@pytest.mark.parametrize(
    ("lock", "message"),
    [("requirements.lock", "requirements.lock could not be audited: "), ("gone.lock", "gone.lock is not there")],
)
def test_an_audit_that_could_not_be_done_is_told_in_one_line_and_fails(lock: str, message: str) -> None:
    # this environment has no pip-audit: that is in one of its own
    done = subprocess.run([sys.executable, ".ci/audit.py", lock], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"besom: {message}")
    assert len(done.stderr.splitlines()) == 1


KNOWN = {"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}
SOUND, UNKNOWN = {"name": "b", "version": "1", "vulns": []}, {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ([[SOUND]], 0),
        ([[KNOWN, SOUND]], 1),
        ([[SOUND, UNKNOWN]], 2),
        ([[KNOWN, UNKNOWN]], 1),
        ([[KNOWN], [UNKNOWN]], 1),
        ([[]], 2),
    ],
)
def test_a_known_vulnerability_is_worse_than_not_knowing(
    answers: list[list[dict[str, object]]], code: int, tmp_path: Path
) -> None:
    # stands for pip-audit, which is not in this environment, nor its advisories
    (tmp_path / "pip_audit.py").write_text("import sys\nprint(open(sys.argv[-1] + '.said').read())\n")
    locks = [str(tmp_path / f"{number}.lock") for number in range(len(answers))]
    for lock, answer in zip(locks, answers, strict=True):
        Path(lock).touch()
        Path(f"{lock}.said").write_text(json.dumps({"dependencies": answer}))
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(ROOT / ".ci" / "audit.py"), *locks]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
