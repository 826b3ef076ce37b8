"""Hydra's config loader, but that it remembers what it merged: trials of a sweep differ in values, not in files.

Composing a config takes Hydra 50 to 100 ms, most of which goes into merging the same files again. Correct
only where those do not change, as with `besom.configs.frozen`. Knows nothing of sweeps.
"""

from __future__ import annotations

import copy
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from omegaconf import DictConfig

MOST = 64
"""How many combinations of group options are remembered."""


class Repository(ConfigRepository):
    """Hydra's repository of configs; a copy of it has the same sources.

    Hydra copies it for each composition, since ``hydra.searchpath`` may give the copy other sources, and takes longer
    for that than for all the rest of a small config. It replaces the list of them and changes none.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Repository:
        return copy.copy(self)


class RememberingLoader(ConfigLoaderImpl):
    """Reads each config file and merges each list of them once; overrides of values are applied to a copy, by Hydra
    as ever.

    The methods it overrides are Hydra's own, the same in 1.3 and 1.4.

    Args:
        repository: of the configs, `Repository` where None.
    """

    def __init__(self, search_path: ConfigSearchPath, repository: Repository | None = None) -> None:
        super().__init__(search_path)
        self.repository = repository or Repository(search_path)

    def _parse_overrides_and_create_caching_repo(self, *args: Any, **kwargs: Any) -> Any:
        """Return what Hydra's own method of this name does, with a repository that knows what was read before."""
        parsed, repo = super()._parse_overrides_and_create_caching_repo(*args, **kwargs)
        read: dict[str, dict[str, Any]] = self.__dict__.setdefault("_read", {})
        known = read.setdefault(_sources(repo), {})
        known.update(repo.cache)
        repo.cache = known
        return parsed, repo

    def _compose_config_from_defaults_list(self, defaults: Any, repo: Any) -> DictConfig:
        """Return what Hydra's own method of this name does."""
        merged: dict[str, DictConfig] = self.__dict__.setdefault("_merged", {})
        key = f"{defaults!r} {_sources(repo)}"
        if key not in merged:
            if len(merged) >= MOST:
                merged.clear()
            repo.cache = copy.deepcopy(repo.cache)  # merging changes what was read
            merged[key] = super()._compose_config_from_defaults_list(defaults=defaults, repo=repo)
        return copy.deepcopy(merged[key])

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_merged", "_read")}


def _sources(repo: Any) -> str:
    return repr([source.path for source in repo.get_sources()])
