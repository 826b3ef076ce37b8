"""A formula for benchmarks/scale.py to sweep; its lanes know the values themselves. Clocks are on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
from clocks import install
from hydra.core.config_store import ConfigStore

ConfigStore.instance().store(name="config", node={"x": 0.0, "y": 0.0, "z": 1, "kind": "a"})


@hydra.main(version_base="1.3", config_path=None, config_name="config")
def main(config: Any) -> float:
    """Never called."""
    raise NotImplementedError


if __name__ == "__main__":
    install(Path("clocks.txt"))
    main()
