"""``hydra.sweeper`` as text and as settings: what is refused, what a resume may change."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from besom.errors import ConfigError, ResumeError, SpaceError, UserError
from besom.hydra_conf import BesomSweeperConf
from besom.sweep.settings import comparable, read, refuse_changes


def fields(**changed: Any) -> dict[str, Any]:
    """Return the fields of ``hydra.sweeper`` as Hydra gives them, two parameters swept."""
    conf = {
        key: value
        for key, value in OmegaConf.structured(BesomSweeperConf).items_ex(resolve=False)
        if key not in ("_target_", "_recursive_", "defaults")
    }
    own = {"params": {"x": "choice(1,2,3)", "y": "range(0,4)"}, "sampler": {"seed": 1}, "pruner": {}}
    return {**conf, "direction": "maximize", **own, **changed}


@pytest.mark.parametrize(
    ("changed", "arguments", "message"),
    [
        ({"params": {}}, [], "the search space is empty"),
        ({"params": {"x": "choice("}}, [], r"cannot search over x='choice\('"),
        ({"params": {"x": "interval(2,1)"}}, [], "cannot search over x="),
        ({}, ["x=choice()"], r"cannot search over x=.choice\(\).: .*empty choice"),
        ({"direction": "up"}, [], "hydra.sweeper.direction='up' is not usable; expected maximize or minimize"),
        ({"direction": []}, [], "expected maximize or minimize, or a list of them"),
        ({"direction": ["maximize", "up"]}, [], "expected maximize or minimize, or a list of them"),
        ({"direction": ["maximize"] * 2, "patience": 3}, [], "patience=3 needs one objective"),
        ({"direction": ["maximize"] * 2, "target_value": 3.0}, [], "target_value=3.0 needs one objective"),
        ({"max_failure_rate": 1.5}, [], "max_failure_rate=1.5 is not a share; expected 0.0 to 1.0"),
        ({"patience": 0}, [], "hydra.sweeper.patience=0 is too small"),
        ({"history": 0}, [], "hydra.sweeper.history=0 is too small"),
        ({"n_trials": 0}, [], "hydra.sweeper.n_trials=0 is too small; expected at least 1"),
        ({"n_jobs": 0}, [], "hydra.sweeper.n_jobs=0 is too small"),
        ({"retries": -1}, [], "hydra.sweeper.retries=-1 is too small"),
        ({"enqueue": [{"x": 9, "y": 1}]}, [], r"enqueue\[0\]: x=9 is outside"),
        ({"enqueue": [{"x": 1, "y": 1}, {"x": 1}]}, [], r"enqueue\[1\] has no y"),
        ({"enqueue": [{"xx": 1}]}, [], r"enqueue\[0\]: the parameter='xx' is not known.*did you mean 'x'"),
        ({"constraints": ["n_params <"]}, [], "n_params <"),
        ({"study_name": "../out"}, [], r"sweep name '../out' cannot be used"),
        ({"params": {"x": "interval(0.0,1.0)"}, "n_trials": None}, [], "the space is infinite"),
    ],
)
def test_wrong_settings_are_refused_with_their_name(
    changed: dict[str, Any], arguments: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read(fields(**changed), arguments)


def test_the_command_line_wins_over_the_file() -> None:
    settings = read(fields(), ["x=choice(7,8)", "y=3", "z=4"])
    assert list(settings.search.space.params) == ["x"]
    assert settings.search.space.size == 2
    assert sorted(settings.fixed) == ["y=3", "z=4"]


@pytest.mark.parametrize(
    ("n_trials", "total"), [(None, 12), (5, 5), (50, 12)], ids=["all points", "fewer", "more than there are"]
)
def test_the_total_is_the_smaller_of_n_trials_and_the_size_of_the_space(n_trials: int | None, total: int) -> None:
    assert read(fields(n_trials=n_trials), []).total == total


MASTER = OmegaConf.create(
    {"train": {"epochs": 5}, "tracking": {"uri": None}, "paths": {"store": "mlruns"}, "hydra": {}}
)


@pytest.mark.parametrize(
    "changed",
    [
        *({"n_trials": 99}, {"timeout": 3.0}, {"n_jobs": 1}, {"storage": "sqlite:///elsewhere.db"}),
        *(
            {"max_failure_rate": 0.5},
            {"fail_fast": True},
            {"trial_timeout": 9.0},
            {"patience": 3},
            {"target_value": 1.0},
        ),
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_resume_takes_what_may_change(changed: dict[str, Any]) -> None:
    refuse_changes("s", comparable(MASTER, fields(), []), comparable(MASTER, fields(**changed), []))


@pytest.mark.parametrize(
    ("changed", "arguments", "line"),
    [
        ({"direction": "minimize"}, [], 'hydra.sweeper.direction: was "maximize", is "minimize"'),
        ({"sampler": {"seed": 2}}, [], "hydra.sweeper.sampler.seed: was 1, is 2"),
        ({"params": {"x": "choice(1,2,3)"}}, [], 'hydra.sweeper.params.y: was "range(0,4)", is absent'),
        ({}, ["y=range(0,5)"], 'hydra.sweeper.params.y: was "range(0,4)", is "range(0,5)"'),
        ({"retries": 5}, [], "hydra.sweeper.retries: was 2, is 5"),
    ],
)
def test_a_resume_refuses_any_other_change_and_lists_it(
    changed: dict[str, Any], arguments: list[str], line: str
) -> None:
    with pytest.raises(ResumeError) as refused:
        refuse_changes("s", comparable(MASTER, fields(), []), comparable(MASTER, fields(**changed), arguments))
    assert line in str(refused.value)
    assert "start another one with hydra.sweeper.study_name" in str(refused.value)


def test_a_changed_config_leaf_is_refused_but_not_a_path_or_url() -> None:
    own = fields(tracker={"_target_": "besom.tracking.MlflowTracker"})
    before = comparable(MASTER, own, [])
    moved = OmegaConf.merge(MASTER, {"paths": {"store": "elsewhere"}, "tracking": {"uri": "http://x"}})
    assert comparable(moved, own, []) == before  # type: ignore[arg-type]
    assert comparable(moved, fields(), []) != comparable(MASTER, fields(), [])  # type: ignore[arg-type]
    longer = OmegaConf.merge(MASTER, {"train": {"epochs": 6}})
    with pytest.raises(ResumeError, match=r"train\.epochs: was 5, is 6"):
        refuse_changes("s", before, comparable(longer, own, []))  # type: ignore[arg-type]


def test_errors_say_which_kind_of_mistake_it_is() -> None:
    with pytest.raises(SpaceError):
        read(fields(params={}), [])
    with pytest.raises(ConfigError):
        read(fields(direction="up"), [])
