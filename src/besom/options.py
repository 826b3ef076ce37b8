"""The named samplers and pruners: what ``hydra/sweeper/sampler=NAME`` and ``hydra/sweeper/pruner=NAME`` stand for.

Plain dicts and no imports, because Hydra reads them at the start of every application. Optuna is
imported when a sweep builds one of them. ``seed: null`` is drawn once per sweep and stored.
"""

from __future__ import annotations

from typing import Any

SAMPLERS: dict[str, dict[str, Any]] = {
    "tpe": {
        "_target_": "optuna.samplers.TPESampler",
        "seed": None,
        "n_startup_trials": 10,
        "n_ei_candidates": 24,
        "multivariate": None,
        "group": False,
        "constant_liar": True,
    },
    "random": {"_target_": "optuna.samplers.RandomSampler", "seed": None},
    "grid": {"_target_": "besom.samplers.GridSampler", "seed": None},
}

PRUNERS: dict[str, dict[str, Any]] = {
    "none": {},
    "median": {
        "_target_": "optuna.pruners.MedianPruner",
        "n_startup_trials": 5,
        "n_warmup_steps": 0,
        "interval_steps": 1,
        "n_min_trials": 1,
    },
}
