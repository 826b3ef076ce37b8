"""Two runs side by side, as MLflow has them: what differs, and how much is the same.

How long they took is told with them and is no difference: no two trainings take the same time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

from besom.compare.catalog import StoredRun

COUNTS = ("best_epoch", "n_params", "n_macs")
TIME = "fit_seconds"
NO_METRICS = ("objective", *COUNTS, TIME, "latency_ms")
"""What MLflow has among the metrics although it is none of an epoch."""
OF_THE_MACHINE = "system/"
"""How the names of MLflow's system metrics begin."""
FINGERPRINT = "fingerprint."
HASH = "_sha256"

Pair = tuple[Any, Any]


@dataclass(frozen=True)
class Side:
    """One of two runs.

    Args:
        name: what the user called it: a run id, ``quick/3``, ``quick``.
    """

    name: str
    run: StoredRun

    @cached_property
    def _data(self) -> Any:
        return self.run.client.get_run(self.run.run_id).data

    def head(self) -> dict[str, Any]:
        """Return which run it is: ``name run_id sweep trial state fit_seconds``."""
        tags = self.run.tags
        return {
            "name": self.name,
            "run_id": self.run.run_id,
            "sweep": self.run.sweep,
            "trial": int(tags["trial"]) if self.run.sweep else None,
            "state": tags.get("state"),
            TIME: self._data.metrics.get(TIME),
        }

    def parts(self) -> dict[str, dict[str, Any]]:
        """Return what is compared, part by part."""
        tags, metrics = self.run.tags, {key: _finite(value) for key, value in self._data.metrics.items()}
        return {
            "params": {key: _value(text) for key, text in self._data.params.items()},
            "metrics": {key: value for key, value in metrics.items() if _is_metric(key)},
            "facts": _facts(tags, metrics),
            "fingerprint": dict(_leaves({key: _value(tags[key]) for key in tags if key.startswith(FINGERPRINT)})),
            "hashes": {**self.run.study_hashes, **{key: tags[key] for key in tags if key.endswith(HASH)}},
        }


def _is_metric(key: str) -> bool:
    return key not in NO_METRICS and not key.startswith(OF_THE_MACHINE)


@dataclass(frozen=True)
class Diff:
    """What two runs have in common, and what not, by part and key; of what one lacks the value is None."""

    first: dict[str, Any]
    second: dict[str, Any]
    differs: dict[str, dict[str, Pair]]
    equal: dict[str, dict[str, Pair]]

    @classmethod
    def of(cls, first: Side, second: Side) -> Diff:
        """Compare two runs: ``params``, ``metrics`` at the end, ``facts``, ``fingerprint``, ``hashes``."""
        one, other = first.parts(), second.parts()
        pairs = {part: _pairs(one[part], other[part]) for part in one}
        split: list[dict[str, dict[str, Pair]]] = [{}, {}]
        for part, of_part in pairs.items():
            for key, pair in of_part.items():
                split[_same(pair)].setdefault(part, {})[key] = pair
        return cls(first.head(), second.head(), *split)

    @property
    def same(self) -> int:
        """How many values are the same."""
        return sum(map(len, self.equal.values()))

    def to_json(self, *, equal_too: bool = False) -> dict[str, Any]:
        """Return the contract of ``besom diff --format json``; pairs are lists of two."""
        found = {"first": self.first, "second": self.second, "differs": self.differs, "same": self.same}
        return {**found, **({"equal": self.equal} if equal_too else {})}

    def rows(self, *, equal_too: bool = False) -> list[dict[str, Any]]:
        """Return one row a value, with ``part key first second``, those that differ first."""
        shown = [self.differs, *([self.equal] if equal_too else [])]
        return [
            {"part": part, "key": key, "first": pair[0], "second": pair[1]}
            for some in shown
            for part, pairs in some.items()
            for key, pair in pairs.items()
        ]


def _facts(tags: Mapping[str, str], metrics: Mapping[str, Any]) -> dict[str, Any]:
    ended = {key: tags[key] for key in ("state", "reason") if key in tags}
    counts = {key: int(metrics[key]) for key in COUNTS if key in metrics}
    return {**ended, **{key: metrics[key] for key in ("objective",) if key in metrics}, **counts}


def _pairs(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Pair]:
    return {key: (one.get(key), other.get(key)) for key in sorted({*one, *other})}


def _same(pair: Pair) -> bool:
    """Equal in kind too: 1 and true are not the same."""
    return type(pair[0]) is type(pair[1]) and bool(pair[0] == pair[1])


def _finite(value: float) -> float | str:
    """Return a metric as JSON can hold it."""
    return value if math.isfinite(value) else str(value)


def _value(text: str) -> Any:
    """Return what besom wrote into a param or a tag as JSON: numbers, truths, null, lists; any other text as it is."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text
    return value if json.dumps(value) == text else text  # a hash may look like a number


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _leaves(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the parts of a fingerprint by dotted key, so that of many packages only the one that differs is named."""
    for key, value in values.items():
        name = f"{above}{key.removeprefix(FINGERPRINT)}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value
