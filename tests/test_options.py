from __future__ import annotations

from typing import Any

import pytest

from sketchify_rt import Encoding, Options, OptionsError
from sketchify_rt.options import Precision


def test_the_defaults_are_valid() -> None:
    options = Options()
    assert (options.model, options.device, options.mode) == ("lite", "auto", "sketch")
    assert options.thread_count >= 1
    assert Options(threads=3).thread_count == 3
    assert Options(threads=3).worker_count == 3
    assert Options(threads=20).worker_count == 8
    assert Options(threads=20, mode="dodge").worker_count == 20


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"])
def test_devices(device: str) -> None:
    assert Options(device=device).device == device


@pytest.mark.parametrize("precision", ["auto", "half"])
def test_compiling_is_for_half(precision: Precision) -> None:
    assert Options(compile=True, precision=precision).compile


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "pencil"}, "mode is 'pencil'; it may be one of sketch, dodge, binary"),
        ({"precision": "int3"}, "precision is 'int3'; it may be one of auto, fp32, half, int8"),
        ({"device": "gpu"}, "device must be auto, cpu, cuda or cuda:N: got 'gpu'"),
        ({"device": "cuda:x"}, "device must be auto, cpu, cuda or cuda:N: got 'cuda:x'"),
        ({"device": "cpu "}, "device must be auto, cpu, cuda or cuda:N: got 'cpu '"),
        ({"strength": -0.1}, "strength is -0.1"),
        ({"strength": 4.5}, "strength is 4.5"),
        ({"strength": float("nan")}, "strength is nan"),
        ({"threads": 0}, "threads is 0; it may be 1 to 1024"),
        ({"max_side": 0}, "max_side is 0"),
        ({"square": -1}, "square is -1"),
        ({"tile": 255}, "tile is 255; it may be 256 to "),
        ({"max_pixels": 0}, "max_pixels is 0"),
        ({"threads": 2**30}, "threads is 1073741824"),
        ({"threads": "2"}, "threads is '2'"),
        ({"tile": None}, "tile is None"),
        ({"square": 10.5}, "square is 10.5"),
        ({"square": True}, "square is True"),
        ({"square": 20_000}, "square is 20000; it may be 1 to 16384"),
        ({"strength": "1"}, "strength is '1'"),
        ({"device": None}, "device must be auto, cpu, cuda or cuda:N: got None"),
        ({"model": 3}, "model must be a name or a path: got 3"),
        ({"square": 256, "max_side": 800}, "square and max_side"),
        ({"batch": 0}, "batch is 0; it may be 1 to 1024"),
        ({"device_memory": 100}, "device_memory is 100; it may be 512 to"),
        ({"compile": 1}, "compile is 1"),
        ({"compile": True, "precision": "fp32"}, "give precision auto or half"),
        ({"compile": True, "precision": "int8"}, "give precision auto or half"),
        ({"runtime": "onnx"}, "runtime is 'onnx'; it may be one of auto, openvino, torch, ten"),
        ({"engine": 3}, "engine must be a name or a path: got 3"),
        ({"engine": "folder", "runtime": "torch"}, "engine is TensorRT's, runtime torch"),
        ({"compile": True, "runtime": "tensorrt"}, "compile is torch's"),
        ({"compile": True, "engine": "folder"}, "compile is torch's"),
        ({"runtime": "torch", "precision": "int8"}, "runtime torch has no int8"),
        ({"runtime": "tensorrt", "device": "cpu"}, "runtime tensorrt needs a GPU, and device is"),
        ({"engine": "folder", "device": "cpu"}, "needs a GPU, and device is cpu"),
        ({"runtime": "openvino", "device": "cuda:1"}, "the CPU's, and device is cuda:1"),
    ],
)
def test_bad_options_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message.replace("(", r"\(")):
        Options(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "gif"}, "format is 'gif'; it may be one of png, jpg, webp"),
        ({"format": "png", "quality": 90}, "lossless"),
        ({"format": "jpg", "quality": 0}, "quality is 0"),
        ({"format": "jpg", "quality": 50.5}, "quality is 50.5"),
        ({"format": "webp", "quality": 101}, "quality is 101"),
        ({"metadata": 1}, "metadata is 1; it may be True or False"),
        ({"alpha": "black"}, "alpha is 'black'; it may be one of white, keep"),
        ({"format": "jpg", "alpha": "keep"}, "jpg holds no alpha; use png or webp"),
    ],
)
def test_bad_encodings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        Encoding(**changes)


def test_good_encodings() -> None:
    assert Encoding().format == "png"
    assert Encoding("webp", 80).quality == 80
    assert Encoding().plain and Encoding("jpg", 80).plain
    assert not Encoding("jpg", metadata=True).plain
    assert not Encoding("webp", 80, alpha="keep").plain
