from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sketchify_rt.runtime.driver import driver

TEXT = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:11:25 UTC 2025\n"


def test_the_system_tells_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path, encoding: TEXT)
    assert driver() == "580.65.06"


@pytest.mark.parametrize(("failed", "told"), [(0, "for CUDA 13.1"), (35, "unknown")])
def test_else_cuda_does(monkeypatch: pytest.MonkeyPatch, failed: int, told: str) -> None:
    def missing(path: Path, encoding: str) -> str:
        raise FileNotFoundError(path)

    def ask(version: Any) -> int:
        version._obj.value = 13010
        return failed

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(cuDriverGetVersion=ask))
    assert driver() == told


def test_without_a_driver_it_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> str:
        raise FileNotFoundError("nothing is there")

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert driver() == "unknown"
