"""Runs a notebook anew in the working directory and writes it, outputs included, without what is of this machine.

    .ci/notebook.py NOTEBOOK [OUTPUT]

OUTPUT is NOTEBOOK itself by default. A cell that raises ends it with exit code 1 and nothing is written.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
"""What Jupyter needs to know; it would add the version of this Python and the names of its parts."""


def run(notebook: NotebookNode) -> None:
    """Execute every cell in a new kernel, from the first to the last.

    Raises:
        CellExecutionError: a cell raised.
    """
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # else the kernel's debugger warns about Python's own modules
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],  # it warns of plain text, which stays here
        resources={"metadata": {"path": str(Path.cwd())}},
        record_timing=False,
    ).execute()


def tidy(notebook: NotebookNode) -> None:
    """Drop the metadata of this run, so that only what a cell shows differs from one run to the next."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
        for output in cell.get("outputs", []):
            if "metadata" in output:
                output.metadata = nbformat.from_dict({})


def main(source: str, output: str | None = None) -> int:
    """Run ``source`` and write it to ``output``; return the exit code."""
    notebook = nbformat.read(source, as_version=4)
    try:
        run(notebook)
    except CellExecutionError as error:
        sys.stderr.write(f"{source}: {error}\n")
        return 1
    tidy(notebook)
    nbformat.validate(notebook)
    nbformat.write(notebook, output or source)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
