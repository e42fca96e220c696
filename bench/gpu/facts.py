"""The machine, its card, and what is installed."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import torch

from bench import harness

PACKAGES = (
    "opencv-python",
    "triton",
    "numba",
    "numba-cuda",
    "nvidia-dali-cuda120",
    "nvidia-dali-cuda130",
    "nvidia-nvimgcodec-cu12",
    "nvidia-nvimgcodec-cu13",
    "cvcuda-cu12",
    "cvcuda-cu13",
    "onnx",
    "onnxscript",
)
_ASKED = "driver_version,power.limit,clocks.max.sm"


def facts(device: torch.device) -> dict[str, object]:
    """Machine, card, driver, versions, commit and date."""
    return {
        **harness.machine(),
        **harness.versions(PACKAGES),
        **_card(device),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "libnvcuvid": _loads("libnvcuvid.so.1"),  # the JPEG engine needs this part of the driver
        "commit": _told("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"),
    }


def _card(device: torch.device) -> dict[str, object]:
    if device.type == "cpu":
        return {"card": "none"}
    card = torch.cuda.get_device_properties(device)
    query = f"--query-gpu={_ASKED}"
    told = _told("nvidia-smi", query, "--format=csv,noheader", f"--id=GPU-{card.uuid}") or _told(
        "nvidia-smi", query, "--format=csv,noheader"
    )
    lines = (told or "unknown,unknown,unknown").splitlines()
    driver, power, clock = (value.strip() for value in lines[0].split(","))
    return {
        "card": card.name,
        "capability": f"{card.major}.{card.minor}",
        "multiprocessors": card.multi_processor_count,
        "memory_gib": round(card.total_memory / 2**30, 1),
        "l2_mib": card.L2_cache_size // 2**20,
        "driver": driver,
        "power_limit": power,
        "highest_clock": clock,
    }


def _loads(library: str) -> str:
    """Why a shared library cannot be loaded; "loads" if it can."""
    try:
        ctypes.CDLL(library)
    except OSError as error:
        return str(error)
    return "loads"


def _told(*command: str) -> str | None:
    """What a command prints; None where it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
