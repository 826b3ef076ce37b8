"""besom: experiment-tracked hyperparameter sweeps that survive, never repeat and can be reproduced.

Importing besom imports nothing heavy: an app that only uses the sweeper never loads TensorFlow,
MLflow or pandas through it.
"""

from besom.reporting import current_trial, report, tell

__all__ = ["__version__", "current_trial", "report", "tell"]

__version__ = "0.1.0"
