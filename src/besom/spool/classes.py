"""What an error of MLflow means for what was being told: is it away, is the run gone, or does it refuse this alone.

Names only: MLflow, SQLAlchemy and requests are asked for what they raised, not imported.
"""

from __future__ import annotations

import socket
from enum import Enum
from typing import Any

from besom.errors import BesomError, StoreBusy, StoreDamaged, causes


class Failure(Enum):
    """AWAY: nothing was said about the operation, it can be told later; GONE: somebody deleted the run; REFUSED."""

    AWAY = "away"
    GONE = "gone"
    REFUSED = "refused"


AWAY_STATUS = frozenset({401, 403, 407, 408, 421, 425, 429})
"""HTTP status below 500 that says nothing about what was sent: who may send it, when, and where to."""
GONE_CODES = ("RESOURCE_DOES_NOT_EXIST",)
AWAY_CODES = ("ENDPOINT_NOT_FOUND", "CUSTOMER_UNAUTHORIZED", "UNAUTHENTICATED", "PERMISSION_DENIED")
RACE = ("IntegrityError",)
SOCKETS = (ConnectionError, TimeoutError, socket.gaierror)
DATABASE_AWAY = ("OperationalError", "InterfaceError", "TimeoutError", "DisconnectionError", "InternalError")


def failure_of(error: BaseException) -> Failure | None:
    """Return what an error means, None where it is no failure of MLflow but a mistake of besom's.

    Of an error that nobody knows, from a network or a database, AWAY: what is kept on disk is not lost.
    """
    if type(error).__name__ in ("RestException", "MlflowException", "InvalidUrlException"):
        return _of_mlflow(error)
    modules = {kind.__module__.split(".")[0] for kind in type(error).__mro__}
    if modules & {"requests", "urllib3", "sqlalchemy", "botocore", "boto3", "google", "azure", "besom"}:
        return _of_status(getattr(getattr(error, "response", None), "status_code", None))
    return Failure.AWAY if isinstance(error, OSError) else None  # sockets, timeouts, disks


def is_outage(error: BaseException) -> bool:
    """Tell whether an error that means AWAY is of the way to MLflow, so that it can be told of no other run either.

    Not so where it is of one run: of its files, or of an experiment in the trash.
    """
    return any(_is_of_the_way(cause) for cause in causes(error))


def _is_of_the_way(error: BaseException) -> bool:
    if isinstance(error, (*SOCKETS, StoreBusy, StoreDamaged)):
        return True
    is_besoms_or_a_files = isinstance(error, BesomError) or type(error).__module__ in ("builtins", "shutil")
    return not is_besoms_or_a_files and failure_of(error) is Failure.AWAY


def is_race(error: BaseException) -> bool:
    """Tell whether a database refused what another process had written at that moment: once more, and it is there."""
    return any(type(cause).__name__ in RACE for cause in causes(error))


def _of_mlflow(error: Any) -> Failure:
    code = str(error.error_code)
    if code in AWAY_CODES:
        return Failure.AWAY
    if code in GONE_CODES:
        return Failure.GONE
    if any(type(cause).__name__ in DATABASE_AWAY for cause in causes(error.__cause__)):
        return Failure.AWAY  # MLflow calls a broken connection a bad request
    status = error.get_http_status_code()
    return Failure.AWAY if status >= 500 else _of_status(status)


def _of_status(status: int | None) -> Failure:
    return Failure.REFUSED if status is not None and status < 500 and status not in AWAY_STATUS else Failure.AWAY
