from __future__ import annotations

import ctypes
import functools
import gc
import hashlib
import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import cv2
import numpy as np
import onnx
import onnx.reference
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.profiler import profile

from sketchify_rt import InputError, ModelError, models, tiling
from sketchify_rt.kernels import reference
from sketchify_rt.models import Model
from sketchify_rt.runtime import cuda_graphs, unet
from sketchify_rt.runtime.cuda_graphs import Slot
from sketchify_rt.runtime.torch import TorchRuntime
from training.export import write
from training.model import UNet
from training.recipe import UNetConfig

CPU = torch.device("cpu")
LITE = models.load("lite")
SAMPLES = Path(__file__).parents[1] / "samples"


def binary(*shape: int, seed: int = 0, device: torch.device = CPU) -> Tensor:
    ink = np.random.default_rng(seed).random(shape) < 0.3
    return torch.from_numpy(np.where(ink, 0, 255).astype(np.uint8)).to(device)


def hint_of(pages: Tensor) -> Tensor:
    """Another value in each cell; some are not known."""
    count, height, width = pages.shape
    cells = torch.arange(count * height * width // 64, device=pages.device) * 37 % 256
    return cells.reshape(count, height // 8, width // 8).to(torch.uint8)


def exported(config: UNetConfig, path: Path) -> tuple[Model, UNet]:
    """A U-Net of random weights and biases, as a file and as it was trained."""
    torch.manual_seed(0)
    network = UNet(config).eval()
    for name, value in [*network.named_parameters(), *network.named_buffers()]:
        if name.endswith(("bias", "running_mean")):
            torch.nn.init.normal_(value, std=0.1)
    return Model(path, write(network, path, credit="nobody", training={})), network


def changed(model: Model, change: Callable[[onnx.GraphProto], object]) -> Model:
    """The model after `change`, in its place."""
    graph = onnx.load(model.path)
    change(graph.graph)
    data = graph.SerializeToString()
    model.path.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    return Model(model.path, replace(model.manifest, sha256=sha256))


def openvino(model: Model) -> Any:
    """The model in float32. OpenVINO is imported here: the tests on a GPU do without it."""
    from sketchify_rt.runtime.openvino import OpenVinoRuntime

    return OpenVinoRuntime(model, threads=2, precision="fp32")


@pytest.fixture(scope="module")
def runtime() -> TorchRuntime:
    return TorchRuntime(LITE, CPU, workers=2)


@pytest.mark.parametrize("name", ["still-life.jpg", "pages/001.png"])
def test_it_paints_what_openvino_paints(runtime: TorchRuntime, name: str) -> None:
    gray = cv2.imread(str(SAMPLES / name), cv2.IMREAD_GRAYSCALE)
    assert gray is not None
    gray = np.ascontiguousarray(gray[:500, :700])
    binary = reference.binarize(gray)
    hint = reference.hint(binary, reference.dodge(gray))[None]
    page = tiling.pad(binary, LITE.manifest.stride)[None]
    tones = runtime(torch.from_numpy(page), torch.from_numpy(hint))
    assert tones.dtype == torch.float32
    assert tones.shape == page.shape
    expected = openvino(LITE)(page, hint)
    np.testing.assert_allclose(tones, expected, atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 64, 40), (2, 8, 312), (5, 72, 16)])
def test_it_computes_what_the_onnx_standard_says(
    runtime: TorchRuntime, shape: tuple[int, int, int]
) -> None:
    pages = binary(*shape)
    feeds = {"binary": pages, "hint": hint_of(pages)}
    floats = {name: x[:, None].numpy().astype(np.float32) / 255 for name, x in feeds.items()}
    (expected,) = onnx.reference.ReferenceEvaluator(onnx.load(LITE.path)).run(None, floats)
    np.testing.assert_allclose(runtime(pages, hint_of(pages)), expected[:, 0], atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # torch's own
@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(width=6, depth=1, unshuffle=1),
        UNetConfig(width=5, depth=2, unshuffle=3),
        *(UNetConfig(4, 1, unshuffle, norms=False, hint=True) for unshuffle in (1, 4, 8)),
    ],
    ids=str,
)
def test_any_model_of_the_project_can_be_read(config: UNetConfig, tmp_path: Path) -> None:
    model, network = exported(config, tmp_path / "other.onnx")
    pages = binary(2, 5 * config.stride, 3 * config.stride)
    given = (pages, hint_of(pages)) if config.hint else (pages,)
    tones = TorchRuntime(model, CPU)(*given)
    expected = openvino(model)(*(x.numpy() for x in given))
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(tones, expected, atol=1e-5)
    with torch.no_grad():  # the file has the weights in FP16
        trained = network(*(x[:, None] / 255 for x in given))[:, 0]
    torch.testing.assert_close(tones, trained, atol=2e-3, rtol=0)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # torch's own
def test_biases_that_the_exporter_leaves_out_are_zero(tmp_path: Path) -> None:
    path = tmp_path / "new.onnx"
    manifest = write(UNet(UNetConfig(width=4, depth=1)), path, credit="nobody", training={})
    assert "down.0.0.bias" not in {weight.name for weight in onnx.load(path).graph.initializer}
    model = Model(path, manifest)
    pages = binary(1, 16, 24)
    np.testing.assert_allclose(
        TorchRuntime(model, CPU)(pages), openvino(model)(pages.numpy()), atol=1e-5
    )


def test_a_batch_is_its_images(runtime: TorchRuntime) -> None:
    pages = binary(3, 64, 40)
    hint = hint_of(pages)
    singles = torch.cat(
        [runtime(*pair) for pair in zip(pages.split(1), hint.split(1), strict=True)]
    )
    torch.testing.assert_close(runtime(pages, hint), singles, atol=1e-6, rtol=0)


def test_a_strided_view_is_read_right(runtime: TorchRuntime) -> None:
    page = binary(2, 200, 304)
    view, cells = page[:, 40:104, 8:72], hint_of(page)[:, 5:13, 1:9]
    assert torch.equal(runtime(view, cells), runtime(view.contiguous(), cells.contiguous()))


def test_half_precision_moves_a_tone_by_less_than_a_level(runtime: TorchRuntime) -> None:
    # As on a GPU, but for the order of sums.
    pages = binary(1, 64, 96)
    hint = hint_of(pages)
    half = unet.load(LITE, torch.float16)(pages, hint)
    assert half.dtype == torch.float16
    assert (half.float() - runtime(pages, hint)).abs().max() < 0.5 / 255


def test_concurrent_calls_do_not_mix(runtime: TorchRuntime) -> None:
    pages = [binary(1, 64 + 8 * i, 80, seed=i) for i in range(4)]
    expected = [runtime(page) for page in pages]
    with ThreadPoolExecutor(len(pages)) as pool:
        results = list(pool.map(lambda page: [runtime(page) for _ in range(5)], pages))
    for found, tones in zip(results, expected, strict=True):
        for each in found:
            torch.testing.assert_close(each, tones, atol=1e-6, rtol=0)


def test_the_flags_and_modes_of_the_application_do_not_matter(runtime: TorchRuntime) -> None:
    pages = binary(1, 64, 40)
    expected = runtime(pages)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tones = runtime(pages)
    assert torch.equal(tones, expected)
    assert not tones.requires_grad
    assert not tones.is_inference()  # the caller's own, to change in place
    tones.mul_(2)


def test_the_peak_of_memory_is_counted_right(runtime: TorchRuntime) -> None:
    pages = binary(2, 256, 264)
    with profile(profile_memory=True, acc_events=True) as recorded:  # or torch 2.11 warns
        runtime(pages, hint_of(pages))
    events = recorded.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = [e for e in events if e.name() == "[memory]"]
    sizes = [e.nbytes() for e in sorted(changes, key=lambda e: e.start_ns())]
    peak = np.cumsum(sizes).max() / pages.numel()
    assert peak <= runtime.bytes_per_pixel <= 1.6 * peak


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # torch's own
@pytest.mark.slow
def test_compiled_it_paints_the_same(tmp_path: Path) -> None:
    config = UNetConfig(width=4, depth=1, norms=False, hint=True)
    model, _ = exported(config, tmp_path / "small.onnx")
    plain, compiled = (TorchRuntime(model, CPU, compile=choice) for choice in (False, True))
    pages = binary(2, 64, 40)
    hint = hint_of(pages)
    torch.testing.assert_close(compiled(pages, hint), plain(pages, hint), atol=1e-5, rtol=0)


def test_a_hint_matters_and_none_is_not_known(runtime: TorchRuntime) -> None:
    assert runtime.takes_hint
    pages = binary(2, 32, 24)
    unknown = runtime(pages)
    assert torch.equal(unknown, runtime(pages, torch.zeros(2, 4, 3, dtype=torch.uint8)))
    assert (unknown - runtime(pages, hint_of(pages))).abs().max() > 8 / 255


@pytest.mark.parametrize(
    ("hint", "message"),
    [
        (torch.zeros(1, 4, 3, dtype=torch.uint8), r"\(1, 4, 3\) on cpu, expected .*\(2, 4, 3\)"),
        (torch.zeros(2, 4, 3), r"got torch\.float32 .*, expected torch\.uint8"),
        (torch.zeros(2, 4, 3, dtype=torch.uint8, device="meta"), "on meta, expected .* on cpu"),
    ],
    ids=["shape", "type", "device"],
)
def test_a_hint_that_does_not_fit_is_refused(
    runtime: TorchRuntime, hint: Tensor, message: str
) -> None:
    with pytest.raises(InputError, match=rf"lite\.onnx: the hint does not fit .*{message}"):
        runtime(binary(2, 32, 24), hint)


def test_what_cannot_be_compiled_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=broken))
    runtime = TorchRuntime(LITE, CPU, compile=True)
    with pytest.raises(ModelError, match=r"(?s)no compiler here.*or run without compile"):
        runtime(binary(1, 16, 16))


def test_no_room_for_cudnn_is_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Tensor:
        raise RuntimeError("GET was unable to find an engine to execute this computation")

    runtime = TorchRuntime(LITE, CPU)
    monkeypatch.setattr(torch, "_convolution", full)
    with pytest.raises(torch.OutOfMemoryError, match="cuDNN"):
        runtime(binary(1, 16, 16))


@pytest.fixture
def small(tmp_path: Path) -> Model:
    torch.manual_seed(0)
    config = UNetConfig(width=4, depth=1, norms=False)
    path = tmp_path / "small.onnx"
    return Model(path, write(UNet(config), path, credit="nobody", training={}))


def test_a_model_without_a_hint_refuses_one(small: Model) -> None:
    runtime = TorchRuntime(small, CPU)
    assert not runtime.takes_hint
    pages = binary(1, 16, 16)
    with pytest.raises(InputError, match=r"small\.onnx: the model takes no hint, got .*pass None"):
        runtime(pages, hint_of(pages))


# What cannot be read.


def renamed(graph: onnx.GraphProto) -> None:
    weight = next(weight for weight in graph.initializer if weight.name == "merge.0.0.weight.fp16")
    weight.name = "over.0.0.weight.fp16"


def extended(graph: onnx.GraphProto) -> None:
    graph.initializer.append(numpy_helper.from_array(np.zeros(4, np.float16), "tail.0.bias"))


@pytest.mark.parametrize(
    ("change", "message"),
    [(renamed, r"'merge\.0\.0\.weight' is missing"), (extended, r"got also tail\.0\.bias")],
)
def test_a_model_that_is_none_of_ours_is_refused(
    small: Model, change: Callable[[onnx.GraphProto], object], message: str
) -> None:
    with pytest.raises(ModelError, match=rf"small\.onnx: not a U-Net of this project: {message}"):
        TorchRuntime(changed(small, change), CPU)


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "junk.onnx"
    path.write_bytes(b"junk")
    manifest = replace(LITE.manifest, sha256=hashlib.sha256(b"junk").hexdigest())
    with pytest.raises(ModelError, match=r"junk\.onnx: not an ONNX file"):
        TorchRuntime(Model(path, manifest), CPU)


# Which call is captured, and which replayed, without a GPU.


@dataclass
class Fake:
    """A device that notes what it is told."""

    log: list[str] = field(default_factory=list)
    failure: Exception | None = None
    beside: list[object] = field(default_factory=list)

    def slot(self) -> Any:
        return Slot(self.run, self.capture, self)  # type: ignore[arg-type]

    def run(self, *inputs: Tensor) -> Tensor:
        self.log.append(f"run {len(inputs[0])}")
        if self.failure:
            raise self.failure
        return joined(inputs)

    def capture(self, like: Sequence[Tensor], beside: object) -> Replay:
        self.log.append(f"capture {len(like[0])}")
        self.beside.append(beside)
        if self.failure:
            raise self.failure
        return Replay(like, self.log)

    def wait(self) -> None:
        self.log.append("wait")

    def record(self) -> None:
        self.log.append("record")

    def synchronize(self) -> None:
        self.log.append("rest")

    def told(self) -> Iterator[str]:
        yield from (entry for entry in self.log if entry not in ("wait", "stage", "record", "rest"))
        self.log.clear()


@dataclass
class Replay:
    inputs: Sequence[Tensor]
    log: list[str]

    def stage(self, *inputs: Tensor) -> None:
        assert [tensor.shape for tensor in inputs] == [tensor.shape for tensor in self.inputs]
        self.log.append("stage")
        self.inputs = inputs

    def __call__(self) -> Tensor:
        self.log.append(f"replay {len(self.inputs[0])}")
        return joined(self.inputs)


def joined(inputs: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.float().flatten() for tensor in inputs])


def pages(count: int) -> Tensor:
    return torch.zeros(count, 8, 8, dtype=torch.uint8)


def test_a_shape_runs_is_captured_and_replayed() -> None:
    fake = Fake()
    slot = fake.slot()
    for _ in range(3):
        slot(pages(1))
    assert list(fake.told()) == ["run 1", "capture 1", "replay 1", "replay 1"]
    slot(pages(2))
    slot(pages(1))
    slot(pages(2))
    assert list(fake.told()) == ["run 2", "replay 1", "capture 2", "replay 2"]


def test_a_graph_takes_all_inputs() -> None:
    fake = Fake()
    slot = fake.slot()
    for value in range(3):
        hint = torch.full((1, 1, 1), value, dtype=torch.uint8)
        assert torch.equal(slot(pages(1), hint), torch.tensor([0.0] * 64 + [value]))
    assert list(fake.told()) == ["run 1", "capture 1", "replay 1", "replay 1"]
    slot(pages(1))  # with other inputs it is another graph
    assert list(fake.told()) == ["run 1"]


def test_every_call_waits_for_the_one_before_on_the_device() -> None:
    fake = Fake()
    slot = fake.slot()
    slot(pages(1))
    slot(pages(1))
    assert fake.log[:3] == ["wait", "run 1", "record"]
    assert fake.log[3:] == ["wait", "capture 1", "stage", "wait", "replay 1", "record"]


def test_the_next_input_is_taken_before_the_call_before_is_done() -> None:
    fake = Fake()
    slot = fake.slot()
    for _ in range(3):
        slot(pages(1))
    assert fake.log[-4:] == ["stage", "wait", "replay 1", "record"]


def test_the_graph_unused_for_long_makes_room_and_others_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cuda_graphs, "GRAPHS", 2)
    fake = Fake()
    slot = fake.slot()
    for count in (1, 1, 2, 2, 1, 3, 3):
        slot(pages(count))
    # All are in use: a third would push out one that is about to come again.
    assert list(fake.told())[-2:] == ["run 3", "run 3"]
    for _ in range(cuda_graphs._RECENT):
        slot(pages(1))
    assert "rest" not in fake.log
    for count in (3, 3, 1, 2):
        slot(pages(count))
    assert fake.log.count("rest") == 1  # before the memory of one goes
    assert list(fake.told())[-5:] == ["run 3", "capture 3", "replay 3", "replay 1", "run 2"]


def test_graphs_share_the_memory_of_one_that_still_is() -> None:
    fake = Fake()
    slot = fake.slot()
    for count in (1, 1, 2, 2):
        slot(pages(count))
    first, second = fake.beside
    assert first is None
    assert second is not None


@pytest.mark.parametrize("before", [1, 2], ids=["run", "capture"])
def test_a_slot_is_usable_after_a_failure(before: int) -> None:
    fake = Fake()
    slot = fake.slot()
    slot(pages(1))
    slot(pages(1))
    fake.failure = torch.OutOfMemoryError("full")
    for _ in range(before):
        with pytest.raises(torch.OutOfMemoryError, match="full"):
            slot(pages(4))
    assert fake.log[-2:] == ["rest", "record"]
    list(fake.told())
    fake.failure = None
    slot(pages(1))  # its graph was let go of, for the room
    assert list(fake.told()) == ["capture 1", "replay 1"]
    assert fake.beside[-1] is None


def test_a_shape_that_cannot_be_captured_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    fake = Fake()
    slot = fake.slot()
    slot(pages(1))
    slot._capture = broken
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert slot(pages(1)).dtype == torch.float32
    assert [record.getMessage() for record in caplog.records] == [
        "no CUDA graph for (1, 8, 8): the device was waited for; next try after 1000 calls"
    ]
    slot._capture = fake.capture
    slot(pages(2))
    slot(pages(2))
    assert list(fake.told()) == ["run 1"] * 4 + ["run 2", "capture 2", "replay 2"]
    assert fake.beside == [None]


@pytest.mark.parametrize("error", [RuntimeError("waited for"), OSError("no libcuda.so.1")])
def test_a_shape_that_failed_is_captured_again_after_some_calls(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(cuda_graphs, "_RETRY_AFTER", 3)
    fake = Fake()
    slot = fake.slot()

    def fail(like: Sequence[Tensor], beside: object) -> Replay:
        fake.log.append("fail")
        raise error

    slot._capture = fail
    for _ in range(7):
        slot(pages(1))
    run = ["run 1"]
    assert list(fake.told()) == [*run, "fail", *run * 4, "fail", *run * 2]
    slot._capture = fake.capture
    for _ in range(5):
        slot(pages(1))
    assert list(fake.told()) == [*run * 2, "capture 1", *["replay 1"] * 3]


def broken(*_: object) -> Replay:
    raise RuntimeError("the device was waited for\nand more")


def test_a_graph_keeps_what_it_works_in(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of a TensorRT context a graph has the addresses alone.
    class Run:
        def __call__(self, binary: Tensor) -> Tensor:
            return binary.float()

    nothing = MagicMock()
    monkeypatch.setattr(cuda_graphs, "_streams", lambda device: (nothing, nothing))
    monkeypatch.setattr(cuda_graphs, "_capture", lambda graph, pool: nothing)
    for name in ("current_stream", "CUDAGraph", "Event", "stream", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, nothing)
    run = Run()
    alive = weakref.ref(run)
    graph = cuda_graphs.CapturedModule(run, [pages(1)], None)
    del run
    assert alive() is not None
    del graph
    assert alive() is None


def test_streams_to_capture_on_are_made_by_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[object] = []
    status = 0

    def create(handle: Any, flags: int) -> int:
        log.append(f"create {flags}")
        handle._obj.value = 0x1000 * len(log)
        return status

    def load(name: str) -> SimpleNamespace:
        assert name == "libcuda.so.1"
        return SimpleNamespace(cuStreamCreate=create)

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: log.append(f"context {device}"))
    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda handle, device: (handle, device))
    streams = cuda_graphs._streams.__wrapped__
    assert streams(3) == ((0x2000, 3), (0x4000, 3))
    assert log == ["context 3", "create 1"] * 2  # 1: it does not wait for the default stream
    status = 201
    with pytest.raises(RuntimeError, match="cuStreamCreate returned 201"):
        streams(3)


def test_torchs_allocator_is_told_of_a_capture_that_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 7))
    for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
        monkeypatch.setattr(torch._C, name, lambda *at: told.append(at), raising=False)
    graph = SimpleNamespace(
        capture_begin=lambda pool, capture_error_mode: told.append(pool), capture_end=broken
    )
    for failure in ("inside", "the device was waited for"):
        with pytest.raises(RuntimeError, match=failure), cuda_graphs._capture(graph, None):  # type: ignore[arg-type]
            if failure == "inside":
                raise RuntimeError(failure)
    assert told == [(0, 7), (3, (0, 7)), (3, (0, 7))] * 2


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("fails", ["nothing", "begin", "inside", "end"])
def test_no_garbage_is_collected_during_a_capture(
    monkeypatch: pytest.MonkeyPatch, enabled: bool, fails: str
) -> None:
    collecting: dict[str, bool] = {}

    def note(step: str) -> None:
        collecting[step] = gc.isenabled()
        if step == fails:
            raise RuntimeError(step)

    graph = SimpleNamespace(
        capture_begin=lambda pool, capture_error_mode: note("begin"),
        capture_end=lambda: note("end"),
    )
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 7))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with suppress(RuntimeError), cuda_graphs._capture(graph, None):  # type: ignore[arg-type]
            note("inside")
        after = gc.isenabled()
    finally:
        (gc.enable if before else gc.disable)()
    steps = ["begin"] if fails == "begin" else ["begin", "inside", "end"]
    assert collecting == dict.fromkeys(steps, False)
    assert after == enabled


@pytest.fixture(scope="module")
def cuda() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture(scope="module")
def on_gpu(cuda: torch.device) -> TorchRuntime:
    return TorchRuntime(LITE, cuda, workers=2)


@pytest.mark.gpu
def test_gpu_float32_is_that_of_the_cpu_whatever_the_flags(
    runtime: TorchRuntime, cuda: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    page = binary(2, 256, 264)
    exact = TorchRuntime(LITE, cuda, precision="fp32")
    for _ in range(3):
        tones = exact(page.to(cuda))
        assert tones.dtype == torch.float32
        torch.testing.assert_close(tones.cpu(), runtime(page), atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # torch's own
@pytest.mark.gpu
@pytest.mark.parametrize("compile_it", [False, True], ids=["plain", "compiled"])
def test_gpu_half_precision_moves_a_tone_by_less_than_a_level(
    runtime: TorchRuntime, cuda: torch.device, compile_it: bool
) -> None:
    half = TorchRuntime(LITE, cuda, precision="half", compile=compile_it)
    page = binary(3, 256, 264)
    for _ in range(3):
        tones = half(page.to(cuda))
        assert tones.dtype == torch.float16
        assert (tones.float().cpu() - runtime(page)).abs().max() < 1 / 255


@pytest.mark.gpu
def test_gpu_a_replay_equals_the_module_and_belongs_to_the_caller(
    on_gpu: TorchRuntime, cuda: torch.device
) -> None:
    first, second = (binary(2, 128, 136, seed=seed, device=cuda) for seed in range(2))
    eager = on_gpu(first)
    captured = on_gpu(first)
    kept = captured.clone()
    other = on_gpu(second)
    assert torch.equal(captured, kept)
    assert torch.equal(eager, captured)
    assert not torch.equal(other, captured)
    view = torch.nn.functional.pad(second, (3, 5))[..., 3:-5]
    assert torch.equal(on_gpu(view), other)


@pytest.mark.gpu
def test_gpu_a_replay_takes_another_hint(runtime: TorchRuntime, cuda: torch.device) -> None:
    on_card = TorchRuntime(LITE, cuda)
    pages = [binary(2, 64, 40, seed=seed) for seed in range(4)]
    for index, page in enumerate(pages):  # run, captured, replayed; each with another hint
        hint = hint_of(page).roll(index)
        tones = on_card(page.to(cuda), hint.to(cuda)).float().cpu()
        assert (tones - runtime(page, hint)).abs().max() < 1 / 255
    unknown = on_card(pages[0].to(cuda)).float().cpu()
    assert (unknown - runtime(pages[0])).abs().max() < 1 / 255


@pytest.mark.gpu
def test_gpu_graphs_are_captured_at_priority_0_on_streams_of_their_own(cuda: torch.device) -> None:
    ours = cuda_graphs._streams(cuda.index)
    torchs = {torch.cuda.Stream(cuda).cuda_stream for _ in range(64)}
    assert len(torchs | {stream.cuda_stream for stream in ours}) == len(torchs) + 2
    assert [stream.priority for stream in ours] == [0, 0]
    assert all(stream.device == cuda for stream in ours)


@pytest.mark.gpu
def test_gpu_threads_of_their_own_streams_do_not_mix(
    on_gpu: TorchRuntime, cuda: torch.device
) -> None:
    count = 4
    batches = [binary(2, 128 + 8 * (i % 2), 256, seed=i, device=cuda) for i in range(count)]
    expected = [on_gpu(batch) for batch in batches]
    torch.cuda.synchronize()
    together = Barrier(count)

    def work(i: int) -> list[Tensor]:
        with torch.cuda.stream(torch.cuda.Stream(cuda)):
            together.wait()
            results = []
            for _ in range(20):
                batch = batches[i].clone()
                results.append(on_gpu(batch))
                batch.zero_()  # on the same stream: after it was read
            torch.cuda.current_stream().synchronize()
        return results

    with ThreadPoolExecutor(count) as pool:
        for results, tones in zip(pool.map(work, range(count)), expected, strict=True):
            for each in results:
                assert torch.equal(each, tones)


@pytest.mark.gpu
def test_gpu_more_shapes_than_graphs(on_gpu: TorchRuntime, cuda: torch.device) -> None:
    batches = [binary(1, 64, 8 * i, seed=i, device=cuda) for i in range(2, 14)]
    expected = [on_gpu(batch) for batch in batches]
    for _ in range(4):
        for batch, tones in zip(batches, expected, strict=True):
            assert torch.equal(on_gpu(batch), tones)


@pytest.mark.gpu
def test_gpu_it_runs_within_a_graph_of_the_caller(on_gpu: TorchRuntime, cuda: torch.device) -> None:
    batch = binary(1, 64, 72, device=cuda)
    expected = on_gpu(batch)
    theirs = torch.cuda.CUDAGraph()
    with torch.cuda.graph(theirs):
        tones = on_gpu(batch)
    theirs.replay()
    assert torch.equal(tones, expected)


@pytest.mark.gpu
def test_gpu_the_device_is_kept_to(cuda: torch.device) -> None:
    if torch.cuda.device_count() == 1:
        return  # nothing to tell apart
    other = torch.device("cuda", 1)
    runtime = TorchRuntime(LITE, other)
    page = binary(1, 64, 72, device=other)
    with torch.cuda.device(0):
        tones = [runtime(page) for _ in range(3)]
    assert all(each.device == other for each in tones)
    assert torch.equal(tones[0], tones[2])


@pytest.mark.gpu
def test_gpu_memory_stays_within_what_is_told(cuda: torch.device) -> None:
    runtime = TorchRuntime(LITE, cuda)
    batch = binary(4, 1024, 1024, device=cuda)
    for call in ("run", "capture", "replay"):
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        runtime(batch)
        peak = torch.cuda.max_memory_allocated() - before
        assert peak <= runtime.bytes_per_pixel * batch.numel(), call


@pytest.mark.gpu
def test_gpu_out_of_memory_passes_and_leaves_the_runtime_usable(cuda: torch.device) -> None:
    runtime = TorchRuntime(LITE, cuda)
    batch = binary(1, 64, 72, device=cuda)
    expected = runtime(batch)
    huge = torch.empty((1, 1, 1), dtype=torch.uint8, device=cuda).expand(1, 2**18, 2**18)
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            runtime(huge)
        for _ in range(3):
            assert torch.equal(runtime(batch), expected)
