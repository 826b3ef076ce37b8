"""Where the runs of a sweep go, and `MlflowTracker`, which records one in MLflow.

What MLflow is told of a run, and how, is in `besom.experiments`, whose names are here too. Knows nothing of Optuna,
Hydra and Keras.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from besom.configs.schema import TrialConfig
from besom.databases import is_there
from besom.errors import BesomError, ConfigError, StoreDamaged, UserError, one_line
from besom.experiments import (
    ENVIRONMENT,
    PARAM_LENGTH,
    PARAMS_PER_CALL,
    TAG_LENGTH,
    as_text,
    checked_file,
    clipped,
    create_run,
    find_experiment,
    fix_environment,
    import_mlflow,
    log_tags,
    log_values,
    milliseconds,
    mlflow_client,
    open_experiment,
    params_of,
    process_tags,
    run_tags,
)
from besom.files import read_bounded
from besom.paths import Store, write_atomically
from besom.spool.attempt import bounded
from besom.spool.classes import failure_of
from besom.spool.client import SECONDS, creation
from besom.spool.deliver import SWEEPS_OWN, is_waiting, pending
from besom.spool.operations import Batch, End, Target, param_batches, source_tags, sweeps_own_run
from besom.spool.outbox import Outbox
from besom.tracker import NoteIds
from besom.uris import absolute_uri, check_no_password, refuse_unasked_server, split_uri
from besom.withheld import without_password

__all__ = [
    "ENVIRONMENT",
    "PARAMS_PER_CALL",
    "PARAM_LENGTH",
    "STATUS",
    "TAG_LENGTH",
    "MlflowTracker",
    "as_text",
    "checked_file",
    "clipped",
    "create_run",
    "find_experiment",
    "fix_environment",
    "is_given",
    "keep_uri",
    "log_tags",
    "log_values",
    "milliseconds",
    "mlflow_client",
    "open_experiment",
    "params_of",
    "process_tags",
    "run_tags",
    "tracking_uri",
    "uri_of",
]

STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
"""Optuna's word for the end of a trial → MLflow's."""
MOST_BYTES = 10_000
"""Of the file in which a sweep keeps its ``tracking.uri``."""


def tracking_uri(config: TrialConfig, environ: Mapping[str, str] = os.environ) -> str:
    """Return where runs go: ``tracking.uri``, else ``MLFLOW_TRACKING_URI``, else the store's database.

    Raises:
        ConfigError: the URI holds a password, or is a folder, which MLflow no longer takes.
    """
    return _uri(config.tracking.uri, Store.at(config.paths.store), environ)


def uri_of(store: Store, sweep: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """Return where the runs of a sweep went: what it was started with, else ``MLFLOW_TRACKING_URI``, else the store.

    Raises:
        ConfigError: that is a server which only the store names.
        StoreDamaged: the store's file says nothing that can be used.
    """
    kept = store.tracking_uri(sweep) if sweep else None
    if kept is None or not is_there(kept):
        return _uri(None, store, environ)
    try:
        found = _uri(read_bounded(kept, MOST_BYTES).decode(), store, environ)
    except (OSError, ValueError, ConfigError) as error:
        raise StoreDamaged(f"{kept} holds no tracking.uri: {one_line(error)}; put it back from a copy") from error
    if sweep and not found.startswith("sqlite:"):
        refuse_unasked_server(found, _given_here(sweep, environ), f"the store's sweep '{sweep}'", environ)
    return found


def _given_here(sweep: str, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the URIs that somebody here has given: by environment, or in the project around this folder."""
    yield environ.get("MLFLOW_TRACKING_URI", "")
    from besom.configs.compose import composed_here

    config = composed_here(sweep)
    if config is not None:
        yield str(config.tracking.uri or "")


def is_given(uri: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether ``MLFLOW_TRACKING_URI`` gives a URI, so that not a store but somebody here names what is behind."""
    given = environ.get("MLFLOW_TRACKING_URI")
    return bool(given) and absolute_uri(str(given)) == uri


def keep_uri(store: Store, sweep: str, given: str | None) -> None:
    """Store the ``tracking.uri`` of a sweep for those who read it later; it holds no password."""
    if given:
        write_atomically(store.tracking_uri(sweep), given)
    else:
        store.tracking_uri(sweep).unlink(missing_ok=True)


def _uri(given: str | None, store: Store, environ: Mapping[str, str]) -> str:
    if given:
        check_no_password(given, "tracking.uri")
    uri = given or environ.get("MLFLOW_TRACKING_URI") or store.mlflow_uri
    if split_uri(uri).scheme in ("", "file") and uri != "databricks":
        name = "tracking.uri" if given else "MLFLOW_TRACKING_URI"
        raise ConfigError(f"{name}={uri!r} is a folder; MLflow takes sqlite:///FILE, postgresql://…, http://…")
    return absolute_uri(uri)


class MlflowTracker:
    """Records a sweep in MLflow: one experiment, one parent run, one child run a trial.

    See `besom.tracker.Tracker` for the contract. It is told everything in `open_sweep`, so Hydra
    can build it without arguments. While MLflow is away all waits in the store's ``spool/``, see `besom.spool.outbox`.
    """

    _outbox: Outbox
    _sweep = ""
    _client: Any = None
    _parent_id: str | None = None

    def open_sweep(self, name: str, config: Mapping[str, Any], *, is_resume: bool = False) -> None:
        store = Store.at(config["paths"]["store"])
        self._sweep, self._outbox = name, Outbox(_uri(config["tracking"]["uri"], store, os.environ), store, name)
        fix_environment()
        self._outbox.clear()
        self._outbox.drop_end()
        if not (is_resume and self.undelivered) or self._outbox.look(at_once=True):
            self._open_if_there(is_resume=is_resume)

    def _open_if_there(self, *, is_resume: bool) -> None:
        import_mlflow(self._outbox.uri)
        try:
            bounded(self._open, SECONDS)
        except Exception as error:
            cause = error.__cause__ if isinstance(error, UserError) else error
            if cause is None or failure_of(cause) is None or (isinstance(error, BesomError) and not is_resume):
                raise  # the user's to mend, or a mistake of besom's
            reason = without_password(one_line(error))
            if not is_resume:
                place = without_password(self._outbox.uri)
                raise ConfigError(f"MLflow at {place} cannot be used: {reason}") from error
            self._outbox.why_away = reason
        if self._parent_id is not None:
            self._outbox.drop_end(self._parent_id)

    def _open(self) -> None:
        box = self._outbox
        self._client, box.experiments[self._sweep] = open_experiment(box.uri, self._sweep, box.store)
        target = Target(self._client, box.uri, box.store, experiments=box.experiments)
        self._parent_id = self._take_up_parent() or sweeps_own_run(self._sweep).apply(target, again=False)

    def start_trial(self, number: int, config: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        own = {"kind": "trial", "sweep": self._sweep, "trial": str(number), "state": "RUNNING"}
        parent = {"mlflow.parentRunId": self._parent_id} if self._parent_id else {}
        name, every = f"{self._sweep}-{number}", {**source_tags(), **tags, **own, **parent}
        writer = self._outbox.make(creation(self._sweep, name, milliseconds(), every, is_child=True), number)
        for batch in param_batches(config):
            writer.write(batch)
        self._outbox.hear(writer)
        return writer.run_id

    def end_trial(self, run_id: str, state: str, reason: str | None, died: bool) -> None:
        status = "KILLED" if died and state == "FAIL" else STATUS[state]
        tags = {"state": state, **({"reason": reason} if reason else {})}
        self._outbox.write(run_id, End(status, milliseconds(), tags))

    def running_trials(self) -> list[tuple[str, int]]:
        waiting = pending(self._outbox.store, self._sweep)
        found = [(one.run_id, one.trial) for one in waiting if one.trial is not None and not one.has_ended]
        running = [run for run in self._running_runs() if not is_waiting(run.info.run_id, run.data.tags, waiting)]
        return found + [(run.info.run_id, int(run.data.tags["trial"])) for run in running]

    def _running_runs(self) -> list[Any]:
        found: list[Any] = []
        token, query = None, "tags.kind = 'trial' and attributes.status = 'RUNNING'"
        while self._outbox.why_away is None:
            page = self._outbox.ask(partial(self._search, query, token))
            found += page or []
            token = page.token if page else None
            if not token:
                break
        return found

    def close_sweep(self, summary: Mapping[str, float], best_number: int | None, finished: bool) -> None:
        now = milliseconds()
        tags = {} if best_number is None else {"best_trial": str(best_number)}
        numbers = Batch(metrics=[(key, float(value), now, 0) for key, value in summary.items()], tags=tags)
        end = End("FINISHED" if finished else "KILLED", now, {})
        if self._parent_id:
            self._outbox.write(self._parent_id, numbers, end)
        else:
            self._outbox.write(SWEEPS_OWN, sweeps_own_run(self._sweep), numbers, end)

    def deliver(self, note: NoteIds, seconds: float = math.inf) -> bool:
        was_away = self._outbox.why_away is not None
        if not (was_away or self.undelivered) or not self._outbox.look(at_once=seconds == math.inf):
            return False
        if self._parent_id is None:
            began = time.monotonic()
            try:
                self._open_if_there(is_resume=True)
            except UserError as error:  # while trials run: the next start refuses it
                self._outbox.why_away = without_password(one_line(error))
            if self._outbox.why_away is not None:
                self._outbox.rest(began)
        if self._outbox.why_away is None:
            self._outbox.deliver(note, seconds)
        return was_away and self._outbox.why_away is None

    @property
    def undelivered(self) -> int:
        return self._outbox.n_waiting if self._sweep else 0

    def news(self) -> list[str]:
        return self._outbox.news() if self._sweep else []

    def _take_up_parent(self) -> str | None:
        """Return the parent run of an earlier start, RUNNING again, or None."""
        for run in self._search("tags.kind = 'sweep'"):
            run_id = str(run.info.run_id)
            log_tags(self._client, run_id, process_tags())
            self._client.update_run(run_id, status="RUNNING")
            return run_id
        return None

    def _search(self, query: str, token: str | None = None) -> Any:
        experiment_id = self._outbox.experiments[self._sweep]
        return self._client.search_runs([experiment_id], query, page_token=token)
