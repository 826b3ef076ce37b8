"""An app whose space is partly code: where z may be depends on x, and w is in no config."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig
from optuna.trial import Trial


@hydra.main(version_base="1.3", config_path="moving_space", config_name="config")
def app(config: DictConfig) -> float:
    return float(config.w**2 + config.x**2 + config.y**2 + config.z**2)


def add_parameters(config: DictConfig, trial: Trial) -> None:
    """Suggest z near x, and w."""
    x = trial.params["x"]
    trial.suggest_float("z", x - config.z_is_near_x_by, x + config.z_is_near_x_by)
    trial.suggest_float("+w", 0.0, 1.0)  # an override of Hydra's: a key that the config has not


if __name__ == "__main__":
    app()
