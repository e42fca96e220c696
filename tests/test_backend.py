from __future__ import annotations

import dataclasses
import importlib
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import picture

from sketchify_rt import BackendUnavailable, ModelError, Options, Sketchifier, backend, models
from sketchify_rt.kernels import native
from sketchify_rt.options import ARITHMETICS, Precision


def test_cpu_and_auto_are_there() -> None:
    assert backend.select(Options(device="cpu")).name == "cpu"
    assert backend.select(Options(device="auto")).name == "cpu"


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_an_explicit_gpu_that_cannot_be_had_fails(device: str) -> None:
    with pytest.raises(BackendUnavailable, match=f"{device}: .*use --device cpu or auto"):
        Sketchifier(device=device)


@pytest.fixture
def dev(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder where device files are looked for, with files that are no GPU's."""
    for name in ("null", "nvidia-uvm", "nvidia-modeset", "nvidiafs", "dri"):
        (tmp_path / name).touch()
    monkeypatch.setattr(backend, "_DEV", tmp_path)
    return tmp_path


# nvidia3 alone: a container that was given GPU 3. dxg: WSL.
@pytest.mark.parametrize("name", ["nvidia0", "nvidia3", "nvidia12", "nvidiactl", "dxg"])
def test_auto_says_what_it_fell_back_from(dev: Path, name: str) -> None:
    assert backend.select(Options(device="auto")).note is None
    (dev / name).touch()
    assert "NVIDIA GPU is present" in str(backend.select(Options(device="auto")).note)
    assert backend.select(Options(device="cpu")).note is None


def test_the_engine_says_so_too(dev: Path, caplog: pytest.LogCaptureFixture) -> None:
    (dev / "nvidia0").touch()
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


@pytest.mark.parametrize(("vnni", "chosen"), [(True, "int8"), (False, "half")])
def test_auto_is_int8_where_the_processor_is_made_for_it(
    monkeypatch: pytest.MonkeyPatch, vnni: bool, chosen: Precision
) -> None:
    monkeypatch.setattr(native, "vnni", lambda: vnni)
    gray = picture(64, 72)
    sketchify = Sketchifier(device="cpu")
    assert sketchify.precision == chosen
    np.testing.assert_array_equal(sketchify(gray), Sketchifier(precision=chosen)(gray))
    for precision in ARITHMETICS:
        assert Sketchifier(precision=precision).precision == precision


@pytest.mark.parametrize("lacks", ["file", "entry"])
def test_auto_is_half_for_a_model_without_an_int8_form(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    lacks: str,
) -> None:
    monkeypatch.setattr(native, "vnni", lambda: True)
    lite = models.load("lite")
    bare = dataclasses.replace(lite.manifest, int8_sha256=None)
    (lite.manifest if lacks == "file" else bare).write(tmp_path / "own.json")
    shutil.copy(lite.path, tmp_path / "own.onnx")
    if lacks == "entry":
        shutil.copy(lite.file("int8"), tmp_path / "own.int8.onnx")
    gray = picture(64, 72)
    sketchify = Sketchifier(tmp_path / "own.onnx")
    assert sketchify.precision == "half"
    np.testing.assert_array_equal(sketchify(gray), Sketchifier(precision="half")(gray))
    assert not caplog.records
    with pytest.raises(ModelError, match=r"own\.(int8\.)?onnx: (has no INT8|cannot be read)"):
        Sketchifier(tmp_path / "own.onnx", precision="int8").prepare()


def test_available_lists_every_backend() -> None:
    found = {info.name: info for info in backend.available()}
    assert set(found) == {"cpu", "cuda"}
    assert found["cpu"].available
    assert not found["cuda"].available
    assert found["cuda"].detail
