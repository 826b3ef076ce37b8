"""Objects that a config describes by ``_target_``: built, or refused in one line.

Not Hydra's `instantiate`, which behaves differently in Hydra 1.3 and 1.4, passes on arguments that were
left at null and wraps a mistake into a chain of messages. Knows nothing of what a sampler or a pruner is.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

from optuna.exceptions import ExperimentalWarning

from besom.errors import BesomError, ConfigError, one_line, one_of
from besom.targets import imported

Factory = Callable[..., Any]

WORDS = ("_target_", "_partial_", "_convert_", "_recursive_")


def nothing(factory: Factory) -> Mapping[str, Any]:
    """Offer no arguments."""
    return {}


@dataclass(frozen=True)
class Builder:
    """Calls the targets of a config and of the configs inside it.

    Args:
        key: where the config stands, such as ``hydra.sweeper.sampler``; for messages.
        offer: factory → arguments that replace the config's, as far as the factory takes them. It is called
            before the factory is, so it may refuse one.
        named: arguments whose text is the dotted name of an object. A class is called without arguments.
    """

    key: str
    offer: Callable[[Factory], Mapping[str, Any]] = nothing
    named: Collection[str] = ()

    def build(self, config: Mapping[str, Any]) -> Any:
        """Return what ``config`` describes: ``_target_`` and its arguments, as plain containers.

        An argument left at None is not passed on if the target has a default for it; ``_partial_: true``
        gives the target with its arguments, not called yet.

        Raises:
            ConfigError: for a target or argument that does not exist, and for what the target raises.
        """
        target = str(config.get("_target_"))
        factory = imported(f"{self.key}._target_", target)
        offered = self.offer(factory)
        takes = _takes(target, factory)
        given = {
            name: self._argument(name, value)
            for name, value in config.items()
            if name not in WORDS and name not in offered and self._is_passed(target, takes, name, value)
        }
        given |= {name: value for name, value in offered.items() if name in takes}
        if config.get("_partial_"):
            return functools.partial(factory, **given)
        return self._called(target, factory, given)

    def _argument(self, name: str, value: Any) -> Any:
        inner = Builder(f"{self.key}.{name}", self.offer, self.named)
        if isinstance(value, Mapping) and "_target_" in value:
            return inner.build(value)
        if name in self.named and isinstance(value, str):
            found = imported(inner.key, value)
            return inner.build({"_target_": value}) if isinstance(found, type) else found
        return value

    def _is_passed(self, target: str, takes: Mapping[str, Parameter], name: str, value: Any) -> bool:
        """Tell whether an argument is the target's and was given a value."""
        if name in takes:
            return value is not None or takes[name].default is Parameter.empty
        if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in takes.values()):
            return True
        raise ConfigError(f"{self.key}: {target}: " + one_of("the argument", name, takes))

    def _called(self, target: str, factory: Factory, given: Mapping[str, Any]) -> Any:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                built = factory(**given)
            except BesomError:
                raise
            except Exception as error:  # a user's own class may be built here
                raise ConfigError(
                    f"{self.key}: {target} refuses its arguments: {one_line(error)}; expected what it takes: "
                    f"{', '.join(_takes(target, factory)) or 'nothing'}"
                ) from error
        for warning in caught:
            # whoever names a class has decided for it; that it is experimental is said in Optuna's pages
            if not issubclass(warning.category, ExperimentalWarning):
                _warn_once(f"{self.key}: {warning.message}", warning.category)  # type: ignore[arg-type]  # a class is hashable
        return built


@functools.cache
def _warn_once(text: str, category: type[Warning]) -> None:
    """Warn of a deprecated argument once, though samplers are built again for every point."""
    warnings.warn(text, category, stacklevel=2)


def _takes(target: str, factory: Factory) -> Mapping[str, Parameter]:
    try:
        return inspect.signature(factory).parameters
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{target} cannot be built from a config: {one_line(error)}") from error
