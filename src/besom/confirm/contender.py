"""One configuration that is trained again with new seeds, and what tells its trainings from all others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from besom.compare.catalog import StoredRun
from besom.errors import ConfigError, DataError

IDENTITY = ("data", "split", "code", "config", "threads", "steps_per_execution")
"""The parts of a fingerprint that, with the seed, name a training; packages and CPU only round it otherwise."""


@dataclass(frozen=True)
class Contender:
    """A trial of the sweep, or its base config.

    Args:
        content: the trusted config.
        identity: the same for two configs that differ in nothing but ``train.seed``.
        home: the trial's run; of a base config that was no trial the best trial's, beside which its runs are recorded.
        number: of the trial, None of a base config that was none.
        sweep_value: the objective that the sweep knows it by.
        is_baseline: whether it is the base config.
    """

    content: Mapping[str, Any]
    identity: str
    home: StoredRun
    number: int | None
    sweep_value: float | None
    is_baseline: bool = False

    @property
    def label(self) -> str:
        """What sentences and tables call it."""
        if self.number is None:
            return "the baseline"
        return f"the baseline (trial {self.number})" if self.is_baseline else f"trial {self.number}"

    @property
    def run_id(self) -> str | None:
        """The trial's run, None of a base config that was no trial."""
        return None if self.number is None else self.home.run_id

    @property
    def seed(self) -> int:
        return int(self.content["train"]["seed"])

    @property
    def threads(self) -> int:
        return int(self.content["train"]["threads"])

    def with_seed(self, seed: int) -> dict[str, Any]:
        """Return the config with another ``train.seed``; the split has a seed of its own, which stays."""
        return {**self.content, "train": {**self.content["train"], "seed": seed}}


def identity_of(found: Mapping[str, Any]) -> str:
    """Return what a training is known by, from its fingerprint."""
    parts = {part: found[part] for part in IDENTITY}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def refuse_other_data(run: StoredRun, found: Mapping[str, Any]) -> None:
    """Raise where a run was trained on other images than its config gives now, or its config is not what it was."""
    if run.tags.get("fingerprint.config") != found["config"]:
        raise ConfigError(
            f"config.yaml of run {run.run_id} is not what it was trained with (fingerprint.config differs); expected "
            f"it as the trial left it: 'besom reproduce {run.run_id}' names the key"
        )
    if changed := [part for part in ("data", "split") if run.tags.get(f"fingerprint.{part}") != found[part]]:
        raise DataError(
            f"the images of run {run.run_id} are no longer those it was trained on (fingerprint.{changed[0]} differs); "
            "expected the same ones as then; --data-path says where they are now"
        )
