"""A config as the doors compose it: the project's with the command line's overrides, and checked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from besom import data
from besom.configs.compose import compose, store_path, values_of_users
from besom.configs.config import leaves, plain, typed
from besom.configs.overrides import is_hydra, is_sweep
from besom.configs.project import Project, Stage
from besom.configs.schema import TrialConfig
from besom.errors import ConfigError, StoreDamaged
from besom.paths import Store, checked_experiment
from besom.search.grammar import override_text
from besom.uris import check_no_password, refuse_secrets


@contextmanager
def staged() -> Iterator[tuple[Stage, Path]]:
    """Stage the project around the working directory; its root becomes importable, for a user's own code."""
    project = Project.around(Path.cwd())
    sys.path.insert(0, str(project.root))
    with project.staged() as stage:
        yield stage, project.root


Completion = Callable[[DictConfig, Store], list[str]]
"""Gives besom's own overrides for a config that was composed from the user's; the user's win."""


@dataclass(frozen=True)
class Composed:
    """A composed config with the overrides that made it, and the store it names, absolute."""

    config: DictConfig
    overrides: list[str]
    store: Store

    @classmethod
    def of(cls, stage: Stage, base: Path, overrides: Sequence[str], complete: Completion | None = None) -> Composed:
        """Compose with the overrides that do not sweep; relative store paths are taken from ``base``."""
        overrides = [text for text in overrides if text != "hydra/sweeper=besom"]  # what it is anyway
        first = compose(stage.folder, _fixed(overrides))
        store = Store.at(store_path(first), base)
        with values_of_users(overrides):
            own = complete(first, store) if complete else []
        every = [*own, *overrides, f"paths.store={override_text(str(store.root))}"]
        return cls(compose(stage.folder, _fixed(every)), every, store)

    @property
    def task_overrides(self) -> list[str]:
        return [override for override in self.overrides if not is_hydra(override)]

    def check(self) -> TrialConfig:
        """Check types, ranges, geometry, data and URLs; return the typed config.

        Raises:
            UserError: the first thing that is wrong.
        """
        from besom.trial.measure import sized

        content = plain(self.config)
        trial = typed(content)
        if trial.tracking.uri:
            check_no_password(trial.tracking.uri, "tracking.uri")
        refuse_secrets({**leaves(content), **dict(text.partition("=")[::2] for text in self.overrides)})
        checked_experiment(trial.tracking.experiment)
        sized(content)
        data.load(trial.data)
        return trial


def refuse_damaged(snapshot: Path, overrides: Sequence[str]) -> None:
    """Raise `StoreDamaged` where the configs that a sweep was started with cannot be composed any longer."""
    try:
        compose(snapshot, _fixed(overrides))
    except ConfigError as error:
        raise StoreDamaged(
            f"{snapshot} has the configs that the sweep was started with, and they are damaged: {error}; put them back "
            "from a copy, or start over with --fresh"
        ) from error


def _fixed(overrides: Sequence[str]) -> list[str]:
    return [override for override in overrides if is_hydra(override) or not is_sweep(override)]


def is_chosen(group: str, overrides: Sequence[str]) -> bool:
    """Tell whether overrides choose an option of a config group."""
    return any(override.startswith(f"{group}=") for override in overrides)
