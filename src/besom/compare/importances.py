"""How much each parameter of a sweep matters, as Optuna reckons it. Knows nothing of charts."""

from __future__ import annotations

import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.study import create_study
from optuna.trial import FrozenTrial

from besom.compare.trials import SweepTrials

FEWEST = 4
"""With fewer complete trials there is nothing to be said."""
MOST = 300
"""Of more trials so many are looked at, evenly spread: the time grows with their number, the answer hardly changes."""
TREES, FEW_TREES = 64, 16
"""Of the forest; few where there are `MANY` trials, each of which costs every tree something."""
MANY = 60


def of(trials: SweepTrials) -> dict[str, float]:
    """Return the share of each parameter that took more than one value, the largest first; they sum to 1.

    By fANOVA (Hutter et al. 2014, https://proceedings.mlr.press/v32/hutter14.html). Empty where there are too few
    trials, or none is better than another. Parameters that some complete trial lacks are left out.
    """
    params = shared_params(trials)
    if len(trials.complete) < FEWEST or len({trial.values[0] for trial in trials.complete}) < 2 or not params:
        return {}
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances  # scikit-learn: 1.5 s

    some = _evenly(trials.complete)
    study = create_study(direction="maximize" if trials.is_maximized else "minimize")
    study.add_trials(some)
    evaluator = FanovaImportanceEvaluator(n_trees=TREES if len(some) < MANY else FEW_TREES, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        shares = get_param_importances(study, evaluator=evaluator, params=params)
    return {name: float(share) for name, share in shares.items()}


def shared_params(trials: SweepTrials) -> list[str]:
    """Return the parameters that took more than one value and that every complete trial has."""
    return [name for name in trials.params if all(name in trial.params for trial in trials.complete)]


def _evenly(trials: tuple[FrozenTrial, ...]) -> list[FrozenTrial]:
    step = max(1.0, len(trials) / MOST)
    return [trials[int(place * step)] for place in range(int(len(trials) / step))]
