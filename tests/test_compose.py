"""Hydra's errors as one line."""

from __future__ import annotations

from besom.configs.compose import _chain


def test_a_chain_of_exceptions_that_bites_its_tail_ends() -> None:
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__context__ = second, first
    assert list(_chain(first)) == [first, second]
