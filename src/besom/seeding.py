"""What must be fixed before a trial so that it gives the same bits anywhere on one kind of CPU.

Pure arithmetic and environment variables; TensorFlow is not imported here, because the variables
count only when they are set before it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping

import numpy as np
from numpy.typing import NDArray

ONEDNN_SWITCH = "TF_ENABLE_ONEDNN_OPTS"
GPUS = "BESOM_GPUS"
"""Variable of a lane that an engine has given GPUs; its processes see those, all others none."""
ON_GPUS = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "TF_DETERMINISTIC_OPS": "1", "TF_CUDNN_DETERMINISTIC": "1"}
"""There: lanes that share a GPU take what they need of it, and no kernels are used that sum in any order."""


def runtime_environment(
    threads: int, *, onednn: bool = True, environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return the environment variables of a training process with so many threads, GPUs hidden but in a lane with some.

    Args:
        onednn: whether TensorFlow computes with oneDNN; besom trains with it, and a reproduction may do without, to see
            whether a difference comes from there.
    """
    return {
        "OMP_NUM_THREADS": str(threads),
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "TF_NUM_INTEROP_THREADS": str(threads),
        ONEDNN_SWITCH: str(int(onednn)),
        **(ON_GPUS if environ.get(GPUS) else {"CUDA_VISIBLE_DEVICES": "-1"}),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "KERAS_BACKEND": "tensorflow",
        "PYTHONHASHSEED": "0",
    }


def fix_runtime(threads: int, environment: MutableMapping[str, str] = os.environ, *, onednn: bool = True) -> None:
    """Set the environment of this process and of those it starts; call before TensorFlow is imported."""
    environment.update(runtime_environment(threads, onednn=onednn, environ=environment))


def epoch_order(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """Return the order, shape (n,), in which epoch ``epoch`` (from 0) visits ``n`` training images."""
    return np.random.default_rng([seed, epoch]).permutation(n)
