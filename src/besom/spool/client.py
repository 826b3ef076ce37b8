"""The one way by which besom writes into a run: to MLflow, or on disk while MLflow is away.

When MLflow does not answer, the operation and all later ones of that run are kept, without trying again: an outage
costs a trial one wait, not one for each call. Knows nothing of what is told, see `besom.spool.operations`.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from besom.errors import one_line
from besom.experiments import import_mlflow, mlflow_client
from besom.lock import process_identity
from besom.paths import Store
from besom.spool.attempt import bounded
from besom.spool.classes import Failure, failure_of, is_race
from besom.spool.journal import Journal
from besom.spool.operations import CREATED_AS, Create, Note, Target, to_json
from besom.tracker import PROVISIONAL, is_provisional
from besom.withheld import without_password

SECONDS = 45.0
"""For one operation, MLflow's retries included; a file of the store that is locked answers after 20."""
FILES_SECONDS = 600.0
"""For files: as long as some arrive, a slow line is no outage."""
AGAIN_SECONDS = 1.0

log = logging.getLogger(__name__)


def provisional_id() -> str:
    """Return an id for a run that is to be made; the run gets it as a tag, too."""
    return PROVISIONAL + secrets.token_hex(16)


class RunWriter:
    """Writes into one run.

    Args:
        uri: MLflow's.
        folder: of the sweep's spool, see `besom.paths.Store.spool`.
        run_id: MLflow's id of the run, or a provisional one.
        trial: its number, None outside a sweep.
        is_away: do not try MLflow: it was away a moment ago.
        is_quiet: the caller tells that MLflow is away.
    """

    def __init__(
        self,
        uri: str,
        store: Store,
        folder: Path,
        run_id: str,
        trial: int | None = None,
        *,
        is_away: bool = False,
        is_quiet: bool = False,
    ) -> None:
        self.run_id = run_id
        self.why_away: str | None = None
        """The reason that MLflow gave, None as long as it answers."""
        self._uri = uri
        self._store = store
        self._folder = folder
        self._trial = trial
        self._is_quiet = is_quiet
        self._is_away = is_away or is_provisional(run_id)
        self._is_gone = False
        self._client: Any = None

    @property
    def is_spooling(self) -> bool:
        """Whether what is written waits on disk."""
        return self._is_away or self._journal.exists

    @property
    def _journal(self) -> Journal:
        return Journal(self._folder / self.run_id)

    def write(self, operation: Any, files: Path | None = None) -> None:
        """Tell MLflow, or keep the operation on disk.

        Args:
            files: the folder that it is about.

        Raises:
            OSError: MLflow is away, and the disk takes nothing either.
        """
        if self._is_gone:
            return
        if self.is_spooling:
            self._keep(operation, files)
            return
        try:
            self._attempt(operation, files)
        except Exception as error:
            self._failed(error, operation, files)

    def _failed(self, error: Exception, operation: Any, files: Path | None) -> None:
        failure = failure_of(error)
        if failure is None:
            raise error
        reason = without_password(one_line(error))
        if failure is Failure.AWAY:
            self.why_away, self._is_away = reason, True
            if not self._is_quiet:
                log.warning("MLflow does not answer (%s): what is logged waits in %s", reason, self._journal.folder)
            self._keep(operation, files)
        elif failure is Failure.GONE or self._is_deleted():
            self._is_gone = True
            log.warning("run %s was deleted in MLflow: nothing more is logged to it", self.run_id)
        else:
            log.warning("MLflow refuses the %s of run %s: %s", operation.name, self.run_id, reason)
            with suppress(Exception):  # it is told above
                self._attempt(Note(f"{operation.name}: {reason}"), None)

    def _is_deleted(self) -> bool:
        with suppress(Exception):  # it answered a moment ago
            return bool(bounded(lambda: self._client.get_run(self.run_id), SECONDS).info.lifecycle_stage != "active")
        return False

    def _attempt(self, operation: Any, files: Path | None) -> None:
        def call() -> None:
            target = self._target(files)
            try:
                operation.apply(target, again=False)
            except Exception as error:
                if not is_race(error):
                    raise
                operation.apply(target, again=True)

        if self._client is None:
            import_mlflow(self._uri)
        bounded(call, SECONDS if files is None else FILES_SECONDS)

    def _target(self, files: Path | None) -> Target:
        if self._client is None:
            self._client = mlflow_client(self._uri)
        return Target(self._client, self._uri, self._store, self.run_id, files)

    def _keep(self, operation: Any, files: Path | None) -> None:
        shown = without_password(self._uri)
        uri = {"uri": self._uri} if shown == self._uri else {}  # one with a password comes from the environment
        head = {"run_id": self.run_id, "trial": self._trial, **uri, **process_identity()}
        self._journal.append(to_json(operation), files, head=head)


def made(
    uri: str,
    store: Store,
    folder: Path,
    create: Callable[[str], Create],
    trial: int | None = None,
    *,
    experiments: dict[str, str] | None = None,
    is_away: bool = False,
) -> RunWriter:
    """Make a run, or the journal of one that is made later, and return who writes into it.

    Args:
        create: gives the operation for the provisional id, which is among its tags, see `CREATED_AS`.
        experiments: ids by name, of those that were opened; added to.
    """
    key = provisional_id()
    operation = create(key)
    reason = None
    if not is_away:
        target = Target(None, uri, store, experiments=experiments if experiments is not None else {})
        import_mlflow(uri)
        try:
            run_id = bounded(lambda: _made(operation, target), SECONDS)
            return RunWriter(uri, store, folder, run_id, trial, is_quiet=True)
        except Exception as error:
            if failure_of(error) is None:
                raise
            reason = without_password(one_line(error))
    writer = RunWriter(uri, store, folder, key, trial, is_quiet=True)
    writer.why_away = reason
    writer.write(operation)
    return writer


def _made(operation: Create, target: Target) -> str:
    """Make a run; when that fails look whether it was made all the same, and make it if not."""
    target = replace(target, client=mlflow_client(target.uri))
    try:
        return str(operation.apply(target, again=False))
    except Exception as error:
        if failure_of(error) is not Failure.AWAY:
            raise
        time.sleep(AGAIN_SECONDS)
        return str(operation.apply(target, again=True))


def creation(
    experiment: str, run_name: str, start_time: int, tags: Mapping[str, str], *, is_child: bool = False
) -> Callable[[str], Create]:
    """Return what makes a run whose tags have its provisional id, by which it is found again."""

    def create(key: str) -> Create:
        own = {**tags, CREATED_AS: key}
        return Create(experiment, run_name, start_time, own, f"tags.{CREATED_AS} = '{key}'", is_child)

    return create
