"""What a trial leaves behind: ``result.json`` in its job folder, written last and atomically.

A complete ``result.json`` means that the trial was trained to its end, whatever happened to the
processes around it; without one it was not.
"""

from __future__ import annotations

import errno
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from besom.errors import StoreDamaged
from besom.files import Unusable, read_bounded
from besom.paths import write_atomically
from besom.withheld import withheld

FILE_NAME = "result.json"
STATES = ("COMPLETE", "PRUNED", "FAIL")
MOST_BYTES = 16_000_000
"""No trial tells so much; a file that is larger is not read."""
NO_RESULT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""What the system says of a file that nobody can read, ever; of any other error the disk may recover."""
RESERVED = ("point", "outcome", "retry_of", "run_id", "reason", "job", "enqueued", "number", "state")
"""Names under which the study keeps its accounts beside the facts."""


@dataclass(frozen=True)
class TrialResult:
    """The end of one trial.

    Args:
        number: the trial's number in its sweep, -1 outside a sweep.
        state: ``COMPLETE``, ``PRUNED`` or ``FAIL``, Optuna's words.
        values: the objectives, one number each; empty unless COMPLETE. In the file, ``value`` stands beside
            it: the objective where there is one.
        reason: why it was pruned or failed, one line; secrets in it are left out.
        facts: what the task told with `besom.reporting.TrialHandle.tell`: ``n_params``,
            ``fit_seconds``, ``weights_sha256``, …; JSON values only.
    """

    number: int
    state: str
    values: list[float] = field(default_factory=list)
    reason: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.reason, str):
            object.__setattr__(self, "reason", withheld(self.reason))  # it goes into files, tags and reports

    @property
    def value(self) -> float | None:
        """The objective where there is one."""
        return self.values[0] if len(self.values) == 1 else None

    def write(self, folder: Path, study: str = "") -> None:
        """Write ``result.json`` into the job folder, with the id of the study that the trial is of."""
        content = {**asdict(self), "value": self.value, "study": study}
        write_atomically(folder / FILE_NAME, json.dumps(content, indent=1, allow_nan=False) + "\n")

    @classmethod
    def read(cls, folder: Path, number: int, study: str = "") -> TrialResult | None:
        """Return a trial's result; None where its folder has none, not a whole one, or one of another trial.

        Raises:
            StoreDamaged: nobody can say whether there is one: the disk does not answer, or rights are missing.
        """
        try:
            fields = json.loads(_text_of(folder / FILE_NAME))
            value, owner = fields.pop("value", None), fields.pop("study", "")
            result = cls(**{"values": [] if value is None else [value], **fields})
        except (ValueError, TypeError, AttributeError, RecursionError):
            return None
        return result if result._is_whole() and (result.number, owner) == (number, study) else None

    def _is_whole(self) -> bool:
        if self.state not in STATES or type(self.number) is not int or not isinstance(self.reason, str | None):
            return False
        if not isinstance(self.values, list) or bool(self.values) != (self.state == "COMPLETE"):
            return False
        return all(map(_is_number, self.values)) and isinstance(self.facts, dict) and _are_facts(self.facts)


def _text_of(file: Path) -> str:
    """Return what a result file holds; raise `ValueError` where there is none, or one that no trial has written."""
    try:
        return read_bounded(file, MOST_BYTES).decode()
    except Unusable as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno not in NO_RESULT:
            raise StoreDamaged(
                f"{file} cannot be read: {error}; expected the result of a trial, or none: mend the disk or the rights "
                "on it, then the same command goes on"
            ) from cause
        raise


def _is_number(value: Any) -> bool:
    """Return whether a value is a finite number; a whole one may be too large to be one."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _are_facts(facts: dict[str, Any]) -> bool:
    """Return whether a trial can have told this: JSON, under names that are not the study's own."""
    try:
        json.dumps(facts, allow_nan=False)
    except (ValueError, RecursionError):
        return False
    return not set(RESERVED) & set(facts)
