"""An app with two objectives that pull apart: near the origin, and near (5, 5)."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path="two_aims", config_name="config")
def app(config: DictConfig) -> tuple[float, float]:
    here = 4 * (config.x**2 + config.y**2)
    there = (config.x - 5) ** 2 + (config.y - 5) ** 2
    return float(here), float(there)


if __name__ == "__main__":
    app()
