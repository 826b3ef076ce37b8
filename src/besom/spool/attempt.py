"""A call that may hang, given so many seconds; and MLflow's own retries, switched off for a while.

Knows nothing of MLflow but the names of its variables.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
_LOCK = threading.Lock()
_SET: dict[str, tuple[int, str | None]] = {}
"""By variable: how many threads want it otherwise now, and what it was before the first of them."""


def bounded(call: Callable[[], Any], seconds: float) -> Any:
    """Return what a call returns, or raise what it raises.

    The timeouts of libraries do not add up to a bound: each retry, each packet of an answer has its own, and the driver
    of a database may have none. The call is left to itself when its time is over: a thread cannot be stopped. Whatever
    it still does has to be harmless.

    Raises:
        TimeoutError: it takes longer than so many seconds.
    """
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append((True, call()))
        except BaseException as error:  # handed on to whoever waits
            outcome.append((False, error))

    thread = threading.Thread(target=run, daemon=True, name="besom-mlflow")
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no answer in {seconds:g} seconds")
    is_done, found = outcome[0]
    if is_done:
        return found
    raise found


@contextmanager
def once() -> Iterator[None]:
    """Switch off MLflow's retries for what must not be done twice: it repeats POST requests whose answer is lost."""
    with _set(RETRIES, "0"):
        yield


@contextmanager
def patient() -> Iterator[None]:
    """Give a server a minute for each answer: for a delivery, which keeps no trial waiting."""
    with _set(TIMEOUT, "60"):
        yield


@contextmanager
def _set(name: str, value: str) -> Iterator[None]:
    """Set a variable; what it was before comes back with the last who leaves: a call that was left may still run."""
    with _LOCK:
        users, before = _SET.get(name, (0, os.environ.get(name)))
        _SET[name] = users + 1, before
        os.environ[name] = value
    try:
        yield
    finally:
        with _LOCK:
            users, before = _SET.pop(name)
            if users > 1:
                _SET[name] = users - 1, before
            elif before is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = before
