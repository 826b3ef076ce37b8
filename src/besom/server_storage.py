"""A study in a database server, waited for while the server is away.

Knows nothing of what a sweep writes into its study, and of SQLite.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import optuna
from optuna.trial import FrozenTrial, TrialState

from besom.database_server import connect_arguments, first_line, is_away, reaching, with_password
from besom.errors import BesomError, ConfigError, SweepLocked
from besom.withheld import without_password

log = logging.getLogger(__name__)

PATIENCE = 600.0
"""Seconds that a server may be away while a sweep runs."""
READERS_PATIENCE = 5.0
"""Likewise while somebody reads, who would rather be told."""
PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)

Result = TypeVar("Result")


class ServerStorage(optuna.storages.RDBStorage):
    """Optuna's storage that waits for its server while that is away, up to ten minutes.

    A write that the server may have done before it went is not done twice: a sweep's parent is the only one that
    writes into its study.

    Args:
        url: without a password, see `with_password`.
        on_return: called when the server answers again, before anything else is written.
        is_read: for who only reads: makes no tables, which must be there, and gives up soon.

    Raises:
        ConfigError: the server cannot be reached, or its driver is not installed.
    """

    def __init__(self, url: str, on_return: Callable[[], None] | None = None, *, is_read: bool = False) -> None:
        self._on_return = on_return
        self.while_away: Callable[[], object] = lambda: None
        """Called between two attempts; what it raises ends the waiting."""
        self._given_up: BesomError | None = None  # once it is lost, or was waited for, nothing more is written
        self._shown = without_password(url)
        self._patience = READERS_PATIENCE if is_read else PATIENCE
        whole = with_password(url)
        with reaching(url):
            super().__init__(
                whole.render_as_string(hide_password=False),
                engine_kwargs={"connect_args": connect_arguments(whole)},
                skip_table_creation=is_read,
            )

    @property
    def is_given_up(self) -> bool:
        """Whether every further call raises what was said once: it was lost, or waited for."""
        return self._given_up is not None

    def patiently(self, call: Callable[[], Result], again: Callable[[], Result] | None = None) -> Result:
        """Return what a call returns, made again while the server is away.

        Args:
            again: made in place of ``call`` once that may have been done.

        Raises:
            ConfigError: the server stayed away.
            SweepLocked: another parent has taken the sweep meanwhile.
            KeyboardInterrupt: by ``while_away``.
        """
        if self._given_up is not None:
            raise self._given_up
        try:
            return self._patiently(call, again or call)
        except (SweepLocked, ConfigError) as error:
            self._given_up = error
            raise

    def _patiently(self, call: Callable[[], Result], again: Callable[[], Result]) -> Result:
        end, pauses, was_away = time.monotonic() + self._patience, iter(PAUSES), False
        while True:
            try:
                if was_away and self._on_return is not None:
                    self._on_return()
                return again() if was_away else call()
            except Exception as error:
                if not is_away(error):
                    raise
                if time.monotonic() > end:
                    raise ConfigError(
                        f"{self._shown} has not answered for {_told(self._patience)}: {first_line(error)}; the same "
                        "command goes on once it does"
                    ) from error
                if was_away:  # the first failure may be of a connection alone that the server has ended
                    self._let_end()
                else:
                    log.warning("%s does not answer, waiting for it: %s", self._shown, first_line(error))
                was_away = True
                self._drop_connections()
                time.sleep(next(pauses, PAUSES[-1]))

    def _let_end(self) -> None:
        try:
            self.while_away()
        except KeyboardInterrupt:
            self._given_up = ConfigError(f"{self._shown} did not answer when the sweep was ended")
            raise

    def _drop_connections(self) -> None:
        with suppress(Exception):
            self.scoped_session.remove()
        with suppress(Exception):
            self.engine.dispose()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        create = super().create_new_trial
        # a sweep's trials have their numbers already: to count those that are stored, all would be read
        known = -1 if template_trial is None else template_trial.number
        number = known if known >= 0 else self.get_n_trials(study_id)

        def again() -> int:
            try:
                return self.get_trial_id_from_study_id_trial_number(study_id, number)  # the server had done it
            except KeyError:
                return create(study_id, template_trial)

        if self._on_return is not None:  # the lock's session may have ended alone, by a timeout of the server's
            self.patiently(self._on_return)
        return self.patiently(lambda: create(study_id, template_trial), again)

    def delete_study(self, study_id: int) -> None:
        delete = super().delete_study

        def again() -> None:
            with suppress(KeyError):  # the server had done it
                delete(study_id)

        self.patiently(lambda: delete(study_id), again)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        tell = super().set_trial_state_values

        def again() -> bool:
            if super(ServerStorage, self).get_trial(trial_id).state == state:
                return True
            return tell(trial_id, state, values)

        return self.patiently(lambda: tell(trial_id, state, values), again)


def _patient(name: str) -> Any:
    """Return a method of Optuna's storage that may be called again whatever became of the first call."""
    method = getattr(optuna.storages.RDBStorage, name)

    def call(self: ServerStorage, *arguments: Any, **keywords: Any) -> Any:
        return self.patiently(lambda: method(self, *arguments, **keywords))

    call.__name__, call.__doc__ = name, method.__doc__
    return call


for _name in (
    *("set_study_user_attr", "set_study_system_attr", "set_trial_param", "set_trial_intermediate_value"),
    *("set_trial_user_attr", "set_trial_system_attr", "get_study_id_from_name", "get_study_name_from_id"),
    *("get_study_directions", "get_study_user_attrs", "get_study_system_attrs", "get_all_studies", "get_trial"),
    *("get_trial_id_from_study_id_trial_number", "get_all_trials", "get_n_trials"),
):
    setattr(ServerStorage, _name, _patient(_name))


def _told(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds > 60 else f"{seconds:.0f} seconds"
