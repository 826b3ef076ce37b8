"""What differs between two fingerprints, part by part, down to the file, the package or the key that does.

Pure functions over what was stored and what is there now.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from besom.fingerprint import OWN_PART, PARTS

SHORT = 12
"""Digits of a hash that are shown."""


@dataclass(frozen=True)
class Difference:
    """One thing that a result depends on and that is not as it was.

    Args:
        part: of the fingerprint, one of `besom.fingerprint.PARTS`.
        key: the file, package, setting or config key in it; empty where the part is one value.
        original: as it was; None where there was none.
        now: as it is; None where there is none.
    """

    part: str
    key: str
    original: Any
    now: Any

    def __str__(self) -> str:
        name = f"{self.part} {_word(self.key)}".rstrip()
        return f"{name}: {_word(self.original)} → {_word(self.now)}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Circumstances:
    """What a result depends on.

    Args:
        fingerprint: see `besom.fingerprint.fingerprint`; may be of another version of besom, or tampered with.
        params: the config's leaves as text, see `besom.tracking.params_of`.
    """

    fingerprint: Mapping[str, Any]
    params: Mapping[str, str]


def differences(original: Circumstances, now: Circumstances) -> list[Difference]:
    """Return what differs, in the order in which causes are looked at; nothing where one side is not known."""
    if not original.fingerprint or not now.fingerprint:
        return []
    found = [one for part in PARTS for one in _in_part(part, original, now)]
    makes_the_split = any(one.part in ("data", "code", "config", "seed") for one in found)
    return [one for one in found if one.part != "split" or not makes_the_split]


def first_cause(found: list[Difference]) -> str | None:
    """Return the part that comes first, None where nothing differs."""
    return found[0].part if found else None


def _in_part(part: str, original: Circumstances, now: Circumstances) -> Iterator[Difference]:
    before, after = original.fingerprint.get(part), now.fingerprint.get(part)
    if before == after:
        return
    inner = _inner(part, original, now)
    yield from inner or [Difference(part, "", _shown(before), _shown(after))]


def _inner(part: str, original: Circumstances, now: Circumstances) -> list[Difference]:
    """Return what differs inside a part, nothing where that is not known."""
    if part == "config":
        pairs = [{key: text for key, text in side.params.items() if key not in OWN_PART} for side in (original, now)]
    else:
        name = "sources" if part == "code" else part
        pairs = [_flat(side.fingerprint.get(name)) for side in (original, now)]
    before, after = pairs
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return [Difference(part, key, _shown(before.get(key)), _shown(after.get(key))) for key in keys]


def _flat(values: Any, above: str = "") -> dict[str, Any]:
    """Return a part of a fingerprint by dotted key, its lists as single members, so that only what differs is named."""
    if isinstance(values, Mapping):
        return {
            name: value
            for key, inner in values.items()
            for name, value in _flat(inner, f"{above}.{key}" if above else str(key)).items()
        }
    if isinstance(values, list):
        return {f"{above}.{value}" if above else str(value): True for value in values}
    return {above: values} if above else {}


def _shown(value: Any) -> Any:
    """Return a value as it is told: of a hash the first digits."""
    is_hash = isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")
    return f"{value[:SHORT]}…" if is_hash else value


def _word(value: Any) -> str:
    """Return a value for a terminal: what was stored may have control characters in it."""
    text = "-" if value is None else "there" if value is True else str(value)
    return text if text.isprintable() else repr(text)
