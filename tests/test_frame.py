"""`besom runs`: trials as a DataFrame, chosen, sorted and shown; on stored trials that nobody trained."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import BesomCommand
from stored import store_in, study_in, trial

import besom.app.cli
from besom.compare.columns import column_named
from besom.compare.frame import frame
from besom.compare.selection import Selection, holds
from besom.errors import ConfigError
from besom.paths import Store

FIXED = ["number", "state", "objective", "n_params", "n_macs", "fit_seconds", "run_id", "weights_sha256"]
TRIALS: list[tuple[str, list[float], dict[str, Any], dict[str, Any]]] = [
    ("complete", [0.94], {"model.activation": "swish", "model.conv.0.filters": 3}, {"n_params": 203_068}),
    ("complete", [0.96], {"model.activation": "relu", "model.conv.0.filters": 16}, {"n_params": 777_558}),
    ("pruned", [], {"model.activation": "relu", "model.conv.0.filters": 8}, {"n_params": 250_000}),
    ("failed", [], {"model.activation": "tanh", "model.conv.0.filters": 64}, {"reason": "boom"}),
    ("lane_died", [], {"model.activation": "tanh", "model.conv.0.filters": 4}, {}),
    ("complete", [0.95], {"model.activation": "tanh", "model.conv.0.filters": 4, "model.conv.1.filters": 6},
     {"n_params": 200_000, "n_macs": 1, "fit_seconds": 2.5, "run_id": "abc", "weights_sha256": "f" * 64}),
]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with the sweep `toy`, and with `two`, which has two objectives."""
    store = store_in(tmp_path_factory.mktemp("frame"))
    toy = study_in(store, total=6)
    for outcome, values, params, facts in TRIALS:
        toy.add_trial(trial(outcome, values, params, **facts))
    two = study_in(store, "two", ["maximize", "minimize"])
    for values in ([0.9, 5.0], [0.8, 1.0]):
        two.add_trial(trial("complete", values, {"train.learning_rate": values[1] / 10}))
    two.add_trial(trial("failed", [], {"train.learning_rate": 1.0}))
    study_in(store, "empty")
    return store


@pytest.fixture(scope="module")
def table(store: Store) -> pd.DataFrame:
    return frame(stored(store, "toy"))


def stored(store: Store, name: str) -> Any:
    from besom.compare.catalog import open_study

    return open_study(store, name)


def numbers(store: Store, capsys: pytest.CaptureFixture[str], *args: str, name: str = "toy") -> list[int]:
    """Return the numbers of the trials that ``besom runs`` shows."""
    assert besom.app.cli.run(["runs", name, "--store", str(store.root), "--format", "json", *args]) == 0
    return [row["number"] for row in json.loads(capsys.readouterr().out)["trials"]]


def test_a_frame_has_the_columns_of_runs_each_of_one_kind(table: pd.DataFrame) -> None:
    params = ["model.activation", "model.conv.0.filters", "model.conv.1.filters"]
    assert list(table.columns) == [*FIXED, *params]
    assert list(table["number"]) == [0, 1, 2, 3, 5]
    kinds = [str(kind) for kind in table.dtypes]
    assert kinds == ["int64", "str", "float64", "Int64", "Int64", "float64", "str", "str", "str", "int64", "Int64"]
    assert table["objective"].isna().tolist() == [False, False, True, True, False]
    assert table["n_params"].sum() == 203_068 + 777_558 + 250_000 + 200_000


def test_a_frame_has_lost_attempts_when_asked(store: Store) -> None:
    assert list(frame(stored(store, "toy"), lost_too=True)["number"]) == [0, 1, 2, 3, 4, 5]


def test_several_objectives_are_columns_of_their_own(store: Store) -> None:
    two = frame(stored(store, "two"))
    assert list(two.columns) == ["number", "state", "objective_0", "objective_1", *FIXED[3:], "train.learning_rate"]
    assert two["objective_1"].tolist()[:2] == [5.0, 1.0]
    assert two["objective_1"].isna().tolist() == [False, False, True]


def test_a_frame_of_a_sweep_without_trials_has_its_columns_and_kinds(store: Store) -> None:
    empty = frame(stored(store, "empty"))
    assert (list(empty.columns), len(empty)) == (FIXED, 0)
    assert [str(kind) for kind in empty.dtypes] == [
        *("int64", "str", "float64", "Int64", "Int64", "float64", "str", "str"),
    ]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([True, False], "bool"),
        ([True, None], "boolean"),
        ([1, None], "Int64"),
        ([1, 0.5], "float64"),
        ([2, "none"], "object"),
        ([True, 1], "object"),
        ([[1, 2], None], "object"),
        ([2**70], "object"),
    ],
    ids=str,
)
def test_a_column_is_of_the_narrowest_kind_that_keeps_every_value(values: list[Any], kind: str) -> None:
    from besom.compare.frame import framed

    rows = [{"number": number, "x": value} for number, value in enumerate(values)]
    column = framed(rows, 1)["x"]
    assert str(column.dtype) == kind
    assert [None if value is None else column[number] for number, value in enumerate(values)] == values


FILTERS = {
    "state=COMPLETE": [0, 1, 5],
    "state == complete": [0, 1, 5],
    "state!=COMPLETE": [2, 3],
    "n_params<=200000": [5],
    "n_params <= 203068": [0, 5],
    "n_params<203068": [5],
    "n_params>2.5e5": [1],
    "n_params!=250000": [0, 1, 3, 5],
    "objective>=0.95": [1, 5],
    "objective>=0.94999999": [1, 5],
    "objective<0.95": [0],
    "objective=null": [2, 3],
    "objective!=null": [0, 1, 5],
    "activation=swish": [0],
    "model.activation=Swish": [0],
    "conv.0.filters=16": [1],
    "model.conv.1.filters!=6": [0, 1, 2, 3],
    "weights_sha256!=null": [5],
    "n_macs=7": [],
}


@pytest.mark.parametrize("text", FILTERS)
def test_a_filter_is_a_column_a_sign_and_a_value(text: str, table: pd.DataFrame) -> None:
    assert table[holds(table, text)]["number"].tolist() == FILTERS[text]


def test_truths_words_and_lists_are_filtered_as_they_are_written() -> None:
    mixed = pd.DataFrame({"b": [True, False], "p": pd.Series([2, "none"], dtype=object)})
    lists = pd.DataFrame({"k": pd.Series([[3, 3], [5, 5]], dtype=object)})
    assert holds(mixed, "b=true").tolist() == [True, False]
    assert holds(mixed, "b!=true").tolist() == [False, True]
    assert holds(mixed, "p=2").tolist() == [True, False]
    assert holds(lists, "k=[3,3]").tolist() == holds(lists, "k = [3, 3]").tolist() == [True, False]


WRONG = {
    "n_params": "filter 'n_params' is not understood; expected COLUMN=VALUE",
    "n_params<=many": "compares numbers; expected one such as 200000",
    "activation<swish": "orders model.activation, which holds no numbers; expected = or !=",
    "activatoin=swish": r"no column 'activatoin'; expected one of number, .*; did you mean 'activation'\?",
    "filters=3": "'filters' may be any of model.conv.0.filters, model.conv.1.filters",
    "__import__('os').system('true')": "is not understood",
    "@pd.io=1": "there is no column '@pd.io'",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_filter_that_fits_nothing_is_refused_and_nothing_is_evaluated(text: str, table: pd.DataFrame) -> None:
    with pytest.raises(ConfigError, match=WRONG[text]):
        Selection([text]).of(table, ["maximize"])


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("model.activation", "model.activation"),
        ("activation", "model.activation"),
        ("conv.0.filters", "model.conv.0.filters"),
        ("0.filters", "model.conv.0.filters"),
        ("epochs", "train.epochs"),
    ],
)
def test_a_column_is_known_by_its_name_its_title_and_its_end(name: str, found: str) -> None:
    columns = ["model.activation", "model.conv.0.activation", "model.conv.0.filters", "train.epochs", "x.y.epochs"]
    assert column_named(name, columns) == found


SORTS = {
    "objective": [1, 5, 0, 2, 3],
    "objective --desc": [0, 5, 1, 2, 3],
    "--desc": [5, 3, 2, 1, 0],
    "n_params": [5, 0, 2, 1, 3],
    "activation,objective": [1, 2, 0, 5, 3],
    "n_params --limit 2": [5, 0],
    "objective --filter state=COMPLETE --filter n_params<=300000": [5, 0],
    "conv.1.filters": [5, 0, 1, 2, 3],
}


@pytest.mark.parametrize("args", SORTS)
def test_the_best_comes_first_what_lacks_a_value_last_and_equals_by_number(
    args: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    words = args.split()
    given = words if words[0].startswith("--") else ["--sort", *words]
    assert numbers(store, capsys, *given) == SORTS[args]


def test_each_of_several_objectives_is_sorted_by_its_own_direction(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert numbers(store, capsys, "--sort", "objective_0", name="two") == [0, 1, 2]
    assert numbers(store, capsys, "--sort", "objective_1", name="two") == [1, 0, 2]
    assert besom.app.cli.run(["runs", "two", "--store", str(store.root), "--sort", "objective"]) == 2
    assert "did you mean 'objective_" in capsys.readouterr().err


def runs(store: Store, capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert besom.app.cli.run(["runs", *args, "--store", str(store.root)]) == 0
    return capsys.readouterr().out


def test_json_stays_as_scripts_know_it(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    first, *_, last = json.loads(runs(store, capsys, "toy", "--format", "json"))["trials"]
    assert first == {
        **{"number": 0, "state": "COMPLETE", "objective": 0.94, "n_params": 203_068, "n_macs": None},
        **{"fit_seconds": None, "run_id": None, "weights_sha256": None},
        **{"model.activation": "swish", "model.conv.0.filters": 3},
    }
    assert last["model.conv.1.filters"] == 6
    two = json.loads(runs(store, capsys, "two", "--format", "json"))["trials"]
    assert [row["objective"] for row in two] == [[0.9, 5.0], [0.8, 1.0], None]
    assert "objective_0" not in two[0]


def test_columns_are_those_that_are_named(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--columns", "number,activation,conv.1.filters"]
    found = json.loads(runs(store, capsys, "toy", *chosen, "--format", "json"))["trials"]
    assert found[0] == {"number": 0, "model.activation": "swish", "model.conv.1.filters": None}
    rows = list(csv.reader(io.StringIO(runs(store, capsys, "toy", *chosen, "--format", "csv"))))
    assert rows[:2] == [["number", "model.activation", "model.conv.1.filters"], ["0", "swish", ""]]
    assert runs(store, capsys, "toy", *chosen).splitlines()[0].split() == ["number", "activation", "conv.1.filters"]
    assert runs(store, capsys, "two", "--columns", "objective,objective_1").splitlines()[1].split() == [
        *("[0.9,", "5.0]", "5"),
    ]


def test_a_filter_does_not_change_the_columns(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    every, some = (runs(store, capsys, "toy", *args).splitlines()[0].split() for args in ([], ["--limit", "1"]))
    assert every == some
    assert "activation" in every


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--sort", "objektive"], "did you mean 'objective'"),
        (["--columns", "n_param"], "did you mean 'n_params'"),
        (["--limit", "0"], "'0' is no number from 1"),
        (["--filter", "state"], "expected COLUMN=VALUE"),
    ],
)
def test_what_cannot_be_shown_is_one_line_and_exit_2(
    args: list[str], message: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert besom.app.cli.run(["runs", "toy", "--store", str(store.root), *args]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert message in err


def test_runs_on_the_command_line(store: Store, besom_command: BesomCommand, tmp_path: Path) -> None:
    shown = besom_command(
        *("runs", "toy", "--store", str(store.root), "--sort", "objective", "--filter", "objective>=0.95"),
        cwd=tmp_path,
    )
    assert shown.returncode == 0, shown.stderr
    assert [line.split()[0] for line in shown.stdout.splitlines()] == ["number", "1", "5"]
    assert not list(tmp_path.iterdir())


SECONDS = {"mlflow", "tensorflow", "keras", "plotly", "matplotlib", "sklearn", "hydra", "omegaconf"}


@pytest.mark.parametrize(
    ("args", "heavy"),
    [
        ("runs toy", {*SECONDS, "pandas"}),
        ("runs toy --sort objective", SECONDS),
        ("status toy", {*SECONDS, "pandas"}),
        ("best toy", {*SECONDS, "pandas"}),
    ],
)
def test_looking_imports_nothing_that_takes_seconds(
    args: str, heavy: set[str], store: Store, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "besom", *args.split(), "--store", str(store.root)]
    done = subprocess.run(command, cwd=tmp_path, env=clean_environment, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in re.findall(r"^import time:.*\| +(\S+)$", done.stderr, flags=re.MULTILINE)}
    assert "optuna" in loaded
    assert not heavy & loaded
