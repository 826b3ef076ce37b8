"""Which source files make a result: besom's own that can change one, and a user's builder or loader with all that it
imports of the same project by a statement.

What lies in a project is known by its text, what is installed by its version. A user's imports are read out of the
files: a warm lane may have imported more than the trial at hand needs.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from besom.code_watch import LIBRARIES

PACKAGE = Path(__file__).parents[1]

RESULT_MODULES = (
    *("configs/config", "configs/schema", "data", "model", "seeding"),
    *("datasets/archive", "datasets/arrays", "datasets/idx", "datasets/pinned", "datasets/scaling"),
    *("datasets/shared", "datasets/sources", "datasets/split"),
    *("trial/epoch", "trial/folding", "trial/images", "trial/training", "trial/trial"),
)
"""Modules of besom whose text can change a result; the others only look at it."""


@cache  # the code that runs is the code that was there when the process first needed it
def sources(targets: tuple[str, ...]) -> dict[str, str]:
    """Return the SHA-256 of every source file that a result depends on, by its name below the folder it is imported
    from, such as ``besom/model.py`` or ``mine.py``.

    Args:
        targets: the dotted names of a user's builder and loader; those that cannot be found count for nothing here.
    """
    files = {f"besom/{name}.py": PACKAGE / f"{name}.py" for name in RESULT_MODULES}
    for target in targets:
        files.update(source_files(target))
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in sorted(files.items())}


def code_sha256(files: dict[str, str]) -> str:
    """Return one hash for all source files."""
    return hashlib.sha256("".join(f"{sha256} {name}\n" for name, sha256 in sorted(files.items())).encode()).hexdigest()


def source_files(target: str) -> dict[str, Path]:
    """Return the files of ``package.module.function`` in a project, by their names; none of an installed package."""
    module = target.rpartition(".")[0]
    file = _file_of(module)
    if file is None or _is_installed(file):
        return {}
    root = _root_of(module, file)
    return {found.relative_to(root).as_posix(): found for _, found in _imported(module, root)}


@cache
def installed(targets: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of the installed distributions that targets come from, by name."""
    modules = [target.rpartition(".")[0] for target in targets]
    tops = {module.split(".")[0] for module in modules if (file := _file_of(module)) and _is_installed(file)}
    if not tops:
        return {}
    owners = importlib.metadata.packages_distributions()
    names = {name for top in tops for name in owners.get(top, ())}
    return {name.lower(): importlib.metadata.version(name) for name in sorted(names)}


def _file_of(module: str) -> Path | None:
    """Return the source file of a module, None where it has none that can be read."""
    try:
        spec = importlib.util.find_spec(module)
    except Exception:  # a package above it runs here, and may raise anything; the trial itself will say so
        return None
    file = Path(spec.origin) if spec is not None and spec.origin is not None else None
    return file if file is not None and file.suffix == ".py" and file.is_file() else None


def _is_installed(file: Path) -> bool:
    return any(part in LIBRARIES for part in file.parts)


def _root_of(module: str, file: Path) -> Path:
    """Return the folder that a module's first name is found in."""
    depth = module.count(".") + (file.name == "__init__.py")
    return file.parents[depth]


def _imported(module: str, root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the modules below a folder that a module imports by a statement, at any remove, with their files."""
    known, waiting = set[str](), [module]
    while waiting:
        name = waiting.pop()
        if name in known:
            continue
        known.add(name)
        file = _below(root, name)
        above = name.rpartition(".")[0]
        waiting += [above] if above else []  # a package's own file runs first
        if file is not None:
            yield name, file
            waiting += _names_in(file, name if file.name == "__init__.py" else above)


def _below(root: Path, module: str) -> Path | None:
    """Return the file of a module in a folder, None where it is none of its, or a folder without a file of its own."""
    place = root.joinpath(*module.split("."))
    found = next((file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file()), None)
    return None if found is None or _is_installed(found) else found


def _names_in(file: Path, package: str) -> list[str]:
    """Return what a file may import, ``a.b`` and, for ``from a import b``, both ``a`` and ``a.b``.

    Args:
        package: that the file is in, from which relative imports count.
    """
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # the trial itself will say so
        return []
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*filter(None, above), *filter(None, [node.module])])
            names += [base, *(f"{base}.{alias.name}" if base else alias.name for alias in node.names)]
    return [name for name in names if name]
