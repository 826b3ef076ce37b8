"""How a trial reports when it has no way to its parent: it writes into the study's storage and asks the pruner itself.

For launchers that are not besom's. Knows nothing of them; Optuna is imported at the first report only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from optuna.study import Study
    from optuna.trial import Trial


class StorageReporter:
    """Takes the reports of trials in this process, one after another.

    Args:
        url: the storage, as Optuna writes it.
        study_name: a study in it, where the trials are RUNNING.
        pruner: the fields of ``hydra.sweeper.pruner``.
        is_elsewhere: whether the sweep's parent is on another machine: a file of SQLite is not written from two.
    """

    def __init__(self, url: str, study_name: str, pruner: Mapping[str, Any], *, is_elsewhere: bool = False) -> None:
        self._is_out_of_reach = is_elsewhere and url.startswith("sqlite")
        self._url = url
        self._study_name = study_name
        self._pruner = dict(pruner)
        self._opened: tuple[RDBStorage, Study] | None = None
        self._trial: Trial | None = None

    def __call__(self, number: int, step: int, value: float) -> bool:
        """Store a value of trial ``number``; return True when it is to be pruned, or is no longer wanted.

        Of a step that is reported twice the first value counts, as in Optuna. With several objectives nothing is
        stored: Optuna prunes by one. Nor is it where the study is out of reach.
        """
        if self._is_out_of_reach:
            return False
        from optuna.exceptions import UpdateFinishedTrialError

        study = self._open()[1]
        if len(study.directions) > 1:
            return False
        trial = self._trial_of(number)
        try:
            trial.report(value, step)
        except UpdateFinishedTrialError:  # its parent gave it up, or died and was started again
            return True
        return trial.should_prune()

    def _open(self) -> tuple[RDBStorage, Study]:
        if self._opened is None:
            import optuna

            from besom.search.pruners import build_pruner
            from besom.storage import open_storage

            storage = open_storage(self._url)
            study = optuna.load_study(
                study_name=self._study_name,
                storage=storage,
                sampler=optuna.samplers.RandomSampler(),  # nothing is sampled here, and this one reads nothing
                pruner=build_pruner(self._pruner),
            )
            self._opened = storage, study
        return self._opened

    def _trial_of(self, number: int) -> Trial:
        if self._trial is None or self._trial.number != number:
            from optuna.trial import Trial

            storage, study = self._open()
            study_id = storage.get_study_id_from_name(self._study_name)
            self._trial = Trial(study, storage.get_trial_id_from_study_id_trial_number(study_id, number))
        return self._trial

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None, "_trial": None}  # a connection does not cross to another process
