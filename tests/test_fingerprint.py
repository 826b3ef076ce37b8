"""What counts as the same result, and what a result depends on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from besom.fingerprint import (
    PARTS,
    array_sha256,
    fingerprint,
    history_sha256,
    predictions_sha256,
    weights_sha256,
)
from besom.provenance.environment import environment
from besom.provenance.sources import RESULT_MODULES, installed, source_files

SOURCE = Path(__file__).parents[1] / "src" / "besom"
ZEROS = np.zeros((2, 3), np.float32)

OTHER_ARRAYS = [
    ("another value", [np.ones((2, 3), np.float32)]),
    ("another sign of zero", [-ZEROS]),
    ("another shape", [ZEROS.reshape(3, 2)]),
    ("another type of as many bytes", [ZEROS.astype(np.int32)]),
    ("another byte order", [ZEROS.astype(">f4")]),
    ("cut in two", [ZEROS[:1], ZEROS[1:]]),
    ("one more", [ZEROS, ZEROS]),
    ("none", []),
]


@pytest.mark.parametrize(("what", "arrays"), OTHER_ARRAYS)
def test_arrays_that_differ_have_another_hash(what: str, arrays: list[Any]) -> None:
    assert array_sha256(*arrays) != array_sha256(ZEROS), what


def test_the_layout_in_memory_does_not_count() -> None:
    array = np.arange(12.0).reshape(3, 4)
    assert array_sha256(np.asfortranarray(array)) == array_sha256(array)
    assert array_sha256(np.repeat(array, 2, axis=0)[::2]) == array_sha256(array)


def test_weights_and_predictions_are_hashed_as_arrays() -> None:
    assert weights_sha256([ZEROS, ZEROS]) == array_sha256(ZEROS, ZEROS)
    assert predictions_sha256(ZEROS) == array_sha256(ZEROS)


numbers = st.lists(st.floats(allow_nan=False))  # a training with nan has no result
histories = st.dictionaries(st.sampled_from(["train_loss", "val_loss", "val_accuracy"]), numbers)


@given(histories)
def test_a_history_keeps_its_hash_through_json_and_in_any_order(history: dict[str, list[float]]) -> None:
    again = json.loads(json.dumps(dict(reversed(history.items()))))
    assert history_sha256(again) == history_sha256(history)


@pytest.mark.parametrize(
    "other",
    [
        {"val_loss": [0.1 + 0.2], "val_accuracy": []},
        {"val_loss": [0.3]},
        {"val_loss": [0.3, 0.3], "val_accuracy": []},
        {"val_loss": [], "val_accuracy": [0.3]},
    ],
)
def test_histories_that_differ_in_one_bit_or_name_have_another_hash(other: dict[str, list[float]]) -> None:
    assert history_sha256(other) != history_sha256({"val_loss": [0.3], "val_accuracy": []})


def test_the_environment_names_packages_threads_and_cpu() -> None:
    found = environment(3)
    assert set(found) == {"packages", "threads", "cpu", "onednn"}
    assert set(found["packages"]) == {"python", "tensorflow", "keras", "numpy", "besom"}
    assert found["packages"]["numpy"] == np.__version__
    assert found["threads"] == 3
    assert found["cpu"]["model"]
    assert found["cpu"]["flags"] == sorted(set(found["cpu"]["flags"]))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("TF_ENABLE_ONEDNN_OPTS", "onednn"),
        ("ONEDNN_DEFAULT_FPMATH_MODE", "onednn"),
        ("ONEDNN_MAX_CPU_ISA", "cpu"),
        ("NPY_DISABLE_CPU_FEATURES", "cpu"),
        ("ONEDNN_VERBOSE", None),
    ],
)
def test_a_setting_of_onednn_is_in_the_part_that_it_changes(name: str, part: str | None) -> None:
    without, given = environment(1, {}), environment(1, {name: "x"})
    assert [one for one in given if given[one] != without[one]] == ([part] if part else [])


def config(**changes: Any) -> dict[str, Any]:
    """A plain config; changes by dotted key, dots written as two underscores."""
    plain: dict[str, Any] = {
        "data": {"_target_": "besom.data.npz", "path": "here.npz", "split_seed": 0, "rescale": "none"},
        "model": {"_target_": "besom.model.cnn", "conv": [{"filters": 3}], "dense": 84},
        "train": {"epochs": 10, "seed": 0, "threads": 1, "steps_per_execution": 25},
        "tracking": {"uri": None},
        "paths": {"store": "mlruns"},
    }
    for key, value in changes.items():
        group, _, name = key.partition("__")
        plain[group][name] = value
    return plain


def taken(data: str = "d", split: str = "s", threads: int = 1, **changes: Any) -> dict[str, Any]:
    return fingerprint(config(**changes), data, split, threads)


def test_a_fingerprint_has_its_parts_and_two_entries_for_people_and_goes_through_json() -> None:
    found = taken()
    assert set(found) == {*PARTS, "sources", "commit"}
    assert json.loads(json.dumps(found)) == found
    assert found == taken()
    assert set(found["sources"]) == {f"besom/{name}.py" for name in RESULT_MODULES}


CAUSES = [
    ({"data": "other"}, {"data"}),
    ({"split": "other"}, {"split"}),
    ({"threads": 2, "train__threads": 2}, {"threads"}),
    ({"train__steps_per_execution": 7}, {"steps_per_execution"}),
    ({"train__seed": 1}, {"seed"}),
    ({"data__split_seed": 1}, {"seed"}),
    ({"train__epochs": 3}, {"config"}),
    ({"model__conv": [{"filters": 4}]}, {"config"}),
    ({"data__rescale": "unit"}, {"config"}),
    ({"data__path": "there.npz"}, set()),
    ({"data__path_of_labels": "there.csv"}, {"config"}),
    ({"paths__store": "elsewhere"}, set()),
    ({"tracking__uri": "http://127.0.0.1"}, set()),
    ({"model___target_": f"{__name__}.config"}, {"config", "code", "sources"}),
]


@pytest.mark.parametrize(("change", "parts"), CAUSES)
def test_each_cause_changes_its_own_part_only(change: dict[str, Any], parts: set[str]) -> None:
    before, now = taken(), taken(**change)
    assert {part for part in before if before[part] != now[part]} == parts


def fingerprint_in_a_process_of_its_own(folder: Path, target: str = "besom_test_own.build") -> dict[str, Any]:
    program = (
        "import json, sys; from besom.fingerprint import fingerprint; "
        f"train = {{'seed': 0, 'steps_per_execution': 1}}; own = {{'_target_': {target!r}}}; "
        "print(json.dumps(fingerprint({'data': {}, 'model': own, 'train': train}, '', '', 1)))"
    )
    env = {**os.environ, "PYTHONPATH": str(folder / "site-packages")}
    command = [sys.executable, "-c", program]
    shown = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(shown.stdout)
    return found


def test_the_text_of_a_users_own_builder_is_part_of_the_code(tmp_path: Path) -> None:
    file = tmp_path / "besom_test_own.py"
    file.write_text("WIDTH = 1\n", encoding="utf-8")
    before = fingerprint_in_a_process_of_its_own(tmp_path)
    assert fingerprint_in_a_process_of_its_own(tmp_path) == before
    file.write_text("WIDTH = 2\n", encoding="utf-8")
    now = fingerprint_in_a_process_of_its_own(tmp_path)
    assert {part for part in before if before[part] != now[part]} == {"code", "sources"}


PROJECT = {
    "net/__init__.py": "",
    "net/build.py": "import numpy\nfrom net.parts import layers\nfrom . import sizes\ndef it():\n    import late\n",
    "net/parts/__init__.py": "",
    "net/parts/layers.py": "import json, net.parts.deep\n",
    "net/parts/deep.py": "",
    "net/sizes.py": "",
    "net/unused.py": "",
    "late.py": "",
    "other.py": "import net.build\n",
}


def test_the_files_that_a_builder_imports_are_found_without_running_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in PROJECT.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert set(source_files("net.build.it")) == set(PROJECT) - {"net/unused.py", "other.py"}
    assert set(source_files("other.it")) == set(PROJECT) - {"net/unused.py"}
    (tmp_path / "net" / "sizes.py").write_text("def (", encoding="utf-8")
    assert set(source_files("net.build.it")) == set(PROJECT) - {"net/unused.py", "other.py"}, "a mistake hides no other"


def test_folders_without_a_file_of_their_own_are_walked_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {"spread/wide.py": "import wandb, spread.deep.one\n", "spread/deep/one.py": ""}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "wandb").mkdir()  # a folder of data with the name of a library
    monkeypatch.syspath_prepend(tmp_path)
    assert set(source_files("spread.wide.build")) == {"spread/wide.py", "spread/deep/one.py"}


def test_an_installed_builder_is_known_by_its_version_not_by_its_text(tmp_path: Path) -> None:
    place = tmp_path / "site-packages"
    (place / "besomtestnet").mkdir(parents=True)
    (place / "besomtestnet" / "__init__.py").write_text("", encoding="utf-8")
    about = place / "besomtestnet-1.5.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: BesomTestNet\nVersion: 1.5\n", encoding="utf-8")
    (about / "top_level.txt").write_text("besomtestnet\n", encoding="utf-8")
    found = fingerprint_in_a_process_of_its_own(tmp_path, "besomtestnet.build")
    assert found["packages"]["besomtestnet"] == "1.5"
    assert set(found["sources"]) == {f"besom/{name}.py" for name in RESULT_MODULES}
    assert installed(()) == {}


@pytest.mark.parametrize("target", ["no_such_package.module.build", "build", "sys.exit", "data..build"])
def test_a_target_without_a_file_is_no_error(target: str) -> None:
    assert taken(model___target_=target)["code"]


def test_the_modules_that_make_a_result_are_there() -> None:
    assert [name for name in RESULT_MODULES if not (SOURCE / f"{name}.py").is_file()] == []


def test_taking_a_fingerprint_costs_less_than_50_ms() -> None:
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        taken()
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.05


def test_a_fingerprint_is_taken_without_tensorflow() -> None:
    program = "import sys, besom.fingerprint; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"tensorflow", "keras", "mlflow", "pandas", "optuna"} & set(shown.stdout.split())
