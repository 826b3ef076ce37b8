"""A folder that `besom export` wrote, of anybody's, as the original of a reproduction. All in it is data."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from besom.compare.catalog import StoredRun
from besom.configs.stored import read_stored
from besom.errors import ConfigError, NotFound
from besom.files import Unusable, kind_of, read_bounded
from besom.paths import Store
from besom.reproduce.original import HASHES, Original, checked_fingerprint
from besom.reproduce.request import Options, Request
from besom.retrain.here import find_code_beside
from besom.retrain.trust import trusted_for
from besom.tracking import params_of

EXPECTED = "expected.json"
MOST_BYTES = 20_000_000
"""Of a JSON file; a history of 100,000 epochs has less."""


def is_exported(name: str) -> bool:
    """Tell whether a name on the command line is that of an exported folder."""
    try:
        return kind_of(Path(name, EXPECTED)) == "file"
    except Unusable:  # a name that no file can have
        return False


def request_of(folder: Path, store: Store, options: Options, home: Callable[[str], StoredRun]) -> Request:
    """Return what an exported folder asks to be repeated.

    Args:
        store: where the reproduction goes.
        home: gives, for the original's run id, the run beside which the new one is recorded; called last.

    Raises:
        NotFound: a file is missing.
        ConfigError: a file is not what `besom export` writes, or its config may not be trained here.
        DataError: its images are not there.
    """
    stored = read_stored(_text(folder, "config.yaml"), f"{folder}/config.yaml")
    content = trusted_for(store, stored, options.allow, options.data_path)
    if options.allow:
        find_code_beside(folder)
    original = _original(_json(folder, EXPECTED), _fingerprint(folder), params_of(content), folder)
    return Request.checked(original, content, options, lambda: home(original.run_id))


def _original(
    expected: Mapping[str, Any], fingerprint: Mapping[str, Any], params: Mapping[str, str], folder: Path
) -> Original:
    history, run_id = expected.get("history"), expected.get("run_id")
    hashes = {name: expected.get(name) for name in HASHES}
    good = (
        isinstance(run_id, str)
        and re.fullmatch(r"[\w-]{1,64}", run_id)
        and all(isinstance(value, str) for value in hashes.values())
        and isinstance(history, dict)
        and all(isinstance(values, list) and all(map(_is_number, values)) for values in history.values())
    )
    if not good:
        raise ConfigError(f"{folder}/{EXPECTED} lacks run_id, hashes or history; expected what 'besom export' writes")
    assert isinstance(history, dict), "it is good"
    copies = ({name: str(value) for name, value in hashes.items()},)
    return Original(str(run_id), "COMPLETE", None, copies, history, fingerprint, params)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _json(folder: Path, name: str) -> Mapping[str, Any]:
    try:
        found = json.loads(_text(folder, name))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{folder}/{name} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{folder}/{name} is a {type(found).__name__}; expected a mapping")
    return found


def _fingerprint(folder: Path) -> Mapping[str, Any]:
    return checked_fingerprint(_json(folder, "fingerprint.json"), f"{folder}/fingerprint.json")


def _text(folder: Path, name: str) -> str:
    try:
        return read_bounded(folder / name, MOST_BYTES).decode()
    except ValueError as error:  # Unusable, or no UTF-8
        raise NotFound(f"{folder}/{name} cannot be read: {error}; expected what 'besom export' wrote") from error
