"""`besom status NAME --watch`: a sweep seen from a second terminal, until it ends.

A picture that is redrawn in a terminal, a line for each change elsewhere, JSON on request.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from besom.compare.watched import Look, Watched
from besom.errors import NotFound
from besom.lock import holder_of
from besom.paths import Store
from besom.sweep.view import picture, sentence
from besom.tables import say


class View(Protocol):
    """Shows one look after another."""

    def __enter__(self) -> View: ...
    def __exit__(self, *exception: object) -> None: ...
    def show(self, look: Look) -> None: ...


class Changes:
    """One line whenever something happened; that time went on is nothing.

    Args:
        as_json: each line is what ``besom status --format json`` gives.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._shown: Any = None

    def __enter__(self) -> Changes:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def show(self, look: Look) -> None:
        standing = look.standing
        steps = [(one.number, one.step) for one in standing.running]
        seen = (look.activity, look.tally.counts, steps, standing.undelivered)
        if seen == self._shown:
            return
        self._shown = seen
        if self._as_json:
            say(json.dumps(look.to_json(), allow_nan=False))
        else:
            say(f"{look.name} {look.activity}: {sentence(look.standing)}")
        sys.stdout.flush()


class Picture:
    """The sweep's picture, redrawn in place; the last one stays."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Picture:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def show(self, look: Look) -> None:
        head = Text(f"sweep '{look.name}' {look.activity}", style="bold")
        height = self._live.console.height - 1
        self._live.update(Group(head, picture(look.standing, height)), refresh=True)


def watch(store: Store, name: str, seconds: float, form: str) -> int:
    """Show a sweep every so many seconds until it is complete or nobody runs it; return 0.

    Raises:
        NotFound: there is no such sweep, or it was deleted meanwhile.
    """
    watched = _found(store, name, seconds)
    in_lines = form == "json" or not sys.stdout.isatty()
    view: View = Changes(as_json=form == "json") if in_lines else Picture(Console(highlight=False))
    with view:
        while True:
            look = watched.look()
            view.show(look)
            if look.activity != "running":
                return 0
            time.sleep(seconds)


def _found(store: Store, name: str, seconds: float) -> Watched:
    """Return a sweep once it is there: its parent holds the lock for some seconds before it makes the study."""
    while True:
        is_starting = holder_of(store.lock(name)) is not None
        try:
            return Watched(store, name)
        except NotFound:
            if not is_starting:
                raise
            time.sleep(seconds)
