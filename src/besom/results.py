"""What a trial leaves behind: ``result.json`` in its job folder, written last and atomically.

A complete ``result.json`` means that the trial was trained to its end, whatever happened to the
processes around it; without one it was not.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from besom.paths import write_atomically

FILE_NAME = "result.json"
STATES = ("COMPLETE", "PRUNED", "FAIL")


@dataclass(frozen=True)
class TrialResult:
    """The end of one trial.

    Args:
        number: the trial's number in its sweep, -1 outside a sweep.
        state: ``COMPLETE``, ``PRUNED`` or ``FAIL``, Optuna's words.
        value: the objective; None unless COMPLETE.
        reason: why it was pruned or failed, one line.
        facts: what the task told with `besom.reporting.TrialHandle.tell`: ``n_params``,
            ``fit_seconds``, ``weights_sha256``, …; JSON values only.
    """

    number: int
    state: str
    value: float | None = None
    reason: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write ``result.json`` into the job folder."""
        write_atomically(folder / FILE_NAME, json.dumps(asdict(self), indent=1, allow_nan=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> TrialResult | None:
        """Return the result in a job folder, or None where there is none or it is not a whole one."""
        try:
            fields = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
            result = cls(**fields)
        except (OSError, ValueError, TypeError):
            return None
        return result if result._is_whole() else None

    def _is_whole(self) -> bool:
        if self.state not in STATES or not isinstance(self.number, int) or not isinstance(self.facts, dict):
            return False
        finite = isinstance(self.value, int | float) and math.isfinite(self.value)
        return finite if self.state == "COMPLETE" else self.value is None
