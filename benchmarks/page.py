"""Makes the sections of docs/benchmarks.md, and their charts, out of what the benchmarks measured.

    python benchmarks/page.py                          from benchmarks/peers.json and its like, those that are there
    python benchmarks/page.py --peers other.json --page other.md

A section stands between two comments, ``<!-- peers -->`` and ``<!-- /peers -->``; everything else on the page is
left as it is. A further section is one more module of sections/, and one more entry in its `SECTIONS`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from sections import SECTIONS

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"


def main() -> None:
    """Write every section whose data is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in SECTIONS:
        parser.add_argument(f"--{name}", type=Path, default=HERE / f"{name}.json", help="default: %(default)s")
    parser.add_argument("--page", type=Path, default=PAGE, help="default: %(default)s")
    given = parser.parse_args()
    files = {name: getattr(given, name) for name in SECTIONS if getattr(given, name).is_file()}
    if not files:
        print("page: nothing was measured yet; run: make bench", file=sys.stderr)
        sys.exit(2)
    text = given.page.read_text("utf-8") if given.page.is_file() else "# What besom costs, and what it saves\n"
    for name, file in files.items():
        text = replaced(text, name, SECTIONS[name](json.loads(file.read_text("utf-8")), given.page))
    given.page.write_text(text, encoding="utf-8")


def replaced(text: str, name: str, section: str) -> str:
    """Return a page with a section between its two comments, which are added at the end where they are missing."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if start not in text:
        text = f"{text.rstrip()}\n\n{start}\n{end}\n"
    between = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    return between.sub(lambda _: f"{start}\n{section.strip()}\n{end}", text, count=1)


if __name__ == "__main__":
    main()
