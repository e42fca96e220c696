"""The version of NVIDIA's driver."""

from __future__ import annotations

import re
from pathlib import Path


def driver() -> str:
    """Version of the kernel driver, "unknown" where the system does not tell."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return "unknown"
    found = re.search(r"\s(\d+\.\d+(\.\d+)?)\s", text)
    return found[1] if found else "unknown"
