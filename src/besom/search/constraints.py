"""Declared limits on what a trial may cost, such as ``n_params <= 200000``, decided before it is trained.

A constraint is a comparison of arithmetic over named numbers. Its text is read by `ast` against a
whitelist and never evaluated by Python. Knows nothing of where the numbers come from.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from besom.errors import ConfigError, did_you_mean, quoted

COMPARISONS: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
OPERATIONS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
SIGNS: dict[type[ast.unaryop], Callable[[float], float]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
Term = Callable[[Mapping[str, float]], float]
MOST_CHARACTERS = 1000
"""Of one constraint: as many operators would be as many calls inside each other."""
EXPECTED = "expected names and numbers with + - * / on both sides of <, <=, > or >=, as in 'n_params <= 200000'"


@dataclass(frozen=True)
class Constraint:
    """One limit, read and checked; ``names`` are the measures that it needs, in the order of its text."""

    text: str
    names: tuple[str, ...]
    kept: Callable[[Mapping[str, float]], bool]
    excess: Callable[[Mapping[str, float]], float]

    def violation(self, measures: Mapping[str, float]) -> float:
        """Return by how much the measures break this limit, as Optuna takes it: 0 and less keeps it.

        Raises:
            ConfigError: for a division by zero.
        """
        try:
            excess = self.excess(measures)
        except ArithmeticError as error:
            raise ConfigError(f"constraint '{self.text}' cannot be computed: {error}") from error
        return excess if self.kept(measures) == (excess <= 0) else math.nextafter(0.0, 1.0)  # "<", and just met

    def broken_by(self, measures: Mapping[str, float]) -> str | None:
        """Return how the measures break this limit, or None when they keep it.

        Raises:
            ConfigError: for a name that is not measured, or a division by zero.
        """
        for name in self.names:
            if name not in measures:
                raise ConfigError(
                    f"constraint '{self.text}' uses {name}, which is not measured; expected one of "
                    f"{', '.join(measures)}" + did_you_mean(name, measures)
                )
        found = ", ".join(f"{name} is {_number(measures[name])}" for name in self.names)
        try:
            return None if self.kept(measures) else f"{self.text} broken: {found}"
        except ArithmeticError as error:
            raise ConfigError(f"constraint '{self.text}' cannot be computed ({error}); {found}") from error


def parse_constraints(texts: Sequence[str]) -> list[Constraint]:
    """Return the limits that ``hydra.sweeper.constraints`` declares.

    Raises:
        ConfigError: for a text that is not one comparison of arithmetic over names and numbers.
    """
    return [_parse(text) for text in texts]


def violations(constraints: Sequence[Constraint], measures: Mapping[str, float]) -> dict[str, float]:
    """Return by how much each constraint is broken, by its text; 0 and less keeps it.

    Raises:
        ConfigError: for a division by zero.
    """
    return {constraint.text: constraint.violation(measures) for constraint in constraints}


def untold(constraints: Sequence[Constraint], facts: Mapping[str, object]) -> str | None:
    """Return what an ended trial should have told and did not, None where it told enough."""
    for constraint in constraints:
        for name in constraint.names:
            if not isinstance(facts.get(name), int | float):
                return (
                    f"constraint '{constraint.text}' needs {name}, which the trial did not tell; it told "
                    f"{', '.join(facts) or 'nothing'}; expected besom.tell({name}=…), or a return of "
                    f"{{'objective': …, '{name}': …}}"
                )
    return None


def _parse(text: str) -> Constraint:
    tree = _tree(text)
    if not isinstance(tree, ast.Compare):
        raise _refused(text, "it compares nothing")
    if len(tree.ops) > 1:
        raise _refused(text, "it compares more than once, write two constraints")
    holds = COMPARISONS.get(type(tree.ops[0]))
    if holds is None:
        raise _refused(text, "only <, <=, > and >= can be decided")
    names: list[str] = []
    sign = 1.0 if holds in (operator.lt, operator.le) else -1.0
    left, right = _term(tree.left, text, names), _term(tree.comparators[0], text, names)
    if not names:
        raise _refused(text, "it names no measure")
    return Constraint(
        text=" ".join(text.split()),
        names=tuple(dict.fromkeys(names)),
        kept=lambda measures: holds(left(measures), right(measures)),
        excess=lambda measures: sign * (left(measures) - right(measures)),
    )


def _tree(text: object) -> ast.expr:
    if not isinstance(text, str):
        raise _refused(text, f"it is of type {type(text).__name__}, not text")
    if len(text) > MOST_CHARACTERS:
        raise _refused(text, f"it has {len(text):,} characters, more than {MOST_CHARACTERS:,}")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _refused(text, "it is not an expression") from error


def _term(node: ast.expr, text: str, names: list[str]) -> Term:
    """Turn a node into a function of the measures, adding to ``names``; anything but arithmetic is refused."""
    match node:
        case ast.Name(id=name):
            names.append(name)
            return lambda measures: measures[name]
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return lambda measures: value
        case ast.UnaryOp(op=op, operand=operand) if type(op) in SIGNS:
            sign, inner = SIGNS[type(op)], _term(operand, text, names)
            return lambda measures: sign(inner(measures))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATIONS:
            operate, first, second = OPERATIONS[type(op)], _term(left, text, names), _term(right, text, names)
            return lambda measures: operate(first(measures), second(measures))
    raise _refused(text, f"'{ast.unparse(node)}' is not arithmetic of names and numbers")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _refused(text: object, reason: str) -> ConfigError:
    return ConfigError(f"cannot read the constraint {quoted(text)}: {reason}; {EXPECTED}")
