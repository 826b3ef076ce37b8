"""What Hydra runs as besom's task, in a lane or in this process.

The trial world is imported when a trial starts, so a parent that only sweeps never loads TensorFlow.
"""

from __future__ import annotations

import sys

from omegaconf import DictConfig

from besom.seeding import fix_runtime


def task(config: DictConfig) -> float:
    """Train one configuration and return its objective."""
    if "tensorflow" not in sys.modules:  # a worker of somebody else's launcher may have an environment of its own
        fix_runtime(config.train.threads)
    import besom.trial.preload  # noqa: F401  # first: it imports quickly what the next line would import slowly
    from besom.trial.trial import run

    return run(config)
