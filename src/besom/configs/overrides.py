"""What kind of override a text is, as Hydra's own parser sees it."""

from __future__ import annotations

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from besom.errors import ConfigError


def is_hydra(text: str) -> bool:
    """Return whether an override is about Hydra itself, not about the task."""
    return text.lstrip("+~").startswith(("hydra.", "hydra/"))


def is_sweep(text: str) -> bool:
    """Return whether an override sweeps over values: ``a=1,2``, ``a=choice(1,2)``, ``a=range(1,9)``.

    Raises:
        ConfigError: Hydra cannot read the text.
    """
    return parsed(text).is_sweep_override()


def parsed(text: str) -> Override:
    """Parse one override.

    Raises:
        ConfigError: Hydra cannot read the text.
    """
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{text!r} is no override: {reason}; expected key=value, such as train.epochs=3") from error
