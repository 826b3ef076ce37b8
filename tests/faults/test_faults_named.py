"""`kill -9` at every named point of a sweep's life: nothing that had ended is lost, and a resume makes the rest whole.

Each chain strikes one sweep again and again, so that what one fault leaves is there when the next one lands. The points
that are the sweeper's own are struck in somebody else's app, which starts in a second; `make torture` strikes all of
them in besom's own, with every kind of fault.
"""

from __future__ import annotations

import pytest
from harness import Bench

pytestmark = [pytest.mark.service, pytest.mark.timeout(1800)]

OF_ANY_SWEEP = (
    *("study_made:2:self", "owner_marked:1:self", "asking:2:self", "asked:2:both", "submitting:2:self"),
    *("mending:1:self", "taken:2:self", "reported:3:self", "result_next:2:parent", "mended_study:1:self"),
    *("result_drafted:2:both", "result_written:2:self", "result_written:2:both", "settling:2:both", "telling:2:self"),
    *(
        "told:2:both",
        "results_drafted:2:self",
        "settling:1:both",
        "mending.settling:1:self",
        "mending.telling:1:both",
        "mending.told:1:self",
        "asked:2:lane",
        "submitting:2:server",
        "closing:1:self",
        "closed:1:self",
    ),
)
OF_BESOMS_APP = (
    *("store_filled:1:self", "store_renamed:1:self", "snapshot_copied:1:self", "snapshot_made:1:self"),
    *("images_shared:1:both", "books_opened:1:self", "run_made:2:both", "run_noted:2:self", "mended_run:1:self"),
    *("reported:3:parent", "result_written:2:self", "settling:2:both", "mending.run_ended:1:self", "telling:2:self"),
    *("told:2:both", "run_ended:2:both", "closing:1:self", "drawing:1:self", "crowning:1:self"),
)


def test_a_sweep_survives_a_kill_at_every_point_of_its_own(app: Bench) -> None:
    for fault in OF_ANY_SWEEP:
        app.struck(fault, "hydra.launcher.start_method=forkserver")
    app.whole()
    assert [one["point"] for one in app.landed] == [fault.partition(":")[0] for fault in OF_ANY_SWEEP]


def test_besoms_own_app_survives_a_kill_at_every_point_of_its_own(besoms: Bench) -> None:
    for fault in OF_BESOMS_APP:
        besoms.struck(fault)
    besoms.whole()
    assert [one["point"] for one in besoms.landed] == [fault.partition(":")[0] for fault in OF_BESOMS_APP]


def test_a_sweep_whose_deletion_was_killed_starts_over(besoms: Bench) -> None:
    besoms.whole(more=1)
    delete = (*besoms.command[:3], "delete", "faults")
    besoms.kept = {}  # what is deleted need not stay
    besoms.struck("runs_deleted:1:self", command=delete)
    besoms.kept = {}
    besoms.whole(more=1)
    besoms.kept = {}
    besoms.struck("study_next:1:self", "--fresh")
    besoms.kept = {}
    besoms.whole(more=1)
    assert besoms.start(command=delete).ended() == 0
    assert besoms.n_ended == 0
