"""The packages and the machine that a result depends on; nothing heavy is imported to look at them."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

PACKAGES = ("tensorflow", "keras", "numpy", "besom")

ONEDNN = (
    *("TF_ENABLE_ONEDNN_OPTS", "TF_SET_ONEDNN_FPMATH_MODE"),
    *("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"),
)
"""The environment variables that decide whether and how exactly oneDNN computes; not those that only look at it."""

LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_CPU_ISA_HINTS", "NPY_DISABLE_CPU_FEATURES")
"""Those that keep a library from using all that the CPU has: as good as another CPU."""

GPU_NAMES = "BESOM_GPU_NAMES"
"""Variable with the names of the GPUs that this process trains on, JSON; set once it does."""

INSTRUCTION_SETS = ("sse", "ssse", "avx", "fma", "f16c", "bmi", "amx", "vnni", "asimd", "sve", "neon", "bf16")
"""How the CPU flags start that decide which kernels oneDNN and Eigen take, on x86 and ARM."""


def environment(threads: int, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return what of this machine and its packages a result depends on: ``packages onednn threads cpu``.

    ``cpu`` has ``gpus`` too where there are some: what is computed there depends on them as elsewhere on the CPU.
    ``packages`` are versions by name; ``onednn`` and ``cpu.limits`` the environment variables that are set; ``cpu``
    has the ``model`` name and the sorted ``flags`` of its instruction sets beside.
    """
    return {
        "packages": _packages(),
        "onednn": _given(ONEDNN, environ),
        "threads": threads,
        "cpu": {**_cpu(), "limits": _given(LIMITS, environ), **_gpus(environ)},
    }


def _gpus(environ: Mapping[str, str]) -> dict[str, list[str]]:
    names = json.loads(environ.get(GPU_NAMES, "[]"))
    return {"gpus": names} if names else {}


def _given(names: tuple[str, ...], environ: Mapping[str, str]) -> dict[str, str]:
    return {name: environ[name] for name in names if name in environ}


@cache
def _packages() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}


@cache
def _cpu() -> dict[str, Any]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0]
    except OSError:  # not Linux
        text = ""
    pairs = (line.partition(":") for line in text.splitlines())
    fields = {name.strip(): value.strip() for name, _, value in pairs}
    flags = fields.get("flags", fields.get("Features", "")).split()
    return {
        "model": fields.get("model name") or platform.processor() or platform.machine(),
        "flags": sorted(flag for flag in flags if flag.startswith(INSTRUCTION_SETS)),
    }
