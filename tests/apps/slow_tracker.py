"""A tracker that has much to pass on, at the sweep's start or at its end: it takes as long as one lets it."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

from besom.tracker import NoteIds, NoTracker


class SlowTracker(NoTracker):
    """Marks that it passes on in a file, and goes on for minutes."""

    n_opened = 0

    def deliver(self, note: NoteIds, seconds: float = math.inf) -> bool:
        if seconds == math.inf:
            self.n_opened += 1
            if self.n_opened == {"start": 1, "end": 2}[os.environ["SLOW_AT"]]:
                Path("passing_on").touch()
                time.sleep(300)
        return False
