"""The sweeps that besom brings: what they choose can be chosen otherwise; and those that the docs show can be run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from optuna.pruners import SuccessiveHalvingPruner

from besom.app.composed import Composed, staged
from besom.app.plan import SweepRequest, planned
from besom.errors import ConfigError
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


ENGINES = Path(__file__).parents[1] / "docs" / "engines.md"
SHOWN = re.findall(r"```yaml\n(# @package.*?)```", ENGINES.read_text(encoding="utf-8"), flags=re.DOTALL)
NAMES = [re.findall(r"hydra/launcher: (\w+)", text)[0] for text in SHOWN]


def test_every_engine_has_a_file_in_the_docs() -> None:
    assert NAMES == ["besom_lanes", "besom_ray", "submitit_slurm", "submitit_local", "joblib", "basic"]


@pytest.mark.parametrize(("name", "text"), list(zip(NAMES, SHOWN, strict=True)), ids=NAMES)
def test_the_file_that_the_docs_show_for_an_engine_is_whole(
    name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(text)
    with planned(SweepRequest("mine.yaml", [], None, False)) as plan:
        assert (plan.launcher, plan.name, plan.settings.total) == (name, "mine", 12)


def test_a_sweep_on_slurm_that_prunes_needs_its_study_in_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    slurm = ["hydra/launcher=submitit_slurm", "hydra/sweeper/pruner=median"]
    with (
        pytest.raises(ConfigError, match="Slurm's nodes cannot write that into a file of SQLite"),
        planned(SweepRequest("quick", slurm, None, False)),
    ):
        pass
    server = "hydra.sweeper.storage=postgresql+psycopg://me@db/studies"
    with planned(SweepRequest("quick", [*slurm, server], None, False)) as plan:
        assert plan.launcher == "submitit_slurm"
