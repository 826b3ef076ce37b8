"""The sweeps that besom brings: what they choose can be chosen otherwise."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf
from optuna.pruners import SuccessiveHalvingPruner

from besom.app.composed import Composed, staged
from besom.options import PRUNERS
from besom.search.pruners import build_pruner

WITHOUT_ARGUMENTS = sorted(set(PRUNERS) - {"threshold"})


def pruner_of(*overrides: str) -> object:
    with staged() as (stage, base):
        config = Composed.of(stage, base, ["sweeps=tpe", *overrides]).config
    return build_pruner(OmegaConf.to_container(config.hydra.sweeper.pruner, resolve=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", WITHOUT_ARGUMENTS)
def test_any_pruner_can_take_the_place_of_a_sweeps_own(name: str) -> None:
    own, other = pruner_of(), pruner_of(f"hydra/sweeper/pruner={name}")
    assert isinstance(own, SuccessiveHalvingPruner)
    assert vars(other) != vars(own)
