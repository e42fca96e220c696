"""The version of NVIDIA's driver."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path


def driver() -> str:
    """Version of the kernel driver.

    Where the system does not tell, as in WSL, that of the CUDA it is for; "unknown" without one.
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
