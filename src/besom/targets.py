"""A user's own function, named by a config's ``_target_``: imported, or refused in one line."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, cast

from besom.errors import ConfigError, did_you_mean, one_line


def imported(key: str, target: str) -> Callable[..., Any]:
    """Return the function that ``target`` (``package.function``) names.

    Args:
        key: what it was given for, such as ``model._target_``; for messages.

    Raises:
        ConfigError: the module cannot be imported, or has no such function.
    """
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # the user's own module runs here
        raise ConfigError(
            f"{key}={target!r} cannot be imported ({type(error).__name__}: {one_line(error)}); "
            "expected package.function, importable from the project's root folder"
        ) from error
    found = getattr(module, name, None)
    if not callable(found):
        raise ConfigError(f"{key}={target!r}: {module_name} has no function {name!r}" + did_you_mean(name, dir(module)))
    return cast(Callable[..., Any], found)
