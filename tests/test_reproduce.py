"""The rules of trust, of causes and of a verdict, as tables; real reproductions are in test_reproduce_one_change.py and
test_reproduce_all.py.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from besom.errors import ConfigError
from besom.paths import Store
from besom.reproduce.causes import Circumstances, Difference, differences, first_cause
from besom.reproduce.original import Original
from besom.reproduce.verdict import Rerun, first_difference, judged, within_noise, worst
from besom.results import TrialResult
from besom.retrain.runs import is_dead
from besom.retrain.trust import refuse_foreign_targets, refuse_path_outside
from besom.tracking import TAG_LENGTH, clipped, keep_uri, process_tags, uri_of

OWN = {"data": {"_target_": "besom.data.npz"}, "model": {"_target_": "besom.model.cnn"}}


@pytest.mark.parametrize(
    ("group", "target", "allow", "message"),
    [
        ("model", "mine.build", [], "built by 'mine.build'.*give --allow mine"),
        ("data", "os.system", ["mine"], "built by 'os.system'.*give --allow os"),
        (
            "data",
            "besom.sweep.study.delete_study",
            [],
            "built by 'besom.sweep.study.delete_study'; expected besom.data.mnist_5k",
        ),
        ("data", "besom.sweep.study.delete_study", ["besom"], "built by 'besom.sweep.study.delete_study'"),
        ("model", "besomx.build", [], "give --allow besomx"),
    ],
)
def test_a_stored_config_imports_nothing_that_nobody_allowed(
    group: str, target: str, allow: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        refuse_foreign_targets({**OWN, group: {"_target_": target}}, allow)


@pytest.mark.parametrize(
    ("content", "allow"), [(OWN, []), ({**OWN, "model": {"_target_": "mine.build"}}, ["mine"])], ids=["own", "allowed"]
)
def test_besoms_own_and_allowed_targets_are_trusted(content: dict[str, Any], allow: list[str]) -> None:
    refuse_foreign_targets(content, allow)


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret.npz", "~/secret.npz", "inside/../../secret.npz"])
def test_a_path_outside_is_refused_where_it_came_off_a_server(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/root")
    with pytest.raises(ConfigError, match=r"comes from elsewhere, lies outside .*--data-path"):
        refuse_path_outside({"data": {"path": path}})


@pytest.mark.parametrize("path", [None, "mine.npz", "./data/mine.npz"])
def test_a_path_inside_the_project_is_not(path: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refuse_path_outside({"data": {"path": path}})


BEFORE: dict[str, Any] = {
    "data": "d" * 64,
    "code": "c" * 64,
    "config": "f" * 64,
    "packages": {"numpy": "2.4.6", "keras": "3.15.1"},
    "onednn": {"TF_ENABLE_ONEDNN_OPTS": "1"},
    "threads": 1,
    "steps_per_execution": 25,
    "cpu": {"model": "a", "flags": ["avx2", "fma"], "limits": {}},
    "seed": {"train": 0, "split": 0},
    "split": "s" * 64,
    "sources": {"besom/model.py": "1" * 64, "mine.py": "2" * 64},
    "commit": "abc",
}
PARAMS = {"train.learning_rate": "0.001", "train.epochs": "3", "train.threads": "1"}

FOUND: dict[str, tuple[dict[str, Any], dict[str, str], list[tuple[str, str, Any, Any]]]] = {
    "nothing": ({}, {}, []),
    "the commit is no cause": ({"commit": "def"}, {}, []),
    "the data": ({"data": "0" * 64}, {}, [("data", "", "dddddddddddd…", "000000000000…")]),
    "a file": (
        {"code": "0" * 64, "sources": {"besom/model.py": "1" * 64, "mine.py": "3" * 64}},
        {},
        [("code", "mine.py", "222222222222…", "333333333333…")],
    ),
    "a file that is gone": (
        {"code": "0" * 64, "sources": {"besom/model.py": "1" * 64}},
        {},
        [("code", "mine.py", "222222222222…", None)],
    ),
    "the code, nobody knows which file": ({"code": "0" * 64}, {}, [("code", "", "cccccccccccc…", "000000000000…")]),
    "a key": (
        {"config": "0" * 64},
        {"train.learning_rate": "0.01"},
        [("config", "train.learning_rate", "0.001", "0.01")],
    ),
    "a package": (
        {"packages": {"numpy": "2.4.7", "keras": "3.15.1"}},
        {},
        [("packages", "numpy", "2.4.6", "2.4.7")],
    ),
    "oneDNN": (
        {"onednn": {"TF_ENABLE_ONEDNN_OPTS": "0"}},
        {},
        [("onednn", "TF_ENABLE_ONEDNN_OPTS", "1", "0")],
    ),
    "threads": ({"threads": 2}, {"train.threads": "2"}, [("threads", "", 1, 2)]),
    "an instruction set": (
        {"cpu": {"model": "a", "flags": ["avx2", "avx512f", "fma"], "limits": {}}},
        {},
        [("cpu", "flags.avx512f", None, True)],
    ),
    "a limit": (
        {"cpu": {"model": "a", "flags": ["avx2", "fma"], "limits": {"ONEDNN_MAX_CPU_ISA": "SSE41"}}},
        {},
        [("cpu", "limits.ONEDNN_MAX_CPU_ISA", None, "SSE41")],
    ),
    "a seed": ({"seed": {"train": 1, "split": 0}}, {}, [("seed", "train", 0, 1)]),
    "a split that follows from its seed": (
        {"seed": {"train": 0, "split": 1}, "split": "0" * 64},
        {},
        [("seed", "split", 0, 1)],
    ),
    "a split by itself": ({"split": "0" * 64}, {}, [("split", "", "s" * 64, "000000000000…")]),
}


@pytest.mark.parametrize("what", FOUND)
def test_each_difference_is_named_down_to_its_key(what: str) -> None:
    changes, params, expected = FOUND[what]
    found = differences(Circumstances(BEFORE, PARAMS), Circumstances({**BEFORE, **changes}, {**PARAMS, **params}))
    assert found == [Difference(*one) for one in expected]
    assert first_cause(found) == (expected[0][0] if expected else None)


def test_a_fingerprint_of_another_shape_is_compared_as_far_as_it_goes() -> None:
    found = differences(Circumstances(BEFORE, PARAMS), Circumstances({**BEFORE, "cpu": "a", "seed": None}, PARAMS))
    assert {one.part for one in found} == {"cpu", "seed"}


def test_nothing_differs_from_what_is_not_known() -> None:
    assert differences(Circumstances({}, PARAMS), Circumstances(BEFORE, PARAMS)) == []


HASHES = {"weights_sha256": "w", "history_sha256": "h", "predictions_sha256": "p"}
HISTORY = {"val_accuracy": [0.5, 0.9], "val_loss": [1.0, 0.5]}


def original(state: str = "COMPLETE", reason: str | None = None, *copies: dict[str, str]) -> Original:
    hashes = copies or ((HASHES,) if state == "COMPLETE" else ())
    return Original("first", state, reason, hashes, HISTORY, BEFORE, PARAMS)


def rerun(
    state: str = "COMPLETE", reason: str | None = None, history: dict[str, list[float]] | None = None, **facts: Any
) -> Rerun:
    values = [0.9] if state == "COMPLETE" else []
    result = TrialResult(-1, state, values, reason, {"n_val": 500, **HASHES, **facts})
    return Rerun("second", result, HISTORY if history is None else history)


LATER = {"val_accuracy": [0.5, 0.905], "val_loss": [1.0, 0.5]}
WORSE = {"val_accuracy": [0.4, 0.7], "val_loss": [1.0, 0.5]}
VERDICTS: list[tuple[Original, Rerun, str, list[str], int | None]] = [
    (original(), rerun(), "bit-identical", [], None),
    (original(), rerun(weights_sha256="x"), "same-predictions", ["weights"], None),
    (original(), rerun(history=LATER, history_sha256="x"), "same-predictions", ["history"], 1),
    (
        *(original(), rerun(history=LATER, history_sha256="x", predictions_sha256="x", weights_sha256="x")),
        *("within-noise", ["weights", "history", "predictions"], 1),
    ),
    (
        *(original(), rerun(history=WORSE, history_sha256="x", predictions_sha256="x", weights_sha256="x")),
        *("different", ["weights", "history", "predictions"], 0),
    ),
    (
        original("COMPLETE", None, HASHES, {**HASHES, "weights_sha256": "x"}),
        *(rerun(), "same-predictions", ["weights"], None),
    ),
    (original("PRUNED"), rerun("PRUNED"), "bit-identical", [], None),
    (original("PRUNED"), rerun("PRUNED", history=LATER), "within-noise", ["history"], 1),
    (original("PRUNED"), rerun(), "different", ["state"], None),
    (original("FAIL", "NonFinite: nan"), rerun("FAIL", "NonFinite: nan"), "bit-identical", [], None),
    (original("FAIL", "NonFinite: nan"), rerun("FAIL", "OSError: no"), "different", ["reason"], None),
    (original("FAIL", "OSError: no"), rerun(), "different", ["state", "reason"], None),
    (original("FAIL", clipped("x" * 9000, TAG_LENGTH)), rerun("FAIL", "x" * 9000), "bit-identical", [], None),
    (
        *(original(), rerun("FAIL", "OSError: no", {}, weights_sha256=None, history_sha256=None)),
        *("different", ["weights", "history"], 0),
    ),
]


@pytest.mark.parametrize(("before", "again", "verdict", "differs", "epoch"), VERDICTS)
def test_the_verdict_is_the_best_that_is_true(
    before: Original, again: Rerun, verdict: str, differs: list[str], epoch: int | None
) -> None:
    cause = Difference("threads", "", 1, 2)
    found = judged(before, again, [cause])
    assert (found.verdict, found.differs, found.first_epoch) == (verdict, differs, epoch)
    assert found.cause == ("threads" if differs else None)
    assert ("threads: 1 → 2" in found.sentence()) is bool(differs)
    assert found.to_json()["differences"] == [{"part": "threads", "key": "", "original": 1, "now": 2}]


def test_a_rerun_that_died_blames_nobody() -> None:
    found = judged(original(), rerun("FAIL", "the lane was killed by SIGKILL", {}, weights_sha256=None), [])
    assert "did not come to its end; it ended FAIL: the lane was killed" in found.sentence()


@pytest.mark.parametrize(
    ("change", "dead"),
    [
        ({}, False),
        ({"process_start": "1.0", "process_boot": ""}, True),  # of an earlier besom
        ({"process_start": "1.0"}, False),  # the clock of the machine was set
        ({"process_boot": "another/1"}, True),
        ({"pid": "99999999"}, True),
        ({"host": "elsewhere", "pid": "99999999"}, False),
        ({"pid": "x"}, False),
        ({"pid": "-5"}, True),
        ({"pid": "9" * 30}, True),
        ({"pid": None}, False),
        ({"pid": []}, False),
        ({"pid": math.inf}, False),
        ({"pid": "99999999", "process_namespace": "pid:[1]"}, False),  # of another container of this host's name
        ({"pid": "99999999", "process_namespace": ""}, True),  # of an earlier besom
        ({"process_namespace": "pid:[1]", "process_boot": "another/1"}, True),
    ],
)
def test_only_a_process_of_this_host_can_be_known_to_be_dead(change: dict[str, Any], dead: bool) -> None:
    assert is_dead({**process_tags(), **change}) is dead


def test_a_fingerprint_cannot_forge_a_line_on_the_terminal() -> None:
    evil = Difference("packages", "a\nbesom: bit-identical\x1b[2J", "1\n2", "2")
    assert str(evil).isprintable()


def test_a_difference_without_a_known_cause_says_so() -> None:
    found = judged(original(), rerun(weights_sha256="x"), [])
    assert found.cause is None
    assert "a stored hash may have been changed" in found.sentence()
    assert worst([found, judged(original(), rerun(), [])]) == "same-predictions"


@pytest.mark.parametrize(
    ("one", "other", "epoch"),
    [
        ({"a": [1.0, 2.0]}, {"a": [1.0, 2.0]}, None),
        ({"a": [1.0, 2.0]}, {"a": [1.0, 3.0]}, 1),
        ({"a": [1.0], "b": [5.0]}, {"a": [1.0], "b": [6.0]}, 0),
        ({"a": [1.0, 2.0]}, {"a": [1.0]}, 1),
        ({"a": [1.0]}, {"a": [1.0], "b": [1.0]}, 0),
        ({"a": [math.nan]}, {"a": [math.nan]}, None),
        ({"a": [math.nan]}, {"a": [1.0]}, 0),
        ({}, {}, None),
    ],
)
def test_the_first_epoch_that_differs(
    one: dict[str, list[float]], other: dict[str, list[float]], epoch: int | None
) -> None:
    assert first_difference(one, other) == first_difference(other, one) == epoch


@pytest.mark.parametrize(
    ("first", "second", "n_val", "noise"), [(0.95, 0.95, 500, True), (0.95, 0.94, 500, True), (0.95, 0.90, 500, False)]
)
def test_noise_is_two_standard_errors_of_a_difference(first: float, second: float, n_val: int, noise: bool) -> None:
    assert within_noise({"val_accuracy": [0.1, first]}, {"val_accuracy": [second]}, n_val) is noise


def test_readers_look_where_a_sweep_was_told_to_record(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    elsewhere = f"sqlite:///{tmp_path}/other.db"
    assert uri_of(store, "s", {}) == store.mlflow_uri
    keep_uri(store, "s", elsewhere)
    assert uri_of(store, "s", {"MLFLOW_TRACKING_URI": "http://server"}) == elsewhere
    assert uri_of(store, "t", {"MLFLOW_TRACKING_URI": "http://server"}) == "http://server"
    keep_uri(store, "s", None)
    assert uri_of(store, "s", {}) == store.mlflow_uri


@pytest.mark.parametrize("folder", ["a%20b", "what?"])
def test_a_store_in_a_folder_that_a_database_url_misreads_is_refused(tmp_path: Path, folder: str) -> None:
    with pytest.raises(ConfigError, match="which a database's URL reads otherwise"):
        Store.at(tmp_path / folder)
