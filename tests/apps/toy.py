"""A Hydra app that is not besom's: a cheap objective that misbehaves on demand; no Keras, no MLflow."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

import besom

ConfigStore.instance().store(
    name="toy",
    node={
        "defaults": [
            "_self_",
            {"override hydra/sweeper": "besom"},
            {"override hydra/launcher": "besom_lanes"},
        ],
        "x": 1,
        "y": 2,
        "seconds": 0.0,
        "misdeed": None,  # what to do where x == 3
        "flag": None,  # a file: do the misdeed only while it exists
        "returns": "one",  # or "two" objectives, or a "mapping" with facts
        "hydra": {"sweep": {"dir": "sweep"}, "sweeper": {"direction": "maximize"}},
    },
)
ConfigStore.instance().store(group="extra", name="good", node={"a": 1})


def misbehave(misdeed: str) -> object:
    """Do what the name says."""
    if misdeed == "raise":
        raise ValueError("x is three")
    if misdeed == "exit":
        sys.exit(3)
    if misdeed == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if misdeed == "sleep":
        time.sleep(600)
    if misdeed == "memory":
        resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))  # 2 GB, where the machine itself would give more
        bytearray(2**32)
    if misdeed == "tells":
        besom.tell(point=7)
    if misdeed == "unpicklable":
        return threading.Lock()
    return {"nan": float("nan"), "inf": float("inf"), "none": None, "text": "three"}[misdeed]


@hydra.main(version_base="1.3", config_path=None, config_name="toy")
def app(config: DictConfig) -> object:
    with Path(HydraConfig.get().sweep.dir, "trained.txt").open("a", encoding="utf-8") as log:
        log.write(f"{HydraConfig.get().job.num} {config.x} {config.y}\n")
    for step in range(3):
        besom.report(step, config.x * step)
    time.sleep(config.seconds)
    if config.x == 3 and config.misdeed and (config.flag is None or Path(config.flag).exists()):
        return misbehave(config.misdeed)
    value = config.x * 10 + config.y
    besom.tell(size=config.x * 100)
    return {"one": value, "two": [config.x, -config.y], "mapping": {"objective": value, "cost": config.y}}[
        config.returns
    ]


if __name__ == "__main__":
    app()
