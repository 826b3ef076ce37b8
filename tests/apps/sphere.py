"""The smallest app that a sweep makes sense for: how far a point is from the middle, squared or not."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

NORMS = {"squares": lambda value: value**2, "absolutes": abs}


@hydra.main(version_base="1.3", config_path="sphere", config_name="config")
def app(config: DictConfig) -> float:
    if config.get("error"):
        raise RuntimeError("the config asks for an error")
    norm = NORMS[config.norm.name] if "norm" in config else NORMS["squares"]
    return float(norm(config.x) + norm(config.y))


if __name__ == "__main__":
    app()
