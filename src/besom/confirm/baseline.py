"""The config that a sweep varied, out of what its study keeps: every swept parameter has the base config's own value.

The study has the base config's leaves as they were written; paths are not among them, and come from trials. Nothing
is composed, imported or asked of the environment. Knows nothing of MLflow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from besom.configs.config import leaves
from besom.data import PUBLISHED, SHIPPED
from besom.errors import BesomError, one_line

SAME_FOR_ALL = ("oc.env", "now", "project_root", "python_version")
"""Resolvers that give every trial of a start the same: their value is taken from a trial."""

PARAMS = "hydra.sweeper.params."
GROUPS = ("data", "model", "train")
REFERENCE = re.compile(r"\$\{\s*\.*\w[\w.]*\s*\}")
"""``${model.activation}``: the value of another key."""

Content = Mapping[str, Any]


class Unknown(BesomError):
    """The base config cannot be told from what is stored; the message says why."""


def base_content(settings: Mapping[str, Any], trials: Sequence[Content]) -> dict[str, Any]:
    """Return the plain base config of a sweep.

    Args:
        settings: what the sweep was started with, as `besom.sweep.settings.comparable` wrote it.
        trials: frozen configs of at least one of its trials.

    Raises:
        Unknown: the study does not say what the base config was.
    """
    found = {key: value for key, value in settings.items() if not key.startswith("hydra.")}
    if not found:
        raise Unknown("the study does not keep it")
    swept = {key.removeprefix(PARAMS) for key in settings if key.startswith(PARAMS)}
    found |= {key: _as_in_trials(key, value, trials) for key, value in found.items() if _resolvers(value)}
    if (path := _path(found.get("data._target_"), swept, trials)) is not None:
        found["data.path"] = path
    _refuse_resolvers(found)
    elsewhere = {name: trials[0].get(name, {}) for name in ("tracking", "paths")}
    content = nested({**dict(_empty(found, trials[0])), **found})
    try:
        made = OmegaConf.to_container(OmegaConf.create({**content, **elsewhere}), resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise Unknown(one_line(error)) from error
    assert isinstance(made, dict), "a config is a mapping"
    return {name: made[name] for name in (*GROUPS, *elsewhere) if name in made}


def _refuse_resolvers(value: Any) -> None:
    """Raise `Unknown` where anything but a reference to another key is left: what is stored asks nothing of this
    machine.
    """
    if isinstance(value, Mapping):
        _refuse_resolvers([*value, *value.values()])
    elif isinstance(value, list):
        for inner in value:
            _refuse_resolvers(inner)
    elif isinstance(value, str) and value.count("${") != len(REFERENCE.findall(value)):
        raise Unknown(f"{value[:80]!r} is not a value, and no reference to a key")


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of dotted leaves, the inverse of `besom.configs.config.leaves`; numbered keys make a list."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *above, last = key.split(".")
        place = tree
        for name in above:
            place = place.setdefault(name, {})
        place[last] = value
    return {key: _listed(value) for key, value in tree.items()}


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    inner = {key: _listed(one) for key, one in value.items()}
    places = [str(place) for place in range(len(inner))]
    return [inner[place] for place in places] if inner and set(places) == set(inner) else inner


def _resolvers(value: Any) -> list[str]:
    """Return the resolvers that a written value calls: ``oc.env`` of ``${oc.env:HOME}``."""
    return re.findall(r"\$\{\s*([\w.]+)\s*:", value) if isinstance(value, str) else []


def _as_in_trials(key: str, value: str, trials: Sequence[Content]) -> Any:
    """Return a value that a resolver gave: a trial's, where all must have had the same."""
    known = set(_resolvers(value)) <= set(SAME_FOR_ALL) and value.count("${") == len(_resolvers(value))
    given = [flat[key] for flat in map(leaves, trials) if key in flat]
    if not known or not given or any(one != given[0] for one in given):
        raise Unknown(f"{key} is written {value!r}, which no stored value stands for")
    return given[0]


def _path(target: Any, swept: set[str], trials: Sequence[Content]) -> Any:
    """Return ``data.path``: that of the trials on the same source, None where there is none to give."""
    if target in SHIPPED:
        return None
    here = list(_on(target, trials))
    if "data.path" in swept or ("data" in swept and (target not in PUBLISHED or not here)):
        raise Unknown("data.path differs from trial to trial, and the study does not keep the base config's")
    paths = {str(data["path"]) for data in here if data.get("path") is not None}
    if len(paths) > 1:
        raise Unknown(f"its trials read {len(paths)} different files, and the study does not keep the base config's")
    return next(iter(paths), None)


def _on(target: Any, trials: Sequence[Content]) -> Iterator[Content]:
    yield from (trial["data"] for trial in trials if trial["data"].get("_target_") == target)


def _empty(found: Mapping[str, Any], trial: Content) -> Iterator[tuple[str, Any]]:
    """Yield a trial's empty mappings in groups that the base config has of the same kind: the study keeps none."""
    for key, value in leaves(trial).items():
        target = f"{key.split('.', 1)[0]}._target_"
        if value == {} and target in found and leaves(trial).get(target) == found[target]:
            yield key, value
