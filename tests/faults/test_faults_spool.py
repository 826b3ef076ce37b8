"""`kill -9` while MLflow is away, and while it is told what waits: each run is there once, whole, with its own values.

MLflow's database is held by another program, so that besom's own app finds it away.
"""

from __future__ import annotations

import pytest
from harness import Bench, holding

pytestmark = [pytest.mark.service, pytest.mark.timeout(1800)]

WHILE_AWAY = ("journal_drafted:1:self", "journal_grown:2:both", "journal_drafted:3:both", "journal_grown:9:self")
WHEN_BACK = (
    *("delivered_one:1:self", "delivered_noted:1:self", "delivered_one:4:both", "delivered_noted:6:self"),
    *("journal_next:1:self", "delivered_one:3:self", "journal_next:2:both"),
)


def test_a_kill_while_something_waits_or_is_delivered_loses_nothing_and_doubles_nothing(besoms: Bench) -> None:
    besoms.whole(more=1)
    assert besoms.books.mlflow_db is not None
    for fault in WHILE_AWAY:
        with holding(besoms.books.mlflow_db):
            besoms.struck(fault, more=3)
    with holding(besoms.books.mlflow_db):
        start = besoms.start(more=3)
        assert start.ended() == 0, start.output
    besoms.settle("a start without MLflow")
    for fault in WHEN_BACK:
        besoms.struck(fault, more=1)
    besoms.whole(more=1)
