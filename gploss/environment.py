"""What a run's figures depend on besides its settings: the machine, and the versions of packages."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import llvmlite.binding as llvm
import numba
import numpy as np
import torch
from numba.core import config

_VERSIONED = ("gploss", "numpy", "torch", "numba", "pandas", "deap")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide what is computed.

    A package that runs from a source folder is "not installed".
    """
    return {"python": platform.python_version()} | {package: _version(package) for package in _VERSIONED}


def numbers_depend_on() -> dict[str, str]:
    """Return what the bits of a trained model depend on beside data, code and settings.

    Returns:
        The versions of Python (whose compiled code is in keys), numpy, torch and numba; "matrices": torch's
        own settings of what is computed in which precision; and "processor": the
        instructions that torch chooses, and the kind that numba compiles for.
    """
    kind = vars(config)["CPU_NAME"] or llvm.get_host_cpu_name()
    return {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "numpy": np.__version__,
        "torch": torch.__version__,
        "numba": numba.__version__,
        "matrices": f"{torch.get_default_dtype()}, {torch.get_float32_matmul_precision()} precision",
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {kind}",
    }


def kind_of_device(device: torch.device) -> str:
    """Return "cpu", or "cuda" with the kind of the GPU where there is one: kinds differ in their last bits."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return device.type
    major, minor = torch.cuda.get_device_capability(device)
    return f"cuda {torch.cuda.get_device_name(device)} {major}.{minor}"


def environment(device: str = "cpu") -> dict[str, str | int]:
    """Record the machine.

    Args:
        device: where training ran, such as "cpu", "cuda" or "cuda:1".

    Returns:
        JSON values: platform, cpu (its name), cores (those this process may use), device (with the GPU's name).
    """
    return {
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": _cores(),
        "device": _device_name(device),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine() or "unknown"


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _device_name(device: str) -> str:
    if device.startswith("cuda") and torch.cuda.is_available():
        return f"{device} ({torch.cuda.get_device_name(torch.device(device))})"
    return device
