"""What the charts of a sweep show, and that both drawings of them are what their libraries take."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import optuna
import pytest
from PIL import Image
from stored import store_in, study_in, trial

from besom.compare import cost_views, importances, search_views
from besom.compare.charts import Chart, ParallelChart
from besom.compare.interactive import figure, log_ticks_between
from besom.compare.still import picture
from besom.compare.trials import SweepTrials, spans
from besom.compare.views import charts_of

ACTIVATIONS = ("relu", "swish", "tanh")
SLUGS = [
    "history",
    "importances",
    "slice",
    "parallel_coordinates",
    "pareto_front",
    "learning_curves",
    "timeline",
]


def study_of(n: int, folder: Path, direction: str = "maximize") -> optuna.Study:
    """A sweep in which the filters matter most, then the activation, and the learning rate not at all."""
    sign = 1 if direction == "maximize" else -1
    study = study_in(store_in(folder), directions=[direction], total=n)
    study.set_user_attr("settings", {"train.objective": "val_accuracy" if sign > 0 else "val_loss"})
    for number in range(n):
        filters, activation = 1 + 7 * number % 64, ACTIVATIONS[number % 3]
        value = 0.9 + sign * (filters / 1000 + (0.008 if activation == "relu" else 0.0))
        params = {
            "model.activation": activation,
            "model.conv.0.filters": filters,
            "train.learning_rate": 10 ** (-1 - number * 0.37 % 4),
        }
        is_pruned = number % 5 == 4
        study.add_trial(
            trial(
                "pruned" if is_pruned else "complete",
                [] if is_pruned else [value],
                params,
                reports=[value - sign * 0.02] if is_pruned else [value - sign * 0.02, value],
                seconds=8,
                ago=5 * (n - number),
                n_params=1000 * filters,
                n_val=500,
                **({"enqueued": 0} if number == 0 else {}),
            )
        )
    return study


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> SweepTrials:
    return SweepTrials.of(study_of(30, tmp_path_factory.mktemp("charts")))


@pytest.fixture(scope="module")
def charts(trials: SweepTrials) -> list[Chart]:
    return charts_of(trials, importances.of(trials))


def chart_named(charts: list[Chart], slug: str) -> Chart:
    return next(chart for chart in charts if chart.slug == slug)


def test_a_sweep_has_all_charts(charts: list[Chart]) -> None:
    assert [chart.slug for chart in charts] == SLUGS


@pytest.mark.parametrize("slug", SLUGS)
def test_plotly_takes_every_figure_as_valid(charts: list[Chart], slug: str) -> None:
    import plotly.graph_objects as go

    made = figure(chart_named(charts, slug))
    json.dumps(made, allow_nan=False)
    assert len(go.Figure(made).data) == len(made["data"]) > 0


@pytest.mark.parametrize("slug", SLUGS)
def test_every_picture_is_a_png_that_shows_something(charts: list[Chart], slug: str) -> None:
    image = Image.open(io.BytesIO(picture(chart_named(charts, slug)))).convert("RGB")
    assert image.width == 1034
    assert len(image.getcolors(1 << 20) or []) > 20


def test_the_line_of_the_history_never_gets_worse(charts: list[Chart], trials: SweepTrials) -> None:
    best, complete, pruned = chart_named(charts, "history").panels[0].series
    assert list(best.y) == sorted(best.y)
    assert best.y[-1] == trials.ranked[0].values[0] == max(complete.y)
    assert [*complete.x] == [trial.number for trial in trials.complete]
    assert [*pruned.x] == [trial.number for trial in trials.pruned]


def test_the_parameter_that_matters_most_comes_first(trials: SweepTrials) -> None:
    shares = importances.of(trials)
    assert list(shares)[:2] == ["model.conv.0.filters", "model.activation"]
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["train.learning_rate"] < 0.1


def test_no_trial_of_the_front_is_beaten_by_a_smaller_one(trials: SweepTrials) -> None:
    front = cost_views.front_of(trials)
    assert front[-1] is trials.ranked[0]
    sizes = [one.user_attrs["n_params"] for one in front]
    assert sizes == sorted(set(sizes))
    for one in front:
        rivals = [two for two in trials.complete if two.user_attrs["n_params"] <= one.user_attrs["n_params"]]
        assert max(two.values[0] for two in rivals) == one.values[0]


def test_each_curve_is_interrupted_before_the_next(charts: list[Chart], trials: SweepTrials) -> None:
    chart = chart_named(charts, "learning_curves")
    complete, pruned, best = chart.panels[0].series
    assert sum(map(math.isnan, complete.x)) == len(trials.complete) - 1  # the best has a line of its own
    assert sum(map(math.isnan, pruned.x)) == len(trials.pruned)
    assert [*best.y[:-1]] == [*trials.ranked[0].intermediate_values.values()]
    assert f"trial {trials.ranked[0].number}, the best" == best.name


def test_a_parallel_chart_ends_at_the_objective_and_draws_the_best_last(
    charts: list[Chart], trials: SweepTrials
) -> None:
    chart = chart_named(charts, "parallel_coordinates")
    assert isinstance(chart, ParallelChart)
    titles = [coordinate.axis.title for coordinate in chart.coordinates]
    assert titles == ["activation", "conv.0.filters", "learning_rate", "n_params", "val_accuracy"]
    assert chart.coordinates[-1].values[-1] == trials.ranked[0].values[0]
    assert chart.coordinates[0].axis.ticks == {0.0: "relu", 1.0: "swish", 2.0: "tanh"}


def test_two_trials_at_once_are_two_lanes_and_a_pause_is_left_out(tmp_path: Path) -> None:
    study = study_in(store_in(tmp_path))
    for seconds, ago in ((10, 3600), (10, 3595), (10, 0)):
        study.add_trial(trial("complete", [0.5], seconds=seconds, ago=ago))
    found = spans(SweepTrials.of(study).ended)
    assert [span.lane for span in found] == [0, 1, 0]
    assert [round(span.start) for span in found] == [0, 5, 15]
    assert [round(span.end) for span in found] == [10, 15, 25]


def test_a_loss_is_better_when_it_is_smaller(tmp_path: Path) -> None:
    trials = SweepTrials.of(study_of(12, tmp_path, "minimize"))
    chart = search_views.history(trials)
    assert chart is not None
    line = chart.panels[0].series[0].y
    assert list(line) == sorted(line, reverse=True)
    assert trials.ranked[0].values[0] == min(one.values[0] for one in trials.complete)
    assert [*map(figure, charts_of(trials, importances.of(trials)))]


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_trials_give_few_charts_and_no_error(tmp_path: Path, n: int) -> None:
    trials = SweepTrials.of(study_of(n, tmp_path))
    made = charts_of(trials, importances.of(trials))
    assert "importances" not in [chart.slug for chart in made]
    assert bool(made) == bool(n)
    for chart in made:
        assert figure(chart)
        assert picture(chart)


def test_a_sweep_of_failures_only_has_a_timeline(tmp_path: Path) -> None:
    study = study_in(store_in(tmp_path))
    study.add_trial(trial("failed", seconds=3, reason="boom"))
    assert [chart.slug for chart in charts_of(SweepTrials.of(study), {})] == ["timeline"]


def test_what_plotly_takes_for_markup_is_text(tmp_path: Path) -> None:
    study = study_in(store_in(tmp_path))
    hostile = '<a href="javascript:alert(1)">x</a>'
    distribution = optuna.distributions.CategoricalDistribution((hostile, "b"))
    for value, text in ((0.1, hostile), (0.2, "b")):
        made = trial("complete", [value], seconds=1, n_params=5)
        made.distributions, made.params = {"model.activation": distribution}, {"model.activation": text}
        study.add_trial(made)
    trials = SweepTrials.of(study)
    for chart in charts_of(trials, {}):
        assert "<a" not in json.dumps(figure(chart))


def test_what_a_trial_lacks_has_a_place_of_its_own(tmp_path: Path) -> None:
    study = study_in(store_in(tmp_path))
    for number, (filters, activation) in enumerate([(8, None), (None, "relu"), (64, "tanh")]):
        params = {"model.conv.0.filters": filters, "model.activation": activation}
        study.add_trial(
            trial("complete", [number / 10], {key: value for key, value in params.items() if value}, seconds=1)
        )
    chart = search_views.parallel_coordinates(SweepTrials.of(study))
    assert isinstance(chart, ParallelChart)
    filters, activation, value = chart.coordinates
    assert filters.axis.title == "conv.0.filters (lowest: none)"
    place = dict(zip(value.values, filters.values, strict=True))
    assert (place[0.0], place[0.2]) == (8, 64)
    assert place[0.1] < 8
    assert activation.axis.ticks == {0.0: "-", 1.0: "relu", 2.0: "tanh"}
    assert dict(zip(value.values, activation.values, strict=True)) == {0.0: 0.0, 0.1: 1.0, 0.2: 2.0}
    assert all(math.isfinite(one) for coordinate in chart.coordinates for one in coordinate.values)


@pytest.mark.parametrize(
    ("ends", "texts"),
    [
        ((2.0, 4.0), ["100", "200", "500", "1,000", "2,000", "5,000", "10,000"]),
        ((-3.0, -2.0), ["0.001", "0.002", "0.005", "0.01"]),
        ((5.1, 5.2), ["125,893", "158,489"]),
        ((3.0, 3.0), ["1,000"]),
    ],
)
def test_a_logarithmic_axis_has_round_numbers(ends: tuple[float, float], texts: list[str]) -> None:
    assert log_ticks_between(ends)[1] == texts
