"""The files around the code say what is true: the lock, the links, the annotated tree, the sweeps' headers."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("mlruns/*.md")])
SWEEPS = sorted(ROOT.glob("sweeps/*.yaml"))
OURS = (".ci", "benchmarks", "conf", "deploy", "docs", "examples", "src", "sweeps", "tests")
"""Folders that hold only files of the project."""


def lock_entries() -> list[str]:
    """Return one string an entry: its pin, then its hashes."""
    text = LOCK.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def locked_versions() -> dict[str, list[tuple[str, Marker | None]]]:
    """Return ``{package: [(version, marker)]}``: a package may have one version a Python."""
    pins: dict[str, list[tuple[str, Marker | None]]] = {}
    for entry in lock_entries():
        requirement = Requirement(entry.split(" --hash", maxsplit=1)[0])
        version = str(requirement.specifier).removeprefix("==")
        pins.setdefault(canonicalize_name(requirement.name), []).append((version, requirement.marker))
    return pins


def declared_requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [Requirement(text) for text in [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]]


def test_every_entry_of_the_lock_is_pinned_and_hashed() -> None:
    loose = [entry for entry in lock_entries() if not re.match(r"\S+==\S+ .*--hash=sha256:[0-9a-f]{64}", entry)]
    assert not loose
    assert len(lock_entries()) > 100


def test_the_lock_names_no_package_index() -> None:
    text = LOCK.read_text(encoding="utf-8")
    assert not re.findall(r"://|--(?:extra-)?index-url|--find-links|^-", text, flags=re.MULTILINE)


@pytest.mark.parametrize("package", ["tensorflow", "keras", "optuna", "mlflow", "hydra-core", "pandas"])
def test_the_lock_pins_what_besom_stands_on(package: str) -> None:
    assert package in locked_versions()


@pytest.mark.parametrize("requirement", declared_requirements(), ids=lambda requirement: requirement.name)
def test_the_lock_fits_pyproject(requirement: Requirement) -> None:
    pins = locked_versions().get(canonicalize_name(requirement.name), [])
    assert pins, f"{requirement.name} is not in requirements.lock: run make lock"
    outside = [version for version, _ in pins if version not in requirement.specifier]
    assert not outside, f"{requirement} does not allow the locked {outside}: run make lock"


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_lock_has_one_version_of_each_package_for_each_python(python: str) -> None:
    here = {"python_version": python, "python_full_version": f"{python}.0"}
    for package, pins in locked_versions().items():
        fitting = [version for version, marker in pins if marker is None or marker.evaluate(here)]
        assert len(fitting) <= 1, f"{package} has {fitting} on Python {python}"


def relative_links() -> list[tuple[Path, str]]:
    found = []
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        targets = re.findall(r"\]\(\s*<?([^)>\s#]+)", text) + re.findall(r"(?:src|href)=\"([^\"#]+)", text)
        found += [(page, target) for target in targets if not re.match(r"[a-z]+:", target)]
    return found


def test_every_relative_link_leads_to_a_file() -> None:
    broken = [f"{page.relative_to(ROOT)} -> {target}" for page, target in relative_links()
              if not (page.parent / target).exists()]  # fmt: skip
    assert not broken


def annotated_tree() -> list[str]:
    """Return the files in the README's fenced block that starts with ``src/besom``, without their notes."""
    blocks = re.findall(
        r"^```\w*\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    trees = [block.splitlines() for block in blocks if block.startswith("src/besom")]
    assert len(trees) == 1, "README.md needs one fenced block that starts with src/besom and has one line a file"
    return [name for line in trees[0] for name in re.findall(r"^[\s│├└─]*([\w/]+\.py)\b", line)]


def test_the_readme_shows_every_file_of_the_package_on_one_line() -> None:
    files = sorted(str(path.relative_to(ROOT / "src/besom")) for path in ROOT.glob("src/besom/**/*.py"))
    files = [file for file in files if not file.endswith("/__init__.py")]  # a folder's line says the same
    assert sorted(annotated_tree()) == files


def text_of(page: str) -> str:
    """Return a page without the tree of the package, for which one language is enough."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.sub(r"^```\nsrc/besom/\n.*?^```\n", "", text, flags=re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[list[str]]:
    """Return the lines of each fenced block, comments and a folder's note aside."""
    found = re.findall(r"^```\w*\n(.*?)^```", text_of(page), flags=re.MULTILINE | re.DOTALL)
    return [[re.sub(r"\s+#.*|(?<=/)\s{3,}.*", "", line) for line in block.splitlines()] for block in found]


def prose(page: str) -> str:
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)


ALIKE = {
    "code blocks, comments aside": blocks,
    "sections": lambda page: len(re.findall(r"^## ", prose(page), flags=re.MULTILINE)),
    "rows of tables": lambda page: len(re.findall(r"^\|", prose(page), flags=re.MULTILINE)),
    "points of lists": lambda page: len(re.findall(r"^- ", prose(page), flags=re.MULTILINE)),
    "pictures": lambda page: re.findall(r"!\[[^]]*\]\(([^)]*)\)", prose(page)),
    "links": lambda page: {link.split("#")[0] for link in re.findall(r"(?<!!)\[[^]]*\]\(([^)]*)\)", prose(page))
                           if "README" not in link},
    "words in code style": lambda page: set(re.findall(r"`([^`]+)`", prose(page))) - {"src/besom"},
    "numbers": lambda page: set(re.findall(r"\d[\d,.]*[,.]\d+|\d{3,}", prose(page))),
}  # fmt: skip
"""What a translation has in common with its original."""


@pytest.mark.parametrize("what", ALIKE)
def test_the_readme_in_korean_says_what_the_readme_says(what: str) -> None:
    english, korean = ALIKE[what]("README.md"), ALIKE[what]("README.ko.md")
    assert english
    assert korean == english, f"README.ko.md has other {what} than README.md: bring it up to date"


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_file_opens_with_its_command_and_its_time(sweep: Path) -> None:
    lines = sweep.read_text(encoding="utf-8").splitlines()
    header = "\n".join(lines[: next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))])
    # the package line is Hydra's and may stand anywhere in the header
    assert f"besom sweep {sweep.stem}" in header
    assert re.search(r"\d\s*(s|seconds?|min|minutes?|h|hours?)\b", header), "how long does it take on 2 cores?"


def project_files() -> list[Path]:
    inside = [path for folder in OURS for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts]
    return [
        path
        for path in [*ROOT.iterdir(), *inside, *ROOT.glob("mlruns/*.md")]
        if path.is_file() and not path.name.startswith(".coverage")
    ]


def test_no_file_names_a_folder_of_one_machine() -> None:
    # /home/me is nobody's: an example
    personal = re.compile(rb"(?<![\w.~$}])/(?:home|root|Users|work|mnt|opt)/(?!me\b)[\w.]")
    here = str(ROOT).encode() if len(ROOT.parts) > 2 else b"\0"  # a checkout in /src must not forbid "/src"
    guilty = [str(path.relative_to(ROOT)) for path in project_files()
              if personal.search(path.read_bytes()) or here in path.read_bytes()]  # fmt: skip
    assert not guilty


def test_every_test_that_the_docs_name_is_there() -> None:
    named = re.findall(r"`([a-z_]+)\.(test_\w+)`", (ROOT / "docs" / "sweeper.md").read_text(encoding="utf-8"))
    assert len(named) > 40
    missing = [
        f"{file}.{name}"
        for file, name in named
        if f"def {name}(" not in (ROOT / "tests" / f"test_{file}.py").read_text(encoding="utf-8")
    ]
    assert not missing
