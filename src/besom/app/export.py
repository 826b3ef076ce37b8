"""`besom export`: what a person sees of it."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from besom.export.export import export
from besom.tables import print_json, print_rows, say

if TYPE_CHECKING:
    from besom.compare.catalog import StoredRun


def run(found: StoredRun, arguments: Namespace) -> int:
    """Export one run, and say how it is trained again."""
    done = export(found, arguments.folder, arguments.allow)
    told = {"folder": str(done.folder), "command": done.command, "files": done.files}
    if arguments.format == "json":
        print_json(told)
    elif arguments.format == "csv":
        print_rows([{**told, "files": " ".join(done.files)}], list(told), "csv")
    else:
        say(f"{done.folder}: {', '.join(done.files)}")
        for name in done.missing:
            say(f"code/{name} is not in it: it is gone, or no longer what the run was trained with")
        say(f"in it, '{done.command}' trains the same bits again; README.md says it all")
    return 0
