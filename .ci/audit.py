"""What `make audit` does: asks PyPI for the known vulnerabilities of every package that a lock pins.

pip-audit passes over a package of which nobody could tell it anything, and then finds nothing: here that is no good
end. Exit codes: 0 every package was looked up and none has a known vulnerability; 1 some have; 2 none is known to
have one, but not all could be looked up.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

COMMAND = ("--require-hashes", "--disable-pip", "--progress-spinner", "off", "--desc", "off", "--format", "json")


def main(locks: list[str]) -> int:
    """Look through each lock and return the worst of the exit codes: what is known counts more than what is not."""
    codes = {audited(lock) for lock in locks}
    return 1 if 1 in codes else max(codes)


def audited(lock: str) -> int:
    """Say what is known of one lock's packages."""
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", *COMMAND, "-r", lock], capture_output=True, text=True, check=False
    )
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return _told(2, f"{lock} could not be audited: {last[:300]}")
    known = [package for package in packages if "vulns" in package]
    found = [(package, one) for package in known for one in package["vulns"]]
    for package, one in found:
        mended = ", ".join(one["fix_versions"]) or "no version yet"
        aliases = " ".join(one.get("aliases", ()))
        _told(1, f"{lock}: {package['name']} {package['version']}: {one['id']} {aliases}; mended in {mended}")
    if len(known) < len(packages) or not packages:
        return _told(
            1 if found else 2,
            f"{lock}: {len(packages) - len(known)} of {len(packages)} packages could not be looked up: PyPI's "
            "advisories cannot be reached from here, or do not know them; run make audit where they can",
        )
    sys.stdout.write(f"besom: {lock}: {len(known)} packages looked up, {len(found)} known vulnerabilities\n")
    return 1 if found else 0


def _told(code: int, text: str) -> int:
    sys.stderr.write(f"besom: {text}\n")
    return code


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1]
    missing = [lock for lock in sys.argv[1:] if not (root / lock).is_file()]
    sys.exit(_told(2, f"{missing[0]} is not there; expected a lock file") if missing else main(sys.argv[1:]))
