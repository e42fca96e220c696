"""Engines at work, with a TensorRT that computes on the processor; on a GPU, the real one."""

from __future__ import annotations

import dataclasses
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import fake_tensorrt
import numpy as np
import pytest
import torch
from pictures import picture
from plain import plain

from sketchify_rt import DeviceMemoryError, EngineError, InputError, models
from sketchify_rt.kernels import reference
from sketchify_rt.runtime.torch import TorchRuntime
from sketchify_rt.tensorrt.record import Recipe
from sketchify_rt.tensorrt.typed_onnx import typed

LITE = models.load("lite")
CPU = torch.device("cpu")
FP16 = Recipe(tile=(8, 64, 128), batch=(2, 2, 4))
FP32 = Recipe("fp32", tile=(64, 64, 64), batch=(1, 1, 2))


def tiles(count: int, height: int = 64, width: int = 64) -> torch.Tensor:
    binary = reference.binarize(picture(count * height, width))
    return torch.from_numpy(binary.reshape(count, height, width))


def hint(count: int) -> torch.Tensor:
    """Of tiles of 64 x 64."""
    return (torch.arange(count * 64) * 37 % 256).reshape(count, 8, 8).to(torch.uint8)


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Any:
    return fake_tensorrt.install(monkeypatch)


def planned(recipe: Recipe = FP16, model: models.Model = LITE) -> bytes:
    from sketchify_rt.tensorrt.build import build

    graph = typed(model.read(), recipe.precision)
    return build(graph, recipe, timing_cache=Path("/proc/none/timing"))


def opened(
    recipe: Recipe = FP16,
    workers: int = 1,
    memory: int | None = None,
    model: models.Model = LITE,
) -> Any:
    from sketchify_rt.tensorrt.session import TensorRTRuntime

    plan = planned(recipe, model)
    return TensorRTRuntime(plan, model.manifest.name, CPU, workers, memory=memory)


@pytest.mark.usefixtures("trt")
def test_it_paints_what_torch_does() -> None:
    exact = TorchRuntime(LITE, CPU)
    expected, unknown = exact(tiles(2), hint(2)), exact(tiles(2))
    assert (expected - unknown).abs().max() > 8 / 255
    runtime = opened(FP32)
    assert runtime.takes_hint
    tones = runtime(tiles(2), hint(2))
    assert tones.dtype == torch.float32
    torch.testing.assert_close(tones, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(runtime(tiles(2)), unknown, atol=1e-5, rtol=0)
    half = opened()(tiles(2), hint(2))
    assert half.dtype == torch.float16
    assert 0 < float((half.float() - expected).abs().max()) < 2 / 255


@pytest.mark.usefixtures("trt")
def test_what_it_was_built_for() -> None:
    runtime = opened()
    assert (runtime.least, runtime.best, runtime.most) == ((2, 8, 8), (2, 64, 64), (4, 128, 128))
    assert runtime.workspace == 8 * 4 * (128 * 128 + 16 * 16)


def test_a_plan_has_shapes_for_the_hint(trt: Any) -> None:
    profile = trt.header(planned())["profile"]
    assert profile["binary"] == [[2, 1, 8, 8], [2, 1, 64, 64], [4, 1, 128, 128]]
    assert profile["hint"] == [[2, 1, 1, 1], [2, 1, 8, 8], [4, 1, 16, 16]]


@pytest.mark.usefixtures("trt")
def test_fewer_tiles_than_the_least_are_filled_up() -> None:
    runtime, two = opened(), tiles(2)
    assert torch.equal(runtime(two[:1], hint(1)), runtime(two, hint(2))[:1])


@pytest.mark.usefixtures("trt")
def test_any_strides_are_read() -> None:
    wide = tiles(2, 64, 96)[:, :, ::2]
    cells = torch.stack([hint(2), 255 - hint(2)], -1)[..., :6, 0]
    runtime = opened()
    expected = runtime(wide.contiguous(), cells.contiguous())
    assert torch.equal(runtime(wide, cells), expected)


@pytest.mark.usefixtures("trt")
@pytest.mark.parametrize("shape", [(5, 64, 64), (2, 136, 64), (2, 64, 136), (2, 64, 4)])
def test_other_shapes_are_refused(shape: tuple[int, int, int]) -> None:
    runtime = opened()
    with pytest.raises(EngineError, match=r"lite: wrong shape .*expected \(2, 8, 8\) to \(4, 128"):
        runtime(torch.zeros(shape, dtype=torch.uint8))
    runtime(tiles(2))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("deserialize", r"refuses it: it is damaged, or was built .* \(Serialization: Version tag"),
        ("room", r"refuses it: .*out of memory"),
        ("context", r"no execution context \(Requested amount of GPU memory"),
        ("device_memory", r"refuses memory to work in \(memory at"),
        ("set_input_shape", r"wrong shape of a batch: got \(2, 64, 64\), .* \(binary:"),
        ("infer_shapes", r"wrong shape of a batch: got \(2, 64, 64\)"),
        ("address", r"refuses the memory of binary \(binary: bad address"),
        ("enqueue", r"did not run it \(an illegal memory access"),
    ],
)
def test_each_step_that_fails_is_told(trt: Any, step: str, message: str) -> None:
    trt.fail = {step}
    kind = DeviceMemoryError if step in ("room", "context") else EngineError
    with pytest.raises(kind, match=f"^lite: .*{message}"):
        opened()(tiles(2))
    trt.fail = set()
    opened()(tiles(2))


def test_a_call_that_failed_leaves_its_place_to_the_next(trt: Any) -> None:
    runtime = opened()
    for _ in range(3):
        trt.fail = {"enqueue"}
        with pytest.raises(EngineError):
            runtime(tiles(2))
    trt.fail = set()
    runtime(tiles(2))


def test_a_foreign_and_a_corrupt_plan_are_refused(
    trt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sketchify_rt.tensorrt.session import TensorRTRuntime

    plan = planned()
    with pytest.raises(EngineError, match="it is damaged, or was built by another"):
        TensorRTRuntime(plan[:-1] + bytes([plan[-1] ^ 1]), "lite", CPU)
    monkeypatch.setattr(trt, "__version__", "11.5.0.1")
    with pytest.raises(EngineError, match=r"the plan is of TensorRT 11.4.*, this is 11.5"):
        TensorRTRuntime(plan, "lite", CPU)


def test_a_version_compatible_plan_runs_in_a_newer_version(
    trt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sketchify_rt.tensorrt.session import TensorRTRuntime

    plan = planned(dataclasses.replace(FP16, version_compatible=True))
    monkeypatch.setattr(trt, "__version__", "11.5.0.1")
    TensorRTRuntime(plan, "lite", CPU)(tiles(2))


@pytest.mark.usefixtures("trt")
def test_a_model_without_a_hint_paints_what_torch_does_and_takes_none(tmp_path: Path) -> None:
    model = plain(tmp_path / "plain.onnx")
    runtime = opened(FP32, model=model)
    assert not runtime.takes_hint
    expected = TorchRuntime(model, CPU)(tiles(2))
    torch.testing.assert_close(runtime(tiles(2)), expected, atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="plain: the model takes no hint"):
        runtime(tiles(2), hint(2))


@pytest.mark.usefixtures("trt")
def test_a_hint_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match=r"the hint does not fit .*\(1, 8, 8\).*\(2, 8, 8\)"):
        opened()(tiles(2), hint(1))


@pytest.mark.usefixtures("trt")
def test_threads_share_its_workers() -> None:
    runtime = opened(workers=2)
    batches = [tiles(2).roll(shift, 2) for shift in range(6)]
    expected = [runtime(batch) for batch in batches]
    start = threading.Barrier(6)

    def call(batch: torch.Tensor) -> torch.Tensor:
        start.wait()
        return runtime(batch)  # type: ignore[no-any-return]

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(call, batches))
    assert all(torch.equal(*pair) for pair in zip(results, expected, strict=True))
    assert not np.allclose(expected[0].numpy(), expected[1].numpy())


@pytest.mark.usefixtures("trt")
def test_it_goes_as_soon_as_nobody_needs_it() -> None:
    runtime = opened()
    runtime(tiles(2))
    engine = weakref.ref(runtime._slots.queue[0]._engine)
    gc.disable()  # or a circle may be found within a capture, where memory cannot be freed
    try:
        del runtime
        assert engine() is None
    finally:
        gc.enable()


@pytest.mark.usefixtures("trt")
def test_where_memory_is_short_workers_are_fewer() -> None:
    workspace = opened().workspace
    assert opened(workers=3, memory=2 * workspace)._slots.qsize() == 2
    assert opened(workers=3, memory=9 * workspace)._slots.qsize() == 3
    with pytest.raises(DeviceMemoryError, match="it needs 1 MiB of the GPU's memory to work in"):
        opened(workers=3, memory=workspace - 1)


def test_an_event_that_is_refused_is_told(trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from sketchify_rt.tensorrt import session

    runtime = opened()
    engine = runtime._slots.queue[0]._engine
    context = engine._engine.create_execution_context()
    for name in ("Stream", "Event"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    on_a_gpu = MagicMock(is_cuda=True)
    session._Context(engine, context, on_a_gpu)
    trt.fail = {"consumed"}
    with pytest.raises(EngineError, match=r"lite: TensorRT takes no event .* \(bad event\)"):
        session._Context(engine, context, on_a_gpu)
