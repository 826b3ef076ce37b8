"""What a person sees of `besom doctor`, `besom repair` and `besom relocate`."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from besom.tables import print_json, print_rows, say

if TYPE_CHECKING:
    from besom.paths import Store

COLUMNS = ("level", "where", "what", "mend")


def doctor(store: Store, arguments: Namespace) -> int:
    """Print what is found; exit 1 where something is wrong, 0 where there are notes only."""
    from besom.upkeep.doctor import examine
    from besom.upkeep.findings import worst

    found = examine(store, arguments.name)
    rows = [one.to_row() for one in found]
    if arguments.format == "json":
        print_json({"store": str(store.root), "findings": rows})
    elif arguments.format == "csv" or rows:
        print_rows(rows, COLUMNS, arguments.format)
    is_wrong = worst(found) in ("error", "warning")
    if arguments.format == "table":
        counts = {level: sum(one.level == level for one in found) for level in ("error", "warning")}
        told = ", ".join(f"{number} {level}{'s' if number > 1 else ''}" for level, number in counts.items() if number)
        say(f"\n{store.root}: {told if is_wrong else 'nothing is wrong'}")
    return int(is_wrong)


def repair(store: Store, arguments: Namespace) -> int:
    """Say what is done, line by line; exit 1 where something is left."""
    from besom.upkeep.moved import refuse_moved
    from besom.upkeep.repair import repair
    from besom.upkeep.steps import LEFT, Deed
    from besom.upkeep.untouched import looking

    with looking() as look:  # a dry run changes nothing
        refuse_moved(store, look)
    deeds: list[Deed] = []
    for one in repair(store, arguments.name, dry_run=arguments.dry_run):
        deeds.append(one)
        if arguments.format == "table":
            say(f"{one.deed}: {one.where}: {one.what}")
    rows = [one.to_row() for one in deeds]
    if arguments.format == "json":
        print_json({"store": str(store.root), "deeds": rows})
    elif arguments.format == "csv":
        print_rows(rows, ("deed", "where", "what"), "csv")
    elif not deeds:
        say(f"{store.root}: there is nothing to mend")
    return int(any(one.deed == LEFT for one in deeds))


def relocate(store: Store, arguments: Namespace) -> int:
    """Say what was changed; exit 0 where nothing has moved, too."""
    from besom.compare.catalog import no_store
    from besom.upkeep.relocate import relocate

    if not store.exists:
        raise no_store(store)
    former, changes, elsewhere = relocate(store)
    rows = [{"what": one.what, "number": one.number} for one in changes]
    if arguments.format == "json":
        where = [{"sweep": one.sweep, "uri": one.uri} for one in elsewhere]
        content = {"store": str(store.root), "former": [str(one) for one in former]}
        print_json({**content, "changed": rows, "elsewhere": where})
    elif arguments.format == "csv":
        print_rows(rows, ("what", "number"), "csv")
    elif not former:
        say(f"{store.root} is where its addresses say: nothing has moved")
    else:
        say(f"{store.root} was {' and '.join(map(str, former))}; changed:")
        print_rows(rows, ("what", "number"), "table")
        for one in elsewhere:
            say(f"the runs of sweep '{one.sweep}' are at {one.uri}: what addresses it has nobody can change from here")
    return 0
