"""No name leaves the store: of sweeps, experiments, folders, wherever it is given."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import BesomCommand, Folder
from hypothesis import given
from hypothesis import strategies as st

from besom.errors import ConfigError
from besom.paths import Store, checked_experiment, checked_new_name, checked_sweep_name

OUTSIDE = [
    *("", ".", "..", "../x", "x/../../y", "/etc", "//host/x", "a/b", "a\\b", "..\\x", "~", "~root", "-rf", "-"),
    *(
        ".locks",
        ".hidden",
        "x\x00y",
        "x\ny",
        "x y",
        "x\ty",
        "x*",
        "x?",
        "$HOME",
        "`id`",
        "x;y",
        "a" * 65,
        "C:",
        "C:\\x",
    ),
    *(
        "\uff45tc",
        "\u2024\u2024",
        "\u2025",
        "x\uff0fy",
        "quick\u200b",
        "qu\u0456ck",
        "é",
        "\u202equick",
        "%2e%2e",
        "x%2fy",
        "file:x",
    ),
]
"""Look-alikes of dots, slashes and letters in Unicode among them."""


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_is_no_plain_name_is_no_sweep(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^sweep name .* cannot be used; expected 1 to 64 letters"):
        checked_sweep_name(name)
    for path in (Store(Path("/s")).sweep, Store(Path("/s")).lock, Store(Path("/s")).snapshot, Store(Path("/s")).images):
        with pytest.raises(ConfigError, match=r"^sweep name "):
            path(name)


@given(st.text(max_size=70))
def test_every_name_that_is_taken_is_one_folder_in_the_store(name: str) -> None:
    store = Store(Path("/s"))
    try:
        folder = store.sweep(name)
    except ConfigError:
        return
    assert folder.resolve().parent == Path("/s/jobs")
    assert name.isascii()


@pytest.mark.parametrize(
    "name",
    [
        "train",
        "TRAIN",
        "reproductions",
        "con",
        "NUL",
        "nul.txt",
        "com1",
        "LPT9.x",
        "quick.",
        "x..",
        "quick-deleted-1764069300",
    ],
)
def test_a_reserved_name_is_no_new_sweeps(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^sweep name '{name}' is reserved, .*; give another --name"):
        checked_new_name(name, [])


def test_a_name_that_differs_by_case_alone_is_no_new_sweeps() -> None:
    with pytest.raises(ConfigError, match=r"^sweep name 'Quick' differs from sweep 'quick' by case alone"):
        checked_new_name("Quick", ["tpe", "quick"])


@pytest.mark.parametrize("name", ["quick", "snapshot", "trains", "conv", "1", "a.b-c_d", "x-deleted", "A" * 64])
def test_other_names_are(name: str) -> None:
    assert checked_new_name(name, ["tpe", name]) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "...", " ", "../x", "/etc", "a/b", "a\\b", "x\x00", "x\x1b[2J", "é" * 101]
)
def test_an_experiment_whose_name_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^tracking.experiment=.* cannot be used; expected a name of at most 200 bytes"
    ):
        checked_experiment(name)


@pytest.mark.parametrize("name", ["train", "My experiment (v2)", "données", ".x", "a..b"])
def test_other_experiments_are_taken(name: str) -> None:
    assert checked_experiment(name) == name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sweep", "quick", "--name", "../out"), "sweep name '../out' cannot be used"),
        (("sweep", "quick", "--name", "/etc"), "sweep name '/etc' cannot be used"),
        (("sweep", "quick", "--name", "train"), "sweep name 'train' is reserved"),
        (("sweep", "quick", "hydra.sweeper.study_name=../out"), "sweep name '../out' cannot be used"),
        (("sweep", ".hidden.yaml"), "sweep name '.hidden' cannot be used"),
        (("sweep", "quick", "hydra.sweep.dir=/tmp/out"), "hydra.sweep.dir='/tmp/out' leaves the store"),
        (
            ("sweep", "quick", "hydra.sweep.subdir=../../out"),
            "hydra.sweep.subdir='../../out' leaves the sweep's folder",
        ),
        (("sweep", "quick", "hydra.sweep.subdir=/tmp/out"), "hydra.sweep.subdir='/tmp/out' leaves the sweep's folder"),
        (("train", "tracking.experiment=../../out"), "tracking.experiment='../../out' cannot be used"),
        (("delete", "../quick"), "no store at"),
    ],
)
def test_the_command_line_refuses_it_and_leaves_nothing(
    arguments: tuple[str, ...], message: str, project: Path, besom_command: BesomCommand
) -> None:
    (project / ".hidden.yaml").write_text(
        "# @package _global_\nhydra:\n  sweeper:\n    params: {train.seed: range(2)}\n"
    )
    said = Folder(project, besom_command).besom(*arguments, code=2)
    assert message in said.stderr
    assert len(said.stderr.splitlines()) == 1
    assert {path.name for path in project.iterdir()} == {".hidden.yaml"}
