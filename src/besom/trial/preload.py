"""What a process that trains imports, quickly and quietly: import this module for that.

Keras looks for scikit-learn and matplotlib and does without them; together they are a third of what it takes to
start, and nothing here needs them. Who imports them later gets them, but for `keras.wrappers` and the plots of
`keras.visualization`, which have looked by then.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from besom.quiet import native_stderr_hushed

NOT_NEEDED = ("sklearn", "matplotlib")


@contextmanager
def _hidden(names: tuple[str, ...]) -> Iterator[None]:
    """Make packages look as if they were not installed, unless they are imported already."""
    modules: dict[str, Any] = sys.modules
    hidden = [name for name in names if name not in modules]
    modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            del modules[name]


with native_stderr_hushed():
    with _hidden(NOT_NEEDED):
        import keras  # noqa: F401
    import mlflow.keras
    import mlflow.pyfunc  # noqa: F401
    import pandas  # noqa: F401

    import besom.trial.filter_pictures
    import besom.trial.pictures
    import besom.trial.trial  # noqa: F401

gc.collect()
gc.freeze()  # all this is there for good: whoever looks for garbage need not look here
