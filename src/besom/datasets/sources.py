"""Where a user's images come from: an npz file, a folder of IDX files, a loader of one's own.

A source gives everything decoded, in file order; it knows nothing of splits and rescaling. The data sets
that besom knows by name are in `besom.datasets.pinned`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from besom.datasets import idx
from besom.datasets.archive import Archive, opened
from besom.datasets.arrays import Arrays, checked
from besom.errors import MOST_QUOTED, DataError, one_line, quoted
from besom.files import Unusable, expanded, kind_of
from besom.targets import imported

DECLARATIONS = ("input_shape", "n_classes")
"""Keys by which an own loader's config tells its shape, so that `besom.data.peek` need not call it."""


def npz(path: str) -> Arrays:
    """Return the arrays of an npz file with ``x, y`` or ``x_train, y_train, x_test, y_test``.

    Args:
        path: relative to the working directory, or absolute.

    Raises:
        DataError: when the file is missing, damaged, or its arrays are no images with labels.
    """
    with opened(path) as archive:
        return checked(path, *(archive.read(name) for name in npz_names(archive)))


def npz_or_folder(path: str) -> Arrays:
    """Return the arrays of an npz file or, where ``path`` is a folder, of the four IDX files in it.

    Raises:
        DataError: as `npz`, or when one of the IDX files is missing, damaged, or does not fit the others.
    """
    file = expanded(path)
    try:
        kind = kind_of(file)
    except Unusable as error:
        raise DataError(
            f"{quoted(path)} cannot be read ({error}); expected an npz file, or a folder of IDX files"
        ) from error
    if kind == "folder":
        return checked(path, *idx.read_folder(file))
    if kind == "missing":
        raise DataError(
            f"there is no file or folder {quoted(path)} (looked in {file.parent.absolute()}); "
            f"expected an npz file, or a folder with {', '.join(idx.FILES)}, gzipped or not"
        )
    return npz(path)


def npz_names(archive: Archive) -> tuple[str, ...]:
    """Return which of the two layouts the archive has: ``x, y`` or the four of keras.datasets."""
    layouts = (("x_train", "y_train", "x_test", "y_test"), ("x", "y"))
    for layout in layouts:
        if set(layout) <= set(archive.names):
            return layout
    raise DataError(
        f"{archive.path} holds the arrays {', '.join(archive.names)[:MOST_QUOTED] or '(none)'}; "
        "expected x and y, or x_train, y_train, x_test and y_test"
    )


def own(target: str, arguments: Mapping[str, Any]) -> Arrays:
    """Return what a user's own loader gives, checked as an npz file is.

    Args:
        target: dotted name of a function that returns ``(x, y)`` or ``(x_train, y_train, x_test, y_test)``.
        arguments: its keyword arguments; of `DECLARATIONS` it gets those that it has parameters for.

    Raises:
        ConfigError: when ``target`` cannot be imported.
        DataError: when it raises or its arrays are no images with labels.
    """
    loader = imported("data._target_", target)
    try:
        parts = loader(**_accepted(loader, arguments))
    except Exception as error:  # the user's own code runs here
        raise DataError(f"data._target_={target} raised {type(error).__name__}: {one_line(error)}") from error
    if not isinstance(parts, tuple | list) or len(parts) not in (2, 4):
        raise DataError(
            f"data._target_={target} returned {_described(parts)}; "
            "expected the arrays (x, y) or (x_train, y_train, x_test, y_test)"
        )
    return checked(target, *parts)


def _accepted(loader: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(loader).parameters
    return {key: value for key, value in arguments.items() if key not in DECLARATIONS or key in parameters}


def _described(value: Any) -> str:
    return f"{len(value)} values" if isinstance(value, tuple | list) else type(value).__name__
