"""The building of an engine, and what TensorRT says, with a TensorRT that may fail at each step."""

from __future__ import annotations

import functools
import gc
import logging
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from threading import Event
from typing import Any

import fake_tensorrt
import numpy as np
import pytest
from onnx import TensorProto, helper

from sketchify_rt.errors import BackendUnavailable, EngineError
from sketchify_rt.tensorrt.record import Recipe


def scaled() -> bytes:
    """Tones are the input divided by 255."""
    shape = ["N", 1, "H", "W"]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["binary"], ["levels"], to=TensorProto.FLOAT16),
            helper.make_node("Div", ["levels", "white"], ["tones"]),
        ],
        "scaled",
        [helper.make_tensor_value_info("binary", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("tones", TensorProto.FLOAT16, shape)],
        [helper.make_tensor("white", TensorProto.FLOAT16, [], [255.0])],
    )
    opset = helper.make_opsetid("", 18)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
    data: bytes = model.SerializeToString()
    return data


GRAPH = scaled()
SMALL = Recipe(tile=(8, 16, 32), batch=(1, 2, 4))


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Any:
    return fake_tensorrt.install(monkeypatch)


@pytest.fixture
def build(trt: Any, tmp_path: Path) -> Callable[..., bytes]:
    from sketchify_rt.tensorrt import build

    return functools.partial(build.build, timing_cache=tmp_path / "timing.cache")


def test_a_plan_holds_the_network_and_its_shapes(trt: Any, build: Callable[..., bytes]) -> None:
    plan = build(GRAPH, SMALL)
    assert type(plan) is bytes
    header = trt.header(plan)
    assert header["profile"] == {"binary": [[1, 1, 8, 8], [2, 1, 16, 16], [4, 1, 32, 32]]}
    assert header["level"] == 3
    assert header["workspace"] is None
    assert header["flags"] == ["TF32"]
    assert header["hardware"] == "NONE"
    assert header["strongly_typed"]


def test_the_plan_computes_what_the_network_does(trt: Any, build: Callable[..., bytes]) -> None:
    from sketchify_rt.tensorrt.library import Log

    log = Log()
    engine = trt.Runtime(log).deserialize_cuda_engine(build(GRAPH, SMALL))
    context = engine.create_execution_context()
    binary = np.tile(np.uint8([0, 255]), (2, 1, 8, 4))
    tones = np.zeros(binary.shape, np.float16)
    assert not context.execute_async_v3(1)  # nothing is set
    assert not context.set_input_shape("binary", (5, 1, 8, 8))
    assert "outside of the profile" in log.words()
    assert context.set_input_shape("binary", binary.shape)
    assert context.set_tensor_address("binary", binary.ctypes.data)
    assert context.set_tensor_address("tones", tones.ctypes.data)
    assert context.execute_async_v3(1)
    np.testing.assert_array_equal(tones, binary // 255)


def test_the_recipe_reaches_the_configuration(trt: Any, build: Callable[..., bytes]) -> None:
    recipe = Recipe(
        precision="fp32",
        tile=(16, 16, 16),
        batch=(2, 2, 2),
        optimization_level=5,
        workspace=300,
        version_compatible=True,
        hardware_compatible=True,
    )
    header = trt.header(build(GRAPH, recipe))
    assert header["profile"] == {"binary": [[2, 1, 16, 16]] * 3}
    assert header["level"] == 5
    assert header["workspace"] == 300 * 1024 * 1024
    assert header["flags"] == ["VERSION_COMPATIBLE"]  # and no TF32, for fp32
    assert header["hardware"] == "AMPERE_PLUS"


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("network", "cannot begin a build: no memory for a network. To fix: free GPU"),
        ("config", "cannot begin a build: no memory. To fix: free GPU"),
        ("profile", "cannot begin a build: no memory. To fix: free GPU"),
        ("set_shape", r"refuses the shapes \[\(1, 8\), \(2, 16\), \(4, 32\)\] \(.* inconsistent"),
        ("add_profile", r"refuses the shapes .*: invalid profile. To fix: see docs/engines.md"),
        ("build", "cannot build the engine: Could not find any implementation .* smaller --batch"),
    ],
)
def test_each_failure_has_its_message_and_leaves_the_files(
    trt: Any, build: Callable[..., bytes], tmp_path: Path, step: str, message: str
) -> None:
    cache = tmp_path / "timing.cache"
    build(GRAPH, SMALL)
    before = cache.read_bytes()
    trt.fail = {step}
    with pytest.raises(EngineError, match=message):
        build(GRAPH, SMALL, timing_cache=cache)
    assert [*tmp_path.iterdir()] == [cache]
    assert cache.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "it does not say why. To fix: see docs/engines.md"),
        (
            ["Error Code 2: OutOfMemory", "failed"],
            "OutOfMemory; failed. To fix: free GPU memory, or give a smaller ",
        ),
        (
            ["Could not find any implementation for node conv1"],
            "conv1. To fix: give a larger --workspace",
        ),
    ],
)
def test_a_failed_build_tells_words_and_remedy(
    trt: Any,
    build: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    told: str,
) -> None:
    def failing(builder: Any, *arguments: Any) -> None:
        for text in words:
            builder._error(text)

    monkeypatch.setattr(trt.Builder, "build_serialized_network", failing)
    with pytest.raises(EngineError, match=told):
        build(GRAPH, SMALL)


def test_every_error_of_the_parser_is_told_with_its_node(
    trt: Any, build: Callable[..., bytes]
) -> None:
    trt.fail = {"parse"}
    with pytest.raises(EngineError) as caught:
        build(GRAPH, SMALL)
    message = str(caught.value)
    assert "node 3 '/down/foo' (Foo): UNSUPPORTED_NODE: no importer for Foo" in message
    assert "node 5 '/up/mul' (Mul): UNSUPPORTED_NODE_DATATYPE: HALF times FLOAT" in message


def test_what_is_no_network_is_refused(build: Callable[..., bytes]) -> None:
    with pytest.raises(EngineError, match="MODEL_DESERIALIZE_FAILED: failed to parse the model"):
        build(b"no ONNX file", SMALL)


def test_progress_is_told(build: Callable[..., bytes]) -> None:
    told: list[Any] = []
    build(GRAPH, SMALL, progress=told.append)
    layers = [
        (phase, step, steps)
        for layer in range(3)
        for phase, step, steps in (
            (f"Layer {layer}", 0, 1),
            (f"Layer {layer}", 1, 1),
            ("Build", layer + 1, 3),
        )
    ]
    assert [(p.phase, p.step, p.steps) for p in told] == [("Build", 0, 3), *layers]


def test_a_build_is_cancelled(trt: Any, build: Callable[..., bytes], tmp_path: Path) -> None:
    cancelled = Event()
    told: list[Any] = []
    trt.on_step = cancelled.set  # after the first step
    with pytest.raises(CancelledError):
        build(
            GRAPH,
            SMALL,
            progress=told.append,
            cancelled=cancelled,
        )
    assert told[-1].phase == "Layer 1"
    assert [*tmp_path.iterdir()] == []


def test_a_build_cancelled_before_it_began_stops_at_its_first_step(
    trt: Any, build: Callable[..., bytes]
) -> None:
    def never() -> None:
        pytest.fail("it went on")

    cancelled = Event()
    cancelled.set()
    trt.on_step = never
    with pytest.raises(CancelledError):
        build(GRAPH, SMALL, cancelled=cancelled)


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_an_exception_of_the_callback_ends_the_build(
    build: Callable[..., bytes], kind: type[BaseException]
) -> None:
    calls: list[Any] = []

    def fail(progress: Any) -> None:
        calls.append(progress)
        raise kind("out of the callback")

    with pytest.raises(kind, match="out of the callback"):
        build(GRAPH, SMALL, progress=fail)
    assert len(calls) == 1


def test_the_timing_cache_serves_the_next_build(
    trt: Any, build: Callable[..., bytes], tmp_path: Path
) -> None:
    cache = tmp_path / "new" / "timing.cache"
    plans = [build(GRAPH, SMALL, timing_cache=cache) for _ in range(3)]
    assert [trt.header(plan)["entries"] for plan in plans] == [0, 1, 2]
    assert [*cache.parent.iterdir()] == [cache]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"anything", "the timing cache is corrupt"),
        (b"fake timing cache 10.0.0 7", "made by another version or for another device"),
    ],
)
def test_an_unfit_timing_cache_is_begun_anew(
    trt: Any,
    build: Callable[..., bytes],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    data: bytes,
    reason: str,
) -> None:
    cache = tmp_path / "timing.cache"
    cache.write_bytes(data)
    assert trt.header(build(GRAPH, SMALL, timing_cache=cache))["entries"] == 0
    assert reason in caplog.text
    assert "TensorRT refuses this timing cache" in caplog.text
    caplog.clear()
    assert trt.header(build(GRAPH, SMALL, timing_cache=cache))["entries"] == 1
    assert "TensorRT refuses this timing cache" not in caplog.text


def test_a_timing_cache_that_cannot_be_used_costs_no_engine(
    trt: Any, build: Callable[..., bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert build(GRAPH, SMALL, timing_cache=tmp_path)
    assert f"{tmp_path}: the timing cache cannot be written (Is a directory)" in caplog.text
    trt.fail = {"memory"}
    assert build(GRAPH, SMALL)
    assert "TensorRT gives no timing cache: no host memory for the timing cache" in caplog.text
    trt.fail = {"timing_cache"}
    assert build(GRAPH, SMALL)
    assert "TensorRT refuses this timing cache: no memory for a timing cache" in caplog.text
    assert [*tmp_path.iterdir()] == []


def test_a_builder_that_does_not_work_is_refused(trt: Any, build: Callable[..., bytes]) -> None:
    trt.fail = {"builder"}
    with pytest.raises(BackendUnavailable, match=r"11\.4\.0\.106 does not work here: .* error: 35"):
        build(GRAPH, SMALL)


def test_the_lean_runtime_cannot_build(
    trt: Any, build: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(trt, "Builder")
    with pytest.raises(BackendUnavailable, match="the lean runtime, which cannot build"):
        build(GRAPH, SMALL)


def test_a_runtime_that_does_not_work_is_never_freed(trt: Any) -> None:
    from sketchify_rt.tensorrt.library import LOG, checked

    made: list[weakref.ref[Any]] = []

    def runtime() -> Any:
        result = trt.Runtime(LOG)
        made.append(weakref.ref(result))
        return result

    assert checked(runtime).deserialize_cuda_engine(b"no plan") is None
    trt.fail = {"runtime"}
    with pytest.raises(BackendUnavailable, match="CUDA initialization failure with error: 35"):
        checked(runtime)
    gc.collect()
    assert [reference() is None for reference in made] == [True, False]
    assert LOG.words() == ""


def test_old_errors_are_not_of_what_is_made_now(trt: Any) -> None:
    from sketchify_rt.tensorrt.library import LOG, checked

    LOG.log(trt.ILogger.ERROR, "of something else")
    assert isinstance(checked(lambda: trt.Runtime(LOG)), trt.Runtime)


def test_messages_go_to_the_log(trt: Any, caplog: pytest.LogCaptureFixture) -> None:
    from sketchify_rt.tensorrt.library import Log

    caplog.set_level(logging.DEBUG, "sketchify_rt")
    log = Log()
    for severity in trt.ILogger.Severity:
        log.log(severity, f"it is {severity.name}")
    assert [(r.name, r.levelname, r.message) for r in caplog.records] == [
        ("sketchify_rt", "INFO", "TensorRT: it is INTERNAL_ERROR"),
        ("sketchify_rt", "INFO", "TensorRT: it is ERROR"),
        ("sketchify_rt", "WARNING", "TensorRT: it is WARNING"),
        ("sketchify_rt", "INFO", "TensorRT: it is INFO"),
        ("sketchify_rt", "DEBUG", "TensorRT: it is VERBOSE"),
    ]
    assert log.words() == "it is INTERNAL_ERROR; it is ERROR"
    assert log.words() == ""


def test_the_last_errors_are_kept(trt: Any) -> None:
    from sketchify_rt.tensorrt.library import Log

    log = Log()
    for number in range(100):
        log.log(trt.ILogger.ERROR, str(number))
    assert log.words() == "96; 97; 98; 99"


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    fake_tensorrt.forget(monkeypatch)
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


def test_where_it_is_not_installed_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "tensorrt", "tensorrt_lean", "tensorrt_lean_bindings")
    with pytest.raises(
        BackendUnavailable,
        match="import of tensorrt halted.*. To fix: `pip install tensorrt-cu13 --extra-index-url "
        r"https://pypi\.nvidia\.com`; see docs/engines\.md",
    ):
        from sketchify_rt.tensorrt import library  # noqa: F401


@pytest.mark.parametrize("name", ["tensorrt_lean", "tensorrt_lean_bindings"])
def test_the_lean_runtime_does_where_the_other_is_not(
    trt: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    without(monkeypatch, "tensorrt", "tensorrt_lean", "tensorrt_lean_bindings")
    monkeypatch.setitem(sys.modules, name, trt)
    from sketchify_rt.tensorrt import library

    assert library.trt is trt
