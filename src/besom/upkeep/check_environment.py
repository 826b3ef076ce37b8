"""Checks of what besom runs with: Python, packages, variables, cores, limits, the tracking server."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
from collections.abc import Iterator, Mapping

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from besom.cores import usable_cores
from besom.provenance.environment import LIMITS, ONEDNN
from besom.seeding import runtime_environment
from besom.spool.probe import why_away
from besom.upkeep.findings import Finding, error, note, warning
from besom.withheld import without_password

OTHERS = ("TF_XLA_FLAGS", "XLA_FLAGS", "TF_ENABLE_AUTO_MIXED_PRECISION", "TF_USE_LEGACY_KERAS", "NVIDIA_TF32_OVERRIDE")
CHANGING = tuple(name for name in (*ONEDNN, *LIMITS, *OTHERS) if name not in runtime_environment(1))
"""Variables that change what TensorFlow computes, and that besom itself does not set."""
FILES_PER_LANE = 64
"""Files that a lane and its parent have open at most: pipes, databases, libraries, arrays."""


def python(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Python within the bounds that besom's package declares."""
    wanted = importlib.metadata.metadata("besom")["Requires-Python"]
    version = platform.python_version()
    if wanted and not SpecifierSet(wanted).contains(version, prereleases=True):
        yield error("environment", f"Python is {version}; expected {wanted}", "another Python: make venv PYTHON=…")


def packages(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Every package that besom needs, in a version that it is made for."""
    for text in importlib.metadata.requires("besom") or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield from wanting(requirement)


def wanting(requirement: Requirement) -> Iterator[Finding]:
    """Tell of a package that is missing, or of another version."""
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        yield error("environment", f"{requirement.name} is not installed", f"pip install '{requirement}'")
        return
    if not requirement.specifier.contains(version, prereleases=True):
        what = f"{requirement.name} is {version}; expected {requirement.specifier}"
        yield warning("environment", what, f"pip install '{requirement}'")


def variables(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Variables that change results, and those that say where things go."""
    for name in CHANGING:
        if name in environ:
            what = f"{name}={environ[name]} changes what is computed: such results differ from those without it"
            yield warning("environment", what, f"unset {name}")
    for name in ("BESOM_STORE", "MLFLOW_TRACKING_URI", "BESOM_STORAGE"):
        if environ.get(name):
            yield note("environment", f"{name} is set: {without_password(environ[name])}")


def cores(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Fewer cores than the machine has: a container, or a process that is bound."""
    usable, every = usable_cores(), os.cpu_count() or 1
    if usable < every:
        yield note("environment", f"{usable} of {every} cores may be used: so many lanes run at the same time")


def open_files(environ: Mapping[str, str]) -> Iterator[Finding]:
    """The limit of open files, against what so many lanes need."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = FILES_PER_LANE * (usable_cores() + 1)
    if soft != resource.RLIM_INFINITY and soft < needed:
        what = f"a process may open {soft} files; {usable_cores()} lanes need up to {needed}"
        yield warning("environment", what, f"ulimit -n {needed}")


def tracking_server(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Whether what MLFLOW_TRACKING_URI names answers."""
    uri = environ.get("MLFLOW_TRACKING_URI", "")
    if uri and not uri.startswith("sqlite:") and (reason := why_away(uri)):
        what = f"MLFLOW_TRACKING_URI={without_password(uri)} does not answer: {reason}"
        yield error("environment", what, "start that server, or unset MLFLOW_TRACKING_URI")


CHECKS = (python, packages, variables, cores, open_files, tracking_server)
