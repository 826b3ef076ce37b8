"""The pruner of a sweep, built from ``hydra.sweeper.pruner``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.pruners import BasePruner, NopPruner

from besom.errors import ConfigError
from besom.search.objects import Builder


def build_pruner(config: Mapping[str, Any]) -> BasePruner:
    """Return the pruner that ``hydra.sweeper.pruner`` names, one that never prunes where it is empty.

    Args:
        config: ``_target_`` and its arguments, as plain containers; ``wrapped_pruner`` may be one more, or a
            dotted name.

    Raises:
        ConfigError: for a target that is no pruner, an argument it does not have, or one that it refuses.
    """
    if not config:
        return NopPruner()
    pruner = Builder("hydra.sweeper.pruner", named={"wrapped_pruner"}).build(config)
    if not isinstance(pruner, BasePruner):
        raise ConfigError(f"{config['_target_']} makes a {type(pruner).__name__}; expected an Optuna pruner")
    return pruner
