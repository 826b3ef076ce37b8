"""The statistics of `besom confirm` against SciPy's and published numbers; who wins, and in which words."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from besom.compare.catalog import StoredRun
from besom.configs.config import leaves
from besom.confirm.baseline import Unknown, base_content, nested
from besom.confirm.contender import Contender
from besom.confirm.evidence import Evidence
from besom.confirm.openings import Openings, Refused
from besom.confirm.statistics import compare, holm, mean_of, share_of
from besom.confirm.trainings import Ended
from besom.confirm.words import sentence
from besom.paths import Store

SLEEP = (  # hours of sleep that two drugs gave ten people more, Student (1908)
    [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0],
    [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4],
)
ACCURACIES = ([0.962, 0.958, 0.964, 0.956, 0.966], [0.930, 0.934, 0.926, 0.932, 0.928])


def test_a_mean_has_students_interval() -> None:
    for values in (*SLEEP, *ACCURACIES, [0.5, 0.25]):
        found = mean_of(values)
        low, high = stats.t.interval(0.95, len(values) - 1, loc=found.value, scale=stats.sem(values))
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
        assert found.margin == pytest.approx((high - low) / 2)
    assert mean_of([0.5, 0.5]).margin == 0


def test_a_paired_comparison_gives_the_published_numbers_of_students_sleep_data() -> None:
    found = compare(*SLEEP)
    assert (found.difference, found.low, found.high, found.p) == pytest.approx(
        (-1.58, -2.4598858, -0.7001142, 0.00283289), rel=1e-6
    )


@pytest.mark.parametrize(("first", "second"), [SLEEP, ACCURACIES, ([1.0, 2.0], [0.0, 3.5])])
def test_a_paired_comparison_is_scipys(first: list[float], second: list[float]) -> None:
    found, expected = compare(first, second), stats.ttest_rel(first, second)
    interval = expected.confidence_interval(0.95)
    assert (found.p, found.low, found.high) == (expected.pvalue, interval.low, interval.high)
    turned = compare(second, first)
    assert (turned.difference, turned.p) == pytest.approx((-found.difference, found.p))


SAME = {
    "nothing differs": ([0.9, 0.8], [0.9, 0.8], 0.0, 1.0),
    "a float32 apart": ([0.9, 0.8], [0.9 + 1e-8, 0.8], -5e-9, 1.0),
    "by the same amount": ([0.9, 0.8, 0.7], [0.8, 0.7, 0.6], 0.1, 0.25),
    "by the same amount, as float32 says it": ([0.93199998, 0.95200002], [0.93, 0.94999999], 0.002, 0.5),
    "zeros": ([0.0, 0.0], [0.0, 0.0], 0.0, 1.0),
}


@pytest.mark.parametrize("what", SAME)
def test_differences_without_spread_are_judged_by_the_sign_test(what: str) -> None:
    first, second, difference, p = SAME[what]
    found = compare(first, second)
    assert (found.difference, found.low, found.high) == pytest.approx((difference,) * 3, abs=1e-7)
    assert found.p == p


HOLM = [
    ([], []),
    ([0.03], [0.03]),
    ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
    ([0.01, 0.01, 0.04], [0.03, 0.03, 0.04]),
    ([0.02, 0.001, 0.9], [0.04, 0.003, 0.9]),
    ([0.5, 0.6], [1.0, 1.0]),
]


@pytest.mark.parametrize(("given_", "adjusted"), HOLM)
def test_holm_gives_what_one_reckons_by_hand(given_: list[float], adjusted: list[float]) -> None:
    assert holm(given_) == pytest.approx(adjusted)


P_VALUES = st.lists(st.floats(0, 1), max_size=12)


@settings(deadline=None)  # other processes may have the cores
@given(P_VALUES)
def test_adjusted_p_values_keep_their_order_and_lie_between_the_given_ones_and_one(given_: list[float]) -> None:
    adjusted = holm(given_)
    assert all(p <= of_all <= min(1, len(given_) * p) + 1e-12 for p, of_all in zip(given_, adjusted, strict=True))
    in_order = [of_all for _, of_all in sorted(zip(given_, adjusted, strict=True))]
    assert in_order == sorted(adjusted)


@settings(deadline=None)  # other processes may have the cores
@given(P_VALUES, st.randoms())
def test_holm_does_not_mind_the_order_in_which_it_is_given(given_: list[float], random: Any) -> None:
    places = list(range(len(given_)))
    random.shuffle(places)
    adjusted = holm(given_)
    assert holm([given_[place] for place in places]) == [adjusted[place] for place in places]


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_a_share_has_wilsons_interval_as_newcombe_1998_tabulates_it(
    correct: int, n: int, low: float, high: float
) -> None:
    found = share_of(correct, n)
    assert found.value == correct / n
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def contender(name: int | None, *, is_baseline: bool = False, seed: int = 0) -> Contender:
    home = StoredRun("sqlite://", f"run-{name}", "1", {}, "toy", {}, None, Store.at("nowhere"))
    content = {"train": {"seed": seed, "threads": 1}}
    return Contender(content, f"identity-{name}", home, name, None if name is None else 0.9, is_baseline)


def evidence(
    values: dict[int | None, Sequence[float | None]], *, baseline: int | None = None, is_maximized: bool = True
) -> Evidence:
    contenders = [contender(name, is_baseline=name == baseline) for name in values]
    seeds = list(range(1, 1 + len(next(iter(values.values())))))
    ended = {
        (one.identity, seed): Ended(value, None if value is not None else "NonFinite: nan")
        for one, row in zip(contenders, values.values(), strict=True)
        for seed, value in zip(seeds, row, strict=True)
    }
    objective = "val_accuracy" if is_maximized else "val_loss"
    return Evidence.of("toy", objective, contenders, seeds, ended, is_maximized=is_maximized)


GOOD, NEARLY, BAD = ACCURACIES[0], [0.961, 0.960, 0.962, 0.957, 0.963], ACCURACIES[1]


def test_a_clear_winner_beats_all_and_is_told_with_its_numbers() -> None:
    found = evidence({6: GOOD, 3: NEARLY, None: BAD})
    verdicts = {(pair.first.contender.number, pair.second.contender.number): pair.verdict for pair in found.comparisons}
    assert verdicts == {(6, 3): "within noise", (6, None): "beats", (3, None): "beats"}
    mean, other, pair = mean_of(GOOD), mean_of(BAD), compare(GOOD, BAD)
    [of_baseline] = [one for one in found.comparisons if one.second.contender.is_baseline and one.first.good == GOOD]
    assert sentence(found) == (
        f"trial 6 beats the baseline: 0.9612 ± {mean.margin:.4f} against 0.9300 ± {other.margin:.4f}, +3.12 points "
        f"(95 % CI {100 * pair.low:+.2f} to {100 * pair.high:+.2f}), p = {of_baseline.p_holm:.3f} after Holm over "
        "3 comparisons; it is within noise of trial 3"
    )


def test_the_winner_is_the_best_of_the_new_seeds_not_of_the_sweep() -> None:
    found = evidence({6: BAD, 3: GOOD})
    assert found.winner is not None
    assert found.winner.contender.number == 3
    assert [(pair.first.contender.number, pair.verdict) for pair in found.comparisons] == [(3, "beats")]
    assert sentence(found).startswith("trial 3 beats trial 6: ")
    assert "Holm" not in sentence(found)


def test_of_a_loss_the_smaller_wins_and_differences_are_no_points() -> None:
    found = evidence({6: GOOD, 3: BAD}, is_maximized=False)
    assert found.winner is not None
    assert found.winner.contender.number == 3
    assert found.comparisons[0].first.contender.number == 3
    assert ", -0.0312 (95 % CI " in sentence(found)


def test_of_equals_the_sweeps_better_one_wins_and_nothing_beats_it() -> None:
    found = evidence({6: GOOD, 3: GOOD})
    assert found.winner is not None
    assert found.winner.contender.number == 6
    assert (found.comparisons[0].verdict, found.comparisons[0].p_holm) == ("within noise", 1.0)
    assert sentence(found).startswith("within noise: trial 6 and trial 3: ")


def test_a_baseline_that_wins_is_told_so() -> None:
    found = evidence({6: BAD, 0: GOOD}, baseline=0)
    assert found.winner is not None
    assert found.winner.contender.label == "the baseline (trial 0)"
    assert sentence(found).startswith("the baseline (trial 0) beats trial 6: ")


def test_a_contender_that_fails_is_compared_on_the_seeds_that_both_have_and_does_not_win() -> None:
    found = evidence({6: [*GOOD[:4], None], 3: BAD})
    assert found.comparisons[0].paired == compare(GOOD[:4], BAD[:4])
    assert found.winner is not None
    assert found.winner.contender.number == 3
    one = found.scores[0].to_json()
    assert (one["values"][-1], one["mean"]) == (None, mean_of(GOOD[:4]).value)


NOTHING_TO_COMPARE: dict[str, tuple[dict[int | None, Sequence[float | None]], bool]] = {
    "one seed in common": ({6: [0.9, None, 0.9], 3: [None, 0.9, 0.9]}, False),
    "one with values": ({6: [0.9, 0.9], 3: [None, None]}, False),
    "one contender": ({6: [0.9, 0.8]}, True),
    "one contender that fails": ({6: [0.9, None]}, False),
}


@pytest.mark.parametrize("what", NOTHING_TO_COMPARE)
def test_without_two_seeds_in_common_there_is_no_answer_but_of_a_single_contender(what: str) -> None:
    values, is_possible = NOTHING_TO_COMPARE[what]
    found = evidence(values)
    assert (found.comparisons, found.is_possible, found.winner is not None) == ([], is_possible, is_possible)
    told = "compared with none" if is_possible else "too many trainings failed"
    assert told in sentence(found)


@settings(deadline=None)  # the first one waits for SciPy
@given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), min_size=2, max_size=4))
def test_every_two_are_compared_once_the_better_first_and_the_winner_is_never_second(rows: list[list[float]]) -> None:
    found = evidence(dict(enumerate(rows)))
    pairs = {frozenset((pair.first.contender.number, pair.second.contender.number)) for pair in found.comparisons}
    assert pairs == {frozenset(two) for two in itertools.combinations(range(len(rows)), 2)}
    assert len(found.comparisons) == len(pairs)
    assert all(pair.paired.difference >= -1e-12 for pair in found.comparisons)
    assert found.winner is not None
    assert max(sum(row) for row in rows) == pytest.approx(sum(found.winner.good))


BASE: dict[str, Any] = {
    "data": {"_target_": "besom.data.mnist_5k", "path": None, "n_train": 300},
    "model": {"_target_": "besom.model.cnn", "conv": [{"filters": 3}, {"filters": 6}], "dense": 84},
    "train": {"seed": 0},
}
TRIAL = {**BASE, "model": {**BASE["model"], "dense": 16}, "tracking": {"uri": None}, "paths": {"store": "s"}}


def kept_of(*swept: str, **changed: Any) -> dict[str, Any]:
    """Return what a study keeps of a sweep with this base config."""
    kept = {key: value for key, value in leaves(BASE).items() if key != "data.path"}
    own = {f"hydra.sweeper.params.{key}": "choice(1,2)" for key in swept}
    return {**kept, **{key.replace("__", "."): value for key, value in changed.items()}, **own}


def trial_on(target: str, path: str | None) -> dict[str, Any]:
    return {**TRIAL, "data": {**TRIAL["data"], "_target_": target, "path": path}}


@pytest.mark.parametrize("content", [BASE, TRIAL, {"a": {"list": [1, [2, {"b": None}]], "empty": []}}])
def test_a_config_is_made_of_its_leaves_again(content: dict[str, Any]) -> None:
    assert nested(leaves(content)) == content


REBUILT: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "as it was": (kept_of("model.dense"), TRIAL, {}),
    "an interpolation of a swept key": (
        kept_of("model.conv.0.filters", model__dense="${model.conv.1.filters}"), TRIAL, {"model.dense": 6},
    ),
    "a parameter that exists only sometimes": (kept_of("model.conv.1.filters", "model.depth"), TRIAL, {}),
    "what a resolver gave": (kept_of("model.dense", train__note="${oc.env:HOME}"),
                             {**TRIAL, "train": {"seed": 0, "note": "h"}}, {"train.note": "h"}),
    "a file that all trials read": (
        kept_of("model.dense", data___target_="besom.data.npz"), trial_on("besom.data.npz", "mine.npz"),
        {"data._target_": "besom.data.npz", "data.path": "mine.npz"},
    ),
    "a data set that was one of several": (kept_of("data"), trial_on("besom.data.digits", None), {}),
    "an empty mapping of the same builder": (
        kept_of("model.dense"), {**TRIAL, "model": {**TRIAL["model"], "options": {}}}, {"model.options": {}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REBUILT)
def test_the_base_config_comes_out_of_the_study(what: str) -> None:
    stored, trial, changed = REBUILT[what]
    found = leaves(base_content(stored, [trial]))
    expected = {**leaves(BASE), **{"tracking.uri": None, "paths.store": "s"}, **changed}
    assert {"data.path": None, **found} == expected


LOST: dict[str, tuple[dict[str, Any], list[dict[str, Any]], str]] = {
    "nothing kept": ({}, [TRIAL], "the study does not keep it"),
    "a resolver of a swept key": (
        kept_of("model.dense", train__note="${twice:${model.dense}}"), [TRIAL], "train.note is written",
    ),
    "an unknown resolver": (kept_of("model.dense", train__note="${mine:1}"), [TRIAL], "train.note is written"),
    "a resolver in a list": (kept_of(extra__x=["${oc.env:HOME}"]), [TRIAL], "is not a value, and no reference"),
    "a resolver in a mapping": (kept_of(extra__x={"a": "${oc.env:HOME}"}), [TRIAL], "is not a value"),
    "a resolver that is put together": (
        kept_of(extra__x="${${extra.y}:HOME}", extra__y="oc.env"), [TRIAL], "is not a value, and no reference",
    ),
    "a missing value": (kept_of("model.dense", model__dense="???"), [TRIAL], "model.dense"),
    "a path that is swept": (
        kept_of("data.path", data___target_="besom.data.npz"), [TRIAL], "data.path differs from trial to trial",
    ),
    "a file that was one of several": (
        kept_of("data", data___target_="besom.data.npz"), [trial_on("besom.data.npz", "a")], "data.path differs",
    ),
    "trials on two files": (
        kept_of("model.dense", data___target_="besom.data.npz"),
        [trial_on("besom.data.npz", "a"), trial_on("besom.data.npz", "b")], "its trials read 2 different files",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", LOST)
def test_a_base_config_that_is_not_kept_whole_is_not_made_up(what: str) -> None:
    stored, trials, message = LOST[what]
    with pytest.raises(Unknown, match=message):
        base_content(stored, trials)


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return optuna.create_study(storage=f"sqlite:///{tmp_path}/studies.db", study_name="toy")


def test_an_opening_is_in_the_book_before_its_result(study: optuna.Study) -> None:
    book = Openings(study)
    book.begin(6, "run-6", 5)
    [entry] = study.user_attrs["test_openings"]
    assert set(entry) == {
        *("opened_at", "host", "trial", "run_id", "n_seeds", "forced", "accuracy", "correct", "n"),
    }
    assert (entry["trial"], entry["run_id"], entry["n_seeds"], entry["accuracy"]) == (6, "run-6", 5, None)
    assert book.result_of("run-6") is None
    book.refuse_another("run-6")
    with pytest.raises(Refused, match=r"opened for trial 6 on 2\d{3}-.*--open-test-again"):
        book.refuse_another("run-3")


def test_an_opening_that_crashed_is_ended_by_the_next_one_of_the_same_trial(study: optuna.Study) -> None:
    book = Openings(study)
    book.begin(6, "run-6", 5)
    at = book.all[0].opened_at
    Openings(study).begin(6, "run-6", 5)
    found = Openings(study).end("run-6", 478, 500)
    assert [found] == book.all
    assert found.to_json() == {
        **{"accuracy": 0.956, "low": share_of(478, 500).low, "high": share_of(478, 500).high, "n": 500},
        **{"correct": 478, "run_id": "run-6", "opened_at": at, "forced": False},
    }
    assert study.user_attrs["test_openings"][0]["accuracy"] == 0.956


def test_an_opening_for_another_trial_is_forced_and_both_stay_in_the_book(study: optuna.Study) -> None:
    book = Openings(study)
    book.begin(6, "run-6", 5)
    book.end("run-6", 478, 500)
    book.begin(3, "run-3", 5)
    book.end("run-3", 470, 500)
    assert [(one.trial, one.forced, one.correct) for one in book.all] == [(6, False, 478), (3, True, 470)]
    result = book.result_of("run-6")
    assert result is not None
    assert result.correct == 478
