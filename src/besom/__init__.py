"""besom: experiment-tracked hyperparameter sweeps that survive, never repeat and can be reproduced.

For a task that is swept: `report`, `tell`, `current_trial`. For a notebook: `runs`, `load`, `images`, `study`.

Importing besom imports nothing heavy: an app that only uses the sweeper never loads TensorFlow,
MLflow or pandas through it.
"""

from besom.app.notebook import images, load, runs, study
from besom.reporting import current_trial, report, tell

__all__ = ["__version__", "current_trial", "images", "load", "report", "runs", "study", "tell"]

__version__ = "0.1.0"
