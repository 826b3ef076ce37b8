"""What a person sees while a sweep runs: how much is left, what runs, what is best; and what looking costs."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import datetime, timedelta

import optuna
import pytest
from rich.console import Console

from besom.options import SAMPLERS
from besom.results import TrialResult
from besom.search.search import Search
from besom.search.space import parse
from besom.sweep import progress
from besom.sweep.pace import duration_text, most_at_once, ran_seconds, seconds_left
from besom.sweep.progress import LiveView
from besom.sweep.standing import RunningTrial, Standing
from besom.sweep.study import SweepStudy
from besom.sweep.tally import Counts
from besom.sweep.view import picture, sentence

SPACE, _ = parse({"model.conv.0.filters": "choice(1,2,3,4)", "model.conv.1.filters": "choice(1,2,3,4)"})


@pytest.mark.parametrize(
    ("ended", "running", "unstarted", "lanes", "seconds"),
    [
        ([], [1.0, 2.0], 5, 2, None),
        ([0.0, 0.0], [1.0], 5, 1, None),
        ([10.0], [], 3, 0, None),
        ([10.0], [], 0, 1, 0.0),
        ([10.0], [0.0], 0, 1, 10.0),
        ([10.0], [4.0], 2, 1, 26.0),
        ([10.0], [0.0, 0.0], 4, 2, 30.0),
        ([10.0], [0.0], 5, 2, 30.0),
        ([10.0], [0.0, 9.0], 0, 2, 10.0),
        ([10.0], [25.0], 0, 1, 0.0),
        ([10.0, 0.0], [0.0], 4, 1, 30.0),
    ],
    ids=[
        *("nothing ended", "nothing was run", "nobody runs it", "all is done", "the last one", "one lane", "two lanes"),
        *("a lane between two trials", "the slower of two lanes", "later than usual", "half of them are not run"),
    ],
)
def test_what_is_left_goes_over_the_lanes(
    ended: list[float], running: list[float], unstarted: int, lanes: int, seconds: float | None
) -> None:
    assert seconds_left(ended, running, unstarted, lanes) == seconds


@pytest.mark.parametrize(
    ("seconds", "ran", "at_once"),
    [
        ([], 0, 0),
        ([(0, 5)], 5, 1),
        ([(0, 5), (3, 8)], 8, 2),
        ([(3, 4), (0, 5)], 5, 2),
        ([(10, 12), (0, 5)], 7, 1),
        ([(0, 5), (5, 7), (1, 6)], 7, 2),
    ],
    ids=["none", "one", "two that overlap", "one in another", "a pause", "one after another"],
)
def test_a_sweep_ran_while_any_trial_did_and_has_as_many_lanes_as_ran_at_once(
    seconds: list[tuple[int, int]], ran: float, at_once: int
) -> None:
    start = datetime(2026, 1, 1)
    spans = [(start + timedelta(seconds=one), start + timedelta(seconds=other)) for one, other in seconds]
    assert ran_seconds(spans) == ran
    assert most_at_once(spans) == at_once


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0:00"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03")])
def test_times_are_read_as_on_a_clock(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def standing(n_running: int = 2, total: int | None = 12) -> Standing:
    running = [RunningTrial(3 + place, f"conv.0.filters={place}", 7.0, 1, 0.91234) for place in range(n_running)]
    best = optuna.create_study(direction="maximize")
    best.add_trial(optuna.trial.create_trial(value=0.95, params={}, distributions={}))
    return Standing(Counts(3, 1, 0, n_running), total, best.trials, running, 83.0, [10.0, 12.0], n_running)


def drawn(one: Standing, height: int = 24, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    with console.capture() as capture:
        console.print(picture(one, height))
    return capture.get().rstrip("\n").split("\n")


def test_the_picture_has_what_runs_a_bar_the_counts_and_the_best() -> None:
    lines = drawn(standing())
    assert lines[0].split() == ["running", "epoch", "value", "time", "point"]
    assert lines[1].split() == ["3", "2", "0.9123", "0:07", "conv.0.filters=0"]
    assert "4/12  1:23 elapsed, about 0:37 left" in lines[3]
    assert lines[4].strip() == "3 complete, 1 pruned, 0 failed"
    assert lines[5].startswith("best 0.9500, trial 0")


def test_a_picture_without_a_total_tells_no_time_left_and_draws_no_bar() -> None:
    assert drawn(standing(total=None))[3].strip() == "4 trials  1:23 elapsed"


@pytest.mark.parametrize("height", [8, 24])
def test_a_picture_of_many_lanes_fits_its_terminal(height: int) -> None:
    lines = drawn(standing(n_running=64), height=height)
    assert len(lines) < height
    assert f"and {64 - (height - 6)} more" in "\n".join(lines)
    assert lines[-1].startswith("best")


def test_in_a_narrow_terminal_only_the_points_are_cut() -> None:
    one = standing()
    long = replace(one, running=[replace(trial, point=trial.point * 9) for trial in one.running])
    lines = drawn(long, width=50)
    assert max(map(len, lines)) <= 50
    assert lines[0].split() == ["running", "epoch", "value", "time", "point"]
    assert lines[1].split()[:4] == ["3", "2", "0.9123", "0:07"]
    assert lines[1].endswith("…")


def test_a_trial_that_takes_longer_than_the_others_has_no_time_left() -> None:
    late = replace(standing(n_running=1), total=5)
    assert "left" in sentence(late)
    assert "left" not in sentence(replace(late, running=[replace(late.running[0], seconds=60.0)]))


def test_a_sentence_says_the_same_on_one_line() -> None:
    assert sentence(standing()) == (
        "4/12 (3 complete, 1 pruned, 0 failed); trial 3 epoch 2 0.9123; trial 4 epoch 2 0.9123; "
        "best 0.9500, trial 0; 1:23 elapsed, about 0:37 left"
    )


class Clock:
    """Stands in for the ``time`` that the live view reads."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Shown:
    """A live view on a terminal that is a string, over a study in memory."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.study = SweepStudy(
            None, "toy", Search(["maximize"], SPACE, SAMPLERS["random"]), {}, optuna.pruners.NopPruner()
        )
        self.console = Console(file=io.StringIO(), width=100, height=24, force_terminal=True, color_system=None)
        self.view = LiveView(self.study, 6, self.console)

    def start(self) -> int:
        asked = self.study.ask(seed=1)
        assert asked is not None
        self.view.started(asked)
        return asked.number

    def finish(self, number: int, value: float) -> None:
        result = TrialResult(number, "COMPLETE", [value])
        self.study.finish(result)
        self.view.ended(result)

    def after(self, seconds: float) -> str:
        """Let time pass and return what is drawn then; '' where nothing is."""
        self.clock.now += seconds
        stream = self.console.file
        assert isinstance(stream, io.StringIO)
        stream.truncate(0)
        stream.seek(0)
        self.view.tick()
        return stream.getvalue()


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return Shown(clock)


def test_the_live_view_follows_a_trial_from_its_start_to_its_end(shown: Shown) -> None:
    with shown.view:
        number = shown.start()
        first = shown.after(2)
        assert "0/6  0:02 elapsed\n" in first.replace(" \n", "\n")
        assert "left" not in first
        shown.view.reported(number, 4, 0.5)
        assert " 5  0.5000  0:03" in shown.after(1)
        shown.start()
        shown.finish(number, 0.75)
        picture = shown.after(1)
        assert "1/6  0:04 elapsed, about 0:07 left" in picture
        assert f"best 0.7500, trial {number}: conv.0.filters=" in picture
        assert "1 complete, 0 pruned, 0 failed" in picture


def test_a_lost_trial_is_no_longer_shown_and_says_nothing_about_time(shown: Shown) -> None:
    with shown.view:
        number = shown.start()
        shown.after(1)
        shown.study.lose(number, "lane_died", "killed", retries=1)
        shown.view.lost(number, "killed; its point is tried again")
        picture = shown.after(1)
        assert "running" not in picture
        assert "left" not in picture


def test_drawing_waits_for_news_and_for_a_quarter_of_a_second(shown: Shown) -> None:
    with shown.view:
        number = shown.start()
        assert shown.after(0.01)
        assert shown.after(0.5) == ""
        shown.view.reported(number, 0, 0.5)
        assert shown.after(0.01)
        shown.view.reported(number, 1, 0.5)
        assert shown.after(0.2) == ""
        assert shown.after(0.1)
        assert shown.after(0.9) == ""
        assert shown.after(0.2)
