"""A study of which a sampler sees the last trials only, so that asking takes no longer as a sweep grows.

Optuna shows samplers a part of a study in the same way under Hyperband: a `Study` with fewer trials.
"""

from __future__ import annotations

import copy
from collections.abc import Container

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

WITH_VALUES = (TrialState.COMPLETE, TrialState.PRUNED)
ENDED = (*WITH_VALUES, TrialState.FAIL)


class RecentStudy(Study):
    """The last ``n`` trials that samplers learn from, COMPLETE or PRUNED, and those that run, as they are now.

    Failed trials are left out and not counted: a point that was lost and tried again moves nothing.
    """

    def __init__(self, study: Study, n: int) -> None:
        super().__init__(study.study_name, study._storage, study.sampler, study.pruner)
        trials = study._get_trials(deepcopy=False)
        learnt = [trial for trial in trials if trial.state in WITH_VALUES][-n:]
        running = [trial for trial in trials if trial.state not in ENDED]
        self._kept = sorted(learnt + running, key=lambda trial: trial.number)

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        trials = [trial for trial in self._kept if states is None or trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        """Return the same to Optuna's samplers, which ask by this name."""
        return self.get_trials(deepcopy, states)
