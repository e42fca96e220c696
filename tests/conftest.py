"""Every skip of the suite, and where GPU code runs.

Where SKETCHIFY_TEST_ALL is set, what would be skipped fails; SKETCHIFY_REQUIRE_GPU=1 does so for
the tests marked `gpu` alone, SKETCHIFY_REQUIRE_CHROMIUM=1 for those in a browser. Without a GPU the
kernels run in Triton's interpreter and numba's simulator, and torch on the processor.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import torch

GPU = torch.cuda.is_available()
if not GPU:  # both are read when the libraries are imported
    os.environ["TRITON_INTERPRET"] = "1"
    os.environ["NUMBA_ENABLE_CUDASIM"] = "1"

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in jobs in the background
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # ONNX Runtime reads it when it starts

from sketchify_rt.kernels import native  # noqa: E402


def skip(reason: str, *, unless: str = "SKETCHIFY_TEST_ALL") -> NoReturn:
    if any(os.environ.get(name, "0") != "0" for name in ("SKETCHIFY_TEST_ALL", unless)):
        pytest.fail(f"must run here: {reason}")
    pytest.skip(reason)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out files of which -m deselects all, for they may import what is not installed."""
    if collection_path.suffix != ".py":
        return None
    text = collection_path.read_text(encoding="utf-8")
    match config.option.markexpr:
        case "not slow":
            all_slow = re.search(r"^pytestmark = \[?\s*pytest\.mark\.slow\b", text, re.MULTILINE)
            return bool(all_slow) or None
        case "slow" | "gpu" as mark:
            return f"pytest.mark.{mark}" not in text or None
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    if not GPU and item.get_closest_marker("gpu"):
        skip("no NVIDIA GPU", unless="SKETCHIFY_REQUIRE_GPU")


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Waits for what another thread or process does, of which no event tells."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "took too long"
        time.sleep(0.001)


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def isa(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name not in native.isas():
        skip(f"this processor has no {name}")
    return name


@pytest.fixture
def device() -> torch.device:
    """Where GPU code is tested: the card, or else the processor."""
    return torch.device("cuda" if GPU else "cpu")
