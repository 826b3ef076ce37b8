"""A sweep's way to MLflow, as its parent has it: whether that answers, what waits, when to look again, what to say.

Knows nothing of what a sweep is; it is told operations and run ids.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from besom.errors import one_line
from besom.paths import Store
from besom.spool.attempt import bounded
from besom.spool.classes import failure_of
from besom.spool.client import SECONDS, RunWriter, made
from besom.spool.deliver import SWEEPS_OWN, deliver
from besom.spool.journal import Journal, n_pending, remove_begun
from besom.spool.operations import Create
from besom.spool.probe import why_away
from besom.tracker import NoteIds
from besom.withheld import without_password

BETWEEN_LOOKS = 10.0
"""To look whether MLflow is back, or to tell it something in vain, may take a tenth of the time: a look of 5 seconds is
the last one for 50.
"""


class Outbox:
    """What a sweep's parent tells MLflow, now or later.

    Args:
        uri: MLflow's.
        sweep: its name.
    """

    def __init__(self, uri: str, store: Store, sweep: str) -> None:
        self.uri = uri
        self.store = store
        self.sweep = sweep
        self.why_away: str | None = None
        """Why MLflow does not answer, None as long as it does."""
        self.experiments: dict[str, str] = {}
        """Ids of experiments by name."""
        self._why_left: str | None = None
        self._has_said = False
        self._next_look = 0.0

    @property
    def folder(self) -> Path:
        return self.store.spool(self.sweep)

    @property
    def n_waiting(self) -> int:
        """How many runs have something that MLflow was not told."""
        return n_pending(self.store, self.sweep)

    def drop_end(self, run_id: str = SWEEPS_OWN) -> None:
        """Forget the end of the sweep's own run that an earlier start left: this one will have another to tell.

        Args:
            run_id: the run's, once it is known.
        """
        Journal(self.folder / run_id).remove()

    def clear(self) -> None:
        """Remove what an earlier start of the sweep began to keep and could not; nothing of the sweep runs now."""
        remove_begun(self.folder)

    def make(self, create: Callable[[str], Create], trial: int) -> RunWriter:
        """Make a trial's run, or the journal of one that is made later; see `besom.spool.client.made`."""
        return made(
            *(self.uri, self.store, self.folder, create, trial),
            experiments=self.experiments,
            is_away=self.why_away is not None,
        )

    def write(self, run_id: str, *operations: Any) -> None:
        """Tell MLflow about a run, or keep it, all or none where MLflow is known to be away."""
        is_away = self.why_away is not None or run_id == SWEEPS_OWN
        writer = RunWriter(self.uri, self.store, self.folder, run_id, is_away=is_away, is_quiet=True)
        for operation in operations:
            writer.write(operation)
        self.hear(writer)

    def hear(self, writer: RunWriter) -> None:
        """Take over what a writer found out about MLflow."""
        self.why_away = writer.why_away or self.why_away

    def ask(self, question: Callable[[], Any]) -> Any:
        """Return MLflow's answer, None where it does not give one."""
        try:
            return bounded(question, SECONDS)
        except Exception as error:
            if failure_of(error) is None:
                raise
            self.why_away = without_password(one_line(error))
            return None

    def look(self, *, at_once: bool) -> bool:
        """Look whether MLflow answers, unless the last look took long and was a moment ago; return whether it does."""
        began = time.monotonic()
        if began < self._next_look and not at_once:
            return False
        self.why_away = why_away(self.uri)
        self.rest(began)
        return self.why_away is None

    def rest(self, began: float) -> None:
        """Look again only after a while: what began then was for nothing, or told nothing but that MLflow answers.

        Args:
            began: as ``time.monotonic`` has it.
        """
        self._next_look = began + (time.monotonic() - began) * BETWEEN_LOOKS

    def deliver(self, note: NoteIds, seconds: float = math.inf) -> None:
        """Tell MLflow what waits; see `besom.spool.deliver.deliver`."""
        began = time.monotonic()
        found = deliver(self.store, self.sweep, self.uri, note, is_asked=True, seconds=seconds)
        self.why_away = found.reason if found.is_away else None
        if found.reason is not None:  # what answers, and hangs when it is told something, costs more than a look
            self.rest(began)
        self._why_left = found.reason

    def news(self) -> list[str]:
        """Return what is worth a line, once: that something waits and why, that all was delivered."""
        place = without_password(self.uri)
        if not (left := self.n_waiting):
            said, self._has_said = self._has_said, False
            return [f"MLflow at {place} answers again: all that waited is delivered"] if said else []
        if self._has_said or not (why := self.why_away or self._why_left):
            return []
        self._has_said = True
        what = "does not answer" if self.why_away else f"does not take {left} of the runs"
        return [f"MLflow at {place} {what} ({why}): what trials log waits in {self.folder}; delivered when it does"]
