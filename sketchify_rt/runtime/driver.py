"""The version of NVIDIA's driver."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path


def driver() -> str:
    """Return the version of the kernel driver.

    If the system does not tell it, as in WSL, it is the version of CUDA that the driver is for,
    "for CUDA 13.1"; "unknown" without a driver.
    """
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return _of_cuda()
    found = re.search(r"\s(\d+\.\d+(\.\d+)?)\s", text)
    return found[1] if found else _of_cuda()


def _of_cuda() -> str:
    version = ctypes.c_int()
    try:
        failed = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return "unknown"
    return "unknown" if failed else f"for CUDA {version.value // 1000}.{version.value % 1000 // 10}"
