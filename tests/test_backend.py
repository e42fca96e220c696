from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from sketchify_rt import BackendUnavailable, Options, Sketchifier, backend


def test_cpu_and_auto_are_there() -> None:
    assert backend.select(Options(device="cpu")).name == "cpu"
    assert backend.select(Options(device="auto")).name == "cpu"


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_an_explicit_gpu_that_cannot_be_had_fails(device: str) -> None:
    with pytest.raises(BackendUnavailable, match=f"{device}: .*use --device cpu or auto"):
        Sketchifier(device=device)


def test_auto_says_what_it_fell_back_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == "/dev/nvidia0")
    assert "NVIDIA GPU is present" in str(backend.select(Options(device="auto")).note)
    assert backend.select(Options(device="cpu")).note is None
    monkeypatch.setattr(Path, "exists", lambda path: False)
    assert backend.select(Options(device="auto")).note is None


def test_the_engine_says_so_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == "/dev/nvidia0")
    Sketchifier(mode="dodge")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "using the CPU" in caplog.text


def test_a_library_that_cannot_be_loaded_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> None:
        raise OSError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(BackendUnavailable, match=r"cuda: a library cannot be loaded: libcudart"):
        backend.select(Options(device="cuda"))


def test_a_missing_library_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "sketchify_rt.runtime.openvino", raising=False)
    with pytest.raises(BackendUnavailable, match="pip install openvino"):
        Sketchifier().prepare()


def test_available_lists_every_backend() -> None:
    found = {info.name: info for info in backend.available()}
    assert set(found) == {"cpu", "cuda"}
    assert found["cpu"].available
    assert not found["cuda"].available
    assert found["cuda"].detail
