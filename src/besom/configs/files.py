"""Config files before anybody parses them: what they are, how large they are, how much their anchors stand for.

A parser is given text only that it comes back from: no pipe, no gigabytes, no brackets ten thousand deep, and no
ten lines of aliases that stand for more than fits into memory. Knows nothing of what the keys mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from besom.files import Unusable, read_bounded

MOST_BYTES = 1_000_000
"""A config file has some thousand."""
MOST_VALUES = 100_000
"""Keys and values of one file, those that its aliases stand for included."""
MOST_NESTED = 50


def read_text(file: Path) -> str:
    """Return the text of a config file.

    Raises:
        Unusable: it is no plain file of at most `MOST_BYTES`, or not UTF-8.
    """
    try:
        return read_bounded(file, MOST_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unusable(f"it is no UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from error


def read_yaml(file: Path) -> str:
    """Return the text of a config file that a parser comes back from.

    Raises:
        Unusable: as `read_text` and `refuse_avalanche`.
    """
    text = read_text(file)
    refuse_avalanche(text)
    return text


def refuse_avalanche(text: str) -> None:
    """Refuse YAML that stands for more than `MOST_VALUES`, or is nested too deep; what is no YAML at all may pass.

    Raises:
        Unusable: it does.
    """
    measure = _Measure()
    try:
        for event in yaml.parse(text, yaml.SafeLoader):  # as OmegaConf: the C parser takes other texts for YAML
            measure.take(event)
    except yaml.YAMLError:
        return  # whoever loads it says where


@dataclass
class _Measure:
    """Counts keys and values event by event; an alias counts what it stands for."""

    counts: list[int] = field(default_factory=lambda: [0])
    anchors: list[str | None] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.CollectionStartEvent):
            self._open(event.anchor)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._close()
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in self.anchors:
                raise Unusable(f"its alias *{event.anchor} stands for what it is in")
            self._add(self.sizes.get(event.anchor, 1))
        elif isinstance(event, yaml.ScalarEvent):
            self.sizes.update({event.anchor: 1} if event.anchor else {})
            self._add(1)

    def _open(self, anchor: str | None) -> None:
        self.counts.append(0)
        self.anchors.append(anchor)
        if len(self.anchors) > MOST_NESTED:
            raise Unusable(f"it is nested more than {MOST_NESTED} deep")

    def _close(self) -> None:
        size, anchor = self.counts.pop() + 1, self.anchors.pop()
        if anchor:
            self.sizes[anchor] = size
        self._add(size)

    def _add(self, size: int) -> None:
        self.counts[-1] += size
        if self.counts[-1] > MOST_VALUES:
            raise Unusable(f"it stands for more than {MOST_VALUES:,} values")
