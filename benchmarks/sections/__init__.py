"""The sections of docs/benchmarks.md: each a function from what a benchmark measured to Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sections.engines import engines_section
from sections.epoch import epoch_section
from sections.looking import looking_section
from sections.memory import memory_section
from sections.overhead import overhead_section
from sections.peers import peers_section
from sections.pruning import pruning_section
from sections.start import start_section

Section = Callable[[Mapping[str, Any], Path], str]
"""Takes what was measured and the page's path, may draw a chart beside the page, returns Markdown."""

SECTIONS: dict[str, Section] = {
    "peers": peers_section,
    "epoch": epoch_section,
    "overhead": overhead_section,
    "start": start_section,
    "looking": looking_section,
    "memory": memory_section,
    "pruning": pruning_section,
    "engines": engines_section,
}
"""Name of a section, of its comments and of its data ``NAME.json`` → what makes it."""
