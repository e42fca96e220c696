from __future__ import annotations

from typing import Any

import pytest

from sketchify_rt import Encoding, Options, OptionsError
from sketchify_rt.options import AUTO_DETAIL, Detail, Precision


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


@pytest.mark.parametrize(
    ("detail", "side"), [("native", None), ("auto", AUTO_DETAIL), (64, 64), (2000, 2000)]
)
def test_detail_is_a_side(detail: Detail, side: int | None) -> None:
    assert Options(detail=detail).max_detail == side


@pytest.mark.parametrize("precision", ["auto", "half"])
def test_compiling_is_for_half(precision: Precision) -> None:
    assert Options(compile=True, precision=precision).compile


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "pencil"}, "mode must be one of sketch, dodge, binary, got 'pencil'"),
        ({"precision": "int3"}, "precision must be one of auto, fp32, half, int8, got 'int3'"),
        ({"device": "gpu"}, "device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        ({"device": "cuda:x"}, "device must be auto, cpu, cuda or cuda:N, got 'cuda:x'"),
        ({"device": "cpu "}, "device must be auto, cpu, cuda or cuda:N, got 'cpu '"),
        ({"strength": -0.1}, "strength must be between 0 and 4, got -0.1"),
        ({"strength": 4.5}, "between 0 and 4, got 4.5"),
        ({"strength": float("nan")}, "between 0 and 4, got nan"),
        ({"threads": 0}, "threads must be an integer from 1 to 1024, got 0"),
        ({"max_side": 0}, "max_side must be an integer of at least 1, got 0"),
        ({"square": -1}, "square must be an integer from 1 to 16384, got -1"),
        ({"tile": 255}, "tile must be an integer of at least 256, got 255"),
        ({"max_pixels": 0}, "max_pixels must be .* got 0"),
        ({"threads": 2**30}, "threads must be .* got 1073741824"),
        ({"threads": "2"}, "threads must be .* got '2'"),
        ({"tile": None}, "tile must be .* got None"),
        ({"square": 10.5}, "square must be .* got 10.5"),
        ({"square": True}, "square must be .* got True"),
        ({"square": 20_000}, "square must be .* got 20000"),
        ({"strength": "1"}, "strength must be .* got '1'"),
        ({"device": None}, "device must be auto, cpu, cuda or cuda:N, got None"),
        ({"model": 3}, "model must be a name or a path, got 3"),
        ({"square": 256, "max_side": 800}, "square and max_side"),
        ({"detail": 63}, "detail must be native, auto, or an integer of at least 64, got 63"),
        ({"detail": "fine"}, "detail must be .* got 'fine'"),
        ({"detail": 800.0}, "detail must be .* got 800.0"),
        ({"detail": True}, "detail must be .* got True"),
        ({"batch": 0}, "batch must be an integer from 1 to 1024, got 0"),
        ({"device_memory": 100}, "device_memory must be an integer of at least 512, got 100"),
        ({"compile": 1}, "compile must be True or False, got 1"),
        ({"compile": True, "precision": "fp32"}, "needs precision auto or half, got fp32"),
        ({"compile": True, "precision": "int8"}, "needs precision auto or half, got int8"),
        ({"runtime": "onnx"}, "runtime must be one of auto, openvino, .*, got 'onnx'"),
        ({"engine": 3}, "engine must be a name or a path, got 3"),
        (
            {"engine": "folder", "runtime": "torch"},
            "engine needs runtime auto or tensorrt, got torch",
        ),
        (
            {"compile": True, "runtime": "tensorrt"},
            "compile needs runtime auto or torch, got tensorrt",
        ),
        (
            {"compile": True, "engine": "folder"},
            "compile needs runtime auto or torch, got an engine",
        ),
        (
            {"runtime": "torch", "precision": "int8"},
            "precision int8 needs runtime tensorrt, or device cpu, got runtime torch",
        ),
        ({"runtime": "tensorrt", "device": "cpu"}, "runtime tensorrt needs a GPU, got device cpu"),
        ({"engine": "folder", "device": "cpu"}, "engine needs a GPU, got device cpu"),
        (
            {"runtime": "openvino", "device": "cuda:1"},
            "openvino needs device cpu or auto, got cuda:1",
        ),
    ],
)
def test_bad_options_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message.replace("(", r"\(")):
        Options(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "gif"}, "format must be one of png, jpg, webp, got 'gif'"),
        ({"format": "png", "quality": 90}, "lossless"),
        ({"format": "jpg", "quality": 0}, "quality must be an integer from 1 to 100, got 0"),
        ({"format": "jpg", "quality": 50.5}, "quality must be .* got 50.5"),
        ({"format": "webp", "quality": 101}, "quality must be .* got 101"),
        ({"metadata": 1}, "metadata must be True or False, got 1"),
        ({"alpha": "black"}, "alpha must be one of white, keep, lines, got 'black'"),
        ({"format": "jpg", "alpha": "keep"}, "alpha keep needs format png or webp, got jpg"),
        ({"format": "jpg", "alpha": "lines"}, "alpha lines needs format png or webp, got jpg"),
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
    assert Encoding("webp", 80, alpha="lines").plain
