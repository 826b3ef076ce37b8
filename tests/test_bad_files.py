"""A config file may be anything: what no parser should have is refused before one has it, in a line that names it.

A pipe is not waited for, a device not read to its end, an avalanche of aliases not rolled out. Nothing is created.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, BesomCommand
from hostile import contents, examples
from hypothesis import given
from hypothesis import strategies as st

import besom.app.cli
from besom.configs.files import MOST_BYTES, MOST_VALUES, read_yaml, refuse_avalanche
from besom.files import Unusable

OF_A_SWEEP = "# @package _global_\n"
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"b{n}: &b{n} [{', '.join([f'*{before}'] * 10)}]\n" for n, before in enumerate(["a", *(f"b{n}" for n in range(8))])
)

TEXTS: dict[str, tuple[bytes, str]] = {
    "a billion laughs": (LAUGHS.encode(), "it stands for more than 100,000 values"),
    "an alias inside itself": (b"a: &a [*a]\n", "its alias *a stands for what it is in"),
    "brackets that never end": (b"a: " + b"[" * 20_000, "it is nested more than 50 deep"),
    "brackets ten thousand deep": (b"a: " + b"[" * 10_000 + b"]" * 10_000, "it is nested more than 50 deep"),
    "latin-1": ("a: café\n".encode("latin-1"), "it is no UTF-8 text: byte 6 is 0xe9"),
    "UTF-16": ("a: b\n".encode("utf-16"), "it is no UTF-8 text: byte 0 is 0xff"),
    "bytes of all kinds": (bytes(range(256)), "it is no UTF-8 text: byte 128 is 0x80"),
    "two megabytes": (b"a: " + b"x" * 2_000_000, "it has more than 1,000,000 bytes"),
}
"""What no parser gets, wherever the file lies."""

SHAPES: dict[str, tuple[bytes, str]] = {
    "a bracket that is open": (b"a: [1\n", "is no YAML"),
    "a tab as indentation": (b"a:\n\tb: 1\n", "is no YAML"),
    "a control character": (b"a: \0\n", "is no YAML"),
    "an object of Python": (b"a: !!python/object/apply:os.system ['touch pwned']\n", "is no YAML"),
    "a tag": (b"a: !foo 1\n", "is no YAML"),
    "two documents": (b"a: 1\n---\nb: 2\n", "is no YAML"),
    "a key twice": (b"a: 1\na: 2\n", "is no YAML"),
    "a number": (b"7\n", "Invalid loaded object type: int"),
    "a list": (b"- 1\n", "the search space is empty"),
    "a number of 10,000 digits": (b"a: " + b"9" * 10_000 + b"\n", "cannot be composed"),
    "defaults that are a number": (b"# @package _global_\ndefaults: 7\n", "defaults must be a list"),
    "defaults in a list": (b"# @package _global_\ndefaults:\n  - [1]\n", "Unsupported type in defaults"),
    "itself among its defaults": (b"# @package _global_\ndefaults:\n  - /sweeps: x\n", "refers to itself"),
    "an unknown default": (b"# @package _global_\ndefaults:\n  - data: nope\n", "nope"),
    "a circle of interpolations": (
        b"# @package _global_\ntrain: {epochs: '${train.batch_size}', batch_size: '${train.epochs}'}\n"
        b"hydra: {sweeper: {params: {train.seed: 'choice(1,2)'}}}\n",
        "train.",
    ),
    "an interpolation to nowhere": (b"# @package _global_\nhydra: {sweeper: {n_trials: '${nope}'}}\n", "n_trials"),
    "params as a number": (b"# @package _global_\nhydra: {sweeper: {params: 7}}\n", "params=7 is no mapping"),
    "params with numbers": (b"# @package _global_\nhydra: {sweeper: {params: {1: 2}}}\n", "is no mapping"),
    "params that are nothing": (
        b"# @package _global_\nhydra: {sweeper: {params: null}}\n",
        "the search space is empty",
    ),
    "hydra as a number": (b"# @package _global_\nhydra: 7\n", "int is not a subclass of HydraConf"),
    "a group as a number": (b"# @package _global_\ntrain: 7\n", "int is not a subclass of TrainConfig"),
    "nothing": (b"", "the search space is empty"),
}
"""What a parser reads and no sweep is."""


def a_pipe(file: Path) -> None:
    os.mkfifo(file)


def a_device(file: Path) -> None:
    file.symlink_to("/dev/zero")


def a_circle(file: Path) -> None:
    file.symlink_to(file.name)


def gigabytes(file: Path) -> None:
    with file.open("wb") as opened:
        opened.truncate(4 << 30)  # of nothing: it takes no room on a disk


NO_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a pipe": (a_pipe, "it is no plain file"),
    "a device": (a_device, "it is no plain file"),
    "a link to itself": (a_circle, "Too many levels of symbolic links"),
    "four gigabytes": (gigabytes, "it has more than 1,000,000 bytes"),
    "a folder": (Path.mkdir, "it is a folder"),
    "nothing": (lambda file: None, "it does not exist"),
}


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, with no store anywhere."""
    monkeypatch.chdir(tmp_path)
    for name in ("BESOM_STORE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def refused(capfd: pytest.CaptureFixture[str], folder: Path, *args: str) -> str:
    """Run a command that must refuse: exit 2, one line, at once, nothing created."""
    before, begun = contents(folder), time.monotonic()
    code = besom.app.cli.run(list(args))
    out, err = capfd.readouterr()
    assert (code, out) == (2, ""), err
    [line] = err.splitlines()
    assert line.startswith("besom: ")
    assert line.isprintable()
    assert len(line) < 2500
    assert "expected" in line, line
    assert time.monotonic() - begun < 30
    assert contents(folder) == before
    return line


@pytest.mark.parametrize("what", TEXTS)
def test_no_parser_gets_what_it_does_not_come_back_from(
    what: str, empty: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content, reason = TEXTS[what]
    (empty / "x.yaml").write_bytes(content)
    assert reason in refused(capfd, empty, "sweep", "x.yaml", "--dry-run")
    shutil.copytree(ROOT / "conf", empty / "conf")
    (empty / "conf" / "data" / "x.yaml").write_bytes(content)
    line = refused(capfd, empty, "summary", "data=x")
    assert f"config file conf/data/x.yaml cannot be read: {reason}" in line


@pytest.mark.parametrize("what", NO_FILES)
def test_what_is_no_plain_file_is_named_and_not_waited_for(
    what: str, empty: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make, reason = NO_FILES[what]
    make(empty / "x.yaml")
    assert reason in refused(capfd, empty, "sweep", "x.yaml").replace("does not", "it does not")
    assert f"config file x.yaml cannot be read: {reason}" in refused(capfd, empty, "train", "--config", "x.yaml")


@pytest.mark.service
@pytest.mark.parametrize("what", SHAPES)
def test_a_sweep_file_of_another_shape_is_one_line(what: str, empty: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content, words = SHAPES[what]
    (empty / "x.yaml").write_bytes(content)
    line = refused(capfd, empty, "sweep", "x.yaml", "--dry-run")
    assert words in line
    assert str(empty) not in line.replace("x.yaml", "")
    assert "/tmp/besom-" not in line, "it names a folder that is gone"


def test_a_file_that_nobody_asks_for_stops_nobody(empty: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (empty / "sweeps").mkdir()
    for what, (content, _) in TEXTS.items():
        (empty / "sweeps" / f"{what}.yaml").write_bytes(content)
    for what, (make, _) in NO_FILES.items():
        make(empty / "sweeps" / f"{what} here.yaml")
    assert besom.app.cli.run(["summary"]) == 0
    assert besom.app.cli.run(["sweep"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert "besom cannot use this file: it stands for more than 100,000 values" in out
    assert "besom cannot use this file: it is no plain file" in out


@pytest.mark.service
@pytest.mark.parametrize(
    "content", [b"besom\n", b"# besom\n", b"# besom: 1\n- a\n", b"besom: {}\n", b"besom: [\n", b"# besom\npaths: 7\n"]
)
def test_a_project_whose_config_is_of_another_shape_is_told_so(
    content: bytes, empty: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "conf", empty / "conf")
    (empty / "conf" / "config.yaml").write_bytes(content)
    for args in (["summary"], ["runs", "quick"], ["sweep", "quick", "--dry-run"]):
        refused(capfd, empty, *args)


def test_a_device_in_the_place_of_a_projects_config_is_nobodys(empty: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (empty / "conf").mkdir()
    a_device(empty / "conf" / "config.yaml")
    assert besom.app.cli.run(["summary"]) == 0
    assert capfd.readouterr().err == ""


@examples(30)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_a_config_or_one_line(empty: Path, capfd: pytest.CaptureFixture[str], content: bytes) -> None:
    (empty / "x.yaml").write_bytes(content)
    refused(capfd, empty, "train", "--config", "x.yaml")


def yaml_of(seed: int) -> str:
    return f"a{seed}: &a{seed} [1, {{b: [2, 3]}}]\nc{seed}: [*a{seed}, *a{seed}]\n"


@examples(10)
@given(st.integers(1, 40))
def test_anchors_are_counted_as_what_they_stand_for(n: int) -> None:
    text = "".join(map(yaml_of, range(n)))
    loaded = yaml.safe_load(text)

    def count(value: object) -> int:
        if isinstance(value, dict):
            return 1 + sum(1 + count(item) for item in value.values())
        return 1 + sum(map(count, value)) if isinstance(value, list) else 1

    refuse_avalanche(text)
    too_many = MOST_VALUES // count(loaded) + 1
    with pytest.raises(Unusable, match="it stands for more than"):
        refuse_avalanche(
            f"base: &base\n{''.join(f'  {line}' for line in text.splitlines(True))}"
            f"all: [{', '.join(['*base'] * too_many)}]\n"
        )


def test_every_config_and_sweep_of_besom_passes() -> None:
    files = [*(ROOT / "conf").rglob("*.yaml"), *(ROOT / "sweeps").rglob("*.yaml")]
    assert len(files) > 10
    for file in files:
        assert len(read_yaml(file)) < MOST_BYTES / 10


def test_the_real_command_is_not_held_up_by_a_pipe(project: Path, besom_command: BesomCommand) -> None:
    a_pipe(project / "x.yaml")
    done = besom_command("sweep", "x.yaml", cwd=project)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        "besom: sweep file 'x.yaml' cannot be read: it is no plain file; expected a YAML file"
    )
    assert len(done.stderr.splitlines()) == 1
    assert [file.name for file in project.iterdir()] == ["x.yaml"]
