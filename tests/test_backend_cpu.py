"""What the CPU backend makes of errors, and of threads that open OpenVINO at the same time."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sketchify_rt import BackendUnavailable, DecodeError, Options, backend
from sketchify_rt.backend.cpu import CpuBackend


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (MemoryError("Unable to allocate 64.0 MiB"), True),
        (RuntimeError("std::bad_alloc"), True),
        (
            RuntimeError(
                "Exception from src/inference/src/cpp/infer_request.cpp:223:\n"
                "Exception from src/plugins/intel_cpu/src/cpu_memory.cpp:248:\n"
                "Failed to allocate 14495514624 bytes of memory"
            ),
            True,
        ),
        (RuntimeError("allocator.png: the shape [1,2] is not supported"), False),
        (DecodeError("alloc.png", "is not an image"), False),
        (DecodeError("std::bad_alloc.png", "is not an image"), False),
        (ValueError("std::bad_alloc"), False),
    ],
)
def test_out_of_memory_is_told_by_type_and_openvinos_words(error: Exception, full: bool) -> None:
    assert CpuBackend(Options()).exhausted(error) is full


def test_a_checkout_without_kernels_is_told_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sketchify_rt.backend.cpu", None)  # cannot be imported
    checkout = Path(backend.__file__).parent.parent.parent
    fix = f"or `pip install -e {checkout}`" if (checkout / "csrc").is_dir() else "pip install --fo"
    with pytest.raises(BackendUnavailable, match=re.escape(fix)):
        backend.select(Options(device="cpu"))
    (tmp_path / "csrc").mkdir()
    assert f"code in {tmp_path} was" in backend._why_incomplete(tmp_path / "sketchify_rt")
    assert "--force-reinstall" in backend._why_incomplete(tmp_path / "site-packages/sketchify_rt")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_calls_reuse_the_memory_of_pages() -> None:
    code = """
import resource
import numpy as np
from sketchify_rt import Sketchifier
sketchify = Sketchifier(mode="dodge", device="cpu", threads=1)
pages = [np.full((960, 720), level, np.uint8) for level in range(20)]
for page in pages:
    sketchify(page)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for page in pages:
    sketchify(page.copy())
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20 * 20  # of 338 pages of memory a call
