"""The named samplers and pruners: what ``hydra/sweeper/sampler=NAME`` and ``hydra/sweeper/pruner=NAME`` stand for.

Plain dicts and no imports, because Hydra reads them at the start of every application. Optuna is
imported when a sweep builds one of them. Every field of the official sweeper's options is here, with
Optuna's own default; one that is null is not passed on. ``seed: null`` is drawn once per sweep and stored.
"""

from __future__ import annotations

from typing import Any

_GENETIC: dict[str, Any] = {
    "seed": None,
    "population_size": 50,
    "mutation_prob": None,
    "mutation": None,
    "crossover": None,
    "crossover_prob": 0.9,
    "swapping_prob": 0.5,
    "constraints_func": None,
}

SAMPLERS: dict[str, dict[str, Any]] = {
    "tpe": {
        "_target_": "optuna.samplers.TPESampler",
        "seed": None,
        "consider_prior": None,
        "prior_weight": None,
        "consider_magic_clip": None,
        "consider_endpoints": None,
        "n_startup_trials": 10,
        "n_ei_candidates": 24,
        "gamma": None,
        "weights": None,
        "multivariate": None,
        "group": False,
        "warn_independent_sampling": None,
        "constant_liar": True,
        "constraints_func": None,
    },
    "random": {"_target_": "optuna.samplers.RandomSampler", "seed": None},
    "grid": {"_target_": "besom.search.exhaustive.GridSampler", "seed": None},
    "bruteforce": {"_target_": "besom.search.exhaustive.BruteForceSampler", "seed": None},
    "cmaes": {
        "_target_": "optuna.samplers.CmaEsSampler",
        "seed": None,
        "x0": None,
        "sigma0": None,
        "n_startup_trials": 1,
        "independent_sampler": None,
        "warn_independent_sampling": True,
        "consider_pruned_trials": False,
        "restart_strategy": None,
        "popsize": None,
        "inc_popsize": -1,
        "use_separable_cma": False,
        "with_margin": False,
        "lr_adapt": False,
        "source_trials": None,
    },
    "nsgaii": {"_target_": "optuna.samplers.NSGAIISampler", **_GENETIC},
    "nsgaiii": {
        "_target_": "optuna.samplers.NSGAIIISampler",
        **_GENETIC,
        "reference_points": None,
        "dividing_parameter": 3,
    },
    "gp": {
        "_target_": "optuna.samplers.GPSampler",
        "seed": None,
        "independent_sampler": None,
        "n_startup_trials": 10,
        "deterministic_objective": False,
        "constraints_func": None,
        "warn_independent_sampling": True,
    },
    "qmc": {
        "_target_": "optuna.samplers.QMCSampler",
        "seed": None,
        "qmc_type": "sobol",
        "scramble": False,
        "independent_sampler": None,
        "warn_asynchronous_seeding": True,
        "warn_independent_sampling": True,
    },
    "motpe": {"_target_": "besom.search.samplers.motpe", "seed": None},
}

OFFICIAL = ("tpe", "random", "grid", "cmaes", "nsgaii", "nsgaiii", "gp", "qmc", "motpe")
"""Those that the official sweeper registers in the same group, where it is installed."""

_MEDIAN: dict[str, Any] = {
    "_target_": "optuna.pruners.MedianPruner",
    "n_startup_trials": 5,
    "n_warmup_steps": 0,
    "interval_steps": 1,
    "n_min_trials": 1,
}

PRUNERS: dict[str, dict[str, Any]] = {
    "none": {},
    "median": _MEDIAN,
    "percentile": {
        "_target_": "optuna.pruners.PercentilePruner",
        "percentile": 25.0,  # Optuna has no default; this is its example's
        "n_startup_trials": 5,
        "n_warmup_steps": 0,
        "interval_steps": 1,
        "n_min_trials": 1,
    },
    "successive_halving": {
        "_target_": "optuna.pruners.SuccessiveHalvingPruner",
        "min_resource": "auto",
        "reduction_factor": 4,
        "min_early_stopping_rate": 0,
        "bootstrap_count": 0,
    },
    "hyperband": {
        "_target_": "optuna.pruners.HyperbandPruner",
        "min_resource": 1,
        "max_resource": "auto",
        "reduction_factor": 3,
        "bootstrap_count": 0,
    },
    "threshold": {
        "_target_": "optuna.pruners.ThresholdPruner",
        "lower": None,
        "upper": None,
        "n_warmup_steps": 0,
        "interval_steps": 1,
    },
    "patient": {
        "_target_": "optuna.pruners.PatientPruner",
        "wrapped_pruner": dict(_MEDIAN),
        "patience": 5,  # Optuna has no default
        "min_delta": 0.0,
    },
}
