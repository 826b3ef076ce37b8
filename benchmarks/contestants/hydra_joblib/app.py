"""A Hydra app under the official Optuna sweeper and the joblib launcher, see conf/config.yaml.

python app.py data=split.npz [tuned=true]
"""

from __future__ import annotations

import json
from pathlib import Path

import hydra
import work
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> float:
    """Train one configuration in one of joblib's workers."""
    params = {name: config[name] for name in work.GRID}
    found = work.trial(params, work.load(config.data), config.epochs, config.tuned)
    Path(HydraConfig.get().runtime.output_dir, "result.json").write_text(json.dumps(found), encoding="utf-8")
    return found["val_accuracy"]


if __name__ == "__main__":
    work.open_mlflow()
    main()
    work.write_results([json.loads(file.read_text("utf-8")) for file in sorted(Path("multirun").glob("*/result.json"))])
