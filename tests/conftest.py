"""Every skip of the suite, and where GPU code runs.

Where SKETCHIFY_TEST_ALL is set, what would be skipped fails; SKETCHIFY_REQUIRE_GPU=1 does so for
the tests marked `gpu` alone, SKETCHIFY_REQUIRE_CHROMIUM=1 for those in a browser. Without a GPU the
kernels run in Triton's interpreter and numba's simulator, and torch on the processor.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch

GPU = torch.cuda.is_available()
if not GPU:  # both are read when the libraries are imported
    os.environ["TRITON_INTERPRET"] = "1"
    os.environ["NUMBA_ENABLE_CUDASIM"] = "1"

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in jobs in the background
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # ONNX Runtime reads it when it starts


def pytest_configure(config: pytest.Config) -> None:
    # numba-cuda 0.30 gives this warning when it is imported beside NumPy 2.5.
    generic = "ignore:The 'generic' unit for NumPy timedelta:DeprecationWarning"
    config.addinivalue_line("filterwarnings", generic)


def skip(reason: str, *, unless: str = "SKETCHIFY_TEST_ALL") -> NoReturn:
    if any(os.environ.get(name, "0") != "0" for name in ("SKETCHIFY_TEST_ALL", unless)):
        pytest.fail(f"must run here: {reason}")
    pytest.skip(reason)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out files of which -m selects no test: they may import what is not installed."""
    if not collection_path.match("test_*.py"):
        return None
    text = collection_path.read_text(encoding="utf-8")
    match config.option.markexpr:
        case "not slow":
            selected = not re.search(r"^pytestmark = \[?\s*pytest\.mark\.slow", text, re.MULTILINE)
        case "slow":
            selected = "pytest.mark.slow" in text
        case "gpu":
            selected = "pytest.mark.gpu" in text or "device: torch.device" in text
        case _:
            return None
    return None if selected else True


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by mark
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On a card `-m gpu` selects all tests that run there."""
    for item in items:
        if GPU and "device" in getattr(item, "fixturenames", ()):
            item.add_marker("gpu")


def needs(*modules: str) -> None:
    """Skip the test unless all these modules can be imported."""
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            skip(f"{name} is not there: {error}")


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
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """An instruction set, which the kernels use."""
    from sketchify_rt.kernels import native

    name: str = request.param
    if name not in native.isas():
        skip(f"this processor has no {name}")
    monkeypatch.setattr(native, "isa", lambda: name)
    return name


@pytest.fixture
def device() -> torch.device:
    """Where GPU code is tested: the card, or else the processor."""
    return torch.device("cuda" if GPU else "cpu")


@pytest.fixture
def interpreter() -> None:
    """For tests that run Triton's kernels: on the card, or else in the interpreter, if it works."""
    if why := _interpreter_fails():
        skip(why)


@functools.cache
def _interpreter_fails() -> str:
    import triton

    from sketchify_rt.kernels.triton import dodge

    try:
        dodge([torch.zeros(3, 3, dtype=torch.uint8)]) if not GPU else None
    except Exception as error:  # the interpreter wraps errors of all kinds
        told = f"Triton {triton.__version__} with NumPy {np.__version__}"
        return f"the interpreter of {told} does not work: {error}"
    return ""
