"""Two worlds, one seam: who may import whom, read from the syntax trees, imports inside functions included."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOMS = {
    "ground": """
        code_watch configs contained cores database_server databases disk errors files fingerprint geometry judge lock
        machine offered options paths provenance quiet reporting results seeding signals tables targets temporary
        tracker uris withheld
    """,
    "trial": "data datasets experiments model spool tracking trial",
    "sweep": "engines hydra_conf search server_storage storage study_lock sweep whereabouts",
    "compare": "compare",
    "upkeep": "upkeep",
    "proof": "confirm export reproduce retrain",
    "door": "__init__ __main__ app",
}
"""Which folder, or file beside the folders, belongs to which world.

Ground imports neither world; *trial* trains one configuration; *sweep* chooses configurations; *compare* reads what
both have left, without TensorFlow; *upkeep* checks a store and mends it; *proof* trains again what was left and judges
it; doors are what people call, and may import all.
"""

HOUSES = {name: room for room, names in ROOMS.items() for name in names.split()}

MAY_IMPORT = {
    "ground": {"ground"},
    "trial": {"ground", "trial"},
    "sweep": {"ground", "sweep"},
    "compare": {"ground", "trial", "sweep", "compare"},
    "upkeep": {"ground", "trial", "sweep", "compare", "upkeep"},
    "proof": {"ground", "trial", "sweep", "compare", "proof"},
    "door": {"ground", "trial", "sweep", "compare", "upkeep", "proof", "door"},
}

HEAVY = {"tensorflow", "keras", "mlflow", "pandas"}
FORBIDDEN = {
    "ground": HEAVY | {"optuna"},
    "trial": {"optuna"},
    "sweep": HEAVY,
    "compare": {"tensorflow", "keras"},
    "upkeep": {"tensorflow", "keras"},
    "proof": set[str](),
    "door": set[str](),
}

SOURCE = Path(__file__).parents[1] / "src" / "besom"
FILES = {str(path.relative_to(SOURCE).with_suffix("")).replace("/", "."): path for path in SOURCE.rglob("*.py")}
ROOM_OF = {module: HOUSES[house] for module in FILES if (house := module.split(".")[0]) in HOUSES}
HOUSED = sorted(ROOM_OF)


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def imports_of(module: str) -> Iterator[str]:
    """Yield the dotted name of everything that a module imports: ``a.b`` and, for ``from a import b``, ``a.b`` too."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"besom.{module} has a relative import in line {node.lineno}; write it out"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def besom_imports(module: str) -> set[str]:
    """Return the modules of besom that a module imports, by their names in ``FILES``."""
    parts = [name.split(".")[1:] for name in imports_of(module) if name.startswith("besom.")]
    names = {".".join(of[:length]) for of in parts for length in range(1, len(of) + 1)}
    return names & set(FILES)


def test_every_file_and_folder_has_a_room_and_every_room_its_files() -> None:
    houses = {module.split(".")[0] for module in FILES}
    homeless, gone = sorted(houses - set(HOUSES)), sorted(set(HOUSES) - houses)
    assert not homeless, f"{homeless} have no room: add them to ROOMS in this file, to ground, trial, sweep or door"
    assert not gone, f"ROOMS in this file names {gone}, which are not in src/besom: remove them"


@pytest.mark.parametrize("module", HOUSED)
def test_imports_point_down_only(module: str) -> None:
    room = ROOM_OF[module]
    wrong = {name: ROOM_OF.get(name) for name in besom_imports(module) if ROOM_OF.get(name) not in MAY_IMPORT[room]}
    assert not wrong, f"besom.{module} is in {room} and imports {wrong}"


@pytest.mark.parametrize("module", HOUSED)
def test_each_world_stays_clear_of_the_libraries_of_the_other(module: str) -> None:
    wrong = {name for name in imports_of(module) if name.split(".")[0] in FORBIDDEN[ROOM_OF[module]]}
    assert not wrong, f"besom.{module} is in {ROOM_OF[module]} and imports {sorted(wrong)}"


def circle_in(edges: dict[str, set[str]]) -> str:
    """Return a circle as text, empty where there is none."""
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> str:
        if name in path:
            return " -> ".join((*path, name))
        found = "" if name in done else next(filter(None, (visit(to, (*path, name)) for to in sorted(edges[name]))), "")
        done.add(name)
        return found

    return next(filter(None, (visit(name, ()) for name in sorted(edges))), "")


def test_no_import_runs_in_a_circle() -> None:
    assert circle_in({module: besom_imports(module) for module in FILES}) == ""


def test_no_imports_between_folders_run_in_a_circle() -> None:
    edges: dict[str, set[str]] = {module.split(".")[0]: set() for module in FILES}
    for module in FILES:
        house = module.split(".")[0]
        edges[house] |= {imported.split(".")[0] for imported in besom_imports(module)} - {house}
    assert circle_in(edges) == ""


@pytest.mark.parametrize("module", sorted(set(FILES) - {"__init__"}))
def test_nothing_is_imported_through_the_facade(module: str) -> None:
    facade = {name.rsplit(".", 1)[1] for name in imports_of("__init__") if name.startswith("besom.")}
    imported = {name.removeprefix("besom.") for name in imports_of(module) if name.startswith("besom.")}
    attributes = [node for node in ast.walk(tree_of(module)) if isinstance(node, ast.Attribute)]
    used = {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id == "besom"}
    through = sorted((imported | used) & facade)
    assert not through, f"besom.{module} takes {through} from the facade; name the module they live in"


def test_the_test_set_is_opened_by_confirm_only() -> None:
    def mentions(module: str) -> bool:
        names = {"load_test"}
        return any(
            getattr(node, field, None) in names
            for node in ast.walk(tree_of(module))
            for field in ("id", "attr", "name", "value")
            if not isinstance(node, ast.FunctionDef)
        )

    assert {module for module in FILES if mentions(module)} == {"confirm.test_set"}


def test_no_module_is_a_drawer_for_everything() -> None:
    drawers = {"util", "utils", "helpers", "common", "misc"}
    assert not [module for module in FILES if drawers & set(module.split("."))]


LIGHT = [
    ("besom", {"tensorflow", "keras", "mlflow", "pandas", "optuna"}),
    ("hydra_plugins.besom", {"tensorflow", "keras", "mlflow", "pandas", "optuna"}),
]


@pytest.mark.parametrize(("package", "heavy"), LIGHT)
def test_importing_the_package_loads_nothing_heavy(package: str, heavy: set[str]) -> None:
    code = f"import sys, {package}; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not heavy & set(shown.stdout.split())


def test_every_point_where_faults_strike_is_a_function_that_besom_has() -> None:
    """A function that moves takes its point along; a fault that finds none fails only in the long proofs."""
    code = (
        "import importlib, operator, sitecustomize\n"
        "for point, (module, name, _) in sitecustomize.POINTS.items():\n"
        "    try: operator.attrgetter(name.partition(':')[0])(importlib.import_module(module))\n"
        "    except (ImportError, AttributeError) as error: print(point, error)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent / "faults" / "injector")}
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert shown.stdout == ""
