"""The GPU's backend. Without a GPU it works on the processor, with the reference kernels."""

from __future__ import annotations

import ctypes
import dataclasses
import io
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import cv2
import fake_tensorrt
import numpy as np
import PIL.Image
import pytest
import torch
from conftest import GPU
from pictures import picture
from test_bilevel import drawing

from sketchify_rt import (
    BackendUnavailable,
    DeviceMemoryError,
    Encoding,
    EngineError,
    InputError,
    Options,
    OptionsError,
    Sketchifier,
    backend,
    models,
    tiling,
)
from sketchify_rt.backend import cuda
from sketchify_rt.backend.cuda import LANES, CudaBackend
from sketchify_rt.image import Gray, resize
from sketchify_rt.kernels import reference
from sketchify_rt.options import ARITHMETICS, Mode
from sketchify_rt.runtime import cuda_graphs
from sketchify_rt.runtime.torch import TorchRuntime
from sketchify_rt.tensorrt.record import Machine, Recipe

RNG = np.random.default_rng(0)


def on_tensors(kernel: Callable[..., Gray]) -> Callable[..., list[torch.Tensor]]:
    """A kernel of the reference, as the GPU's kernels are called."""

    def apply(
        images: Sequence[torch.Tensor],
        *arguments: float,
        out: Sequence[torch.Tensor] | None = None,
    ) -> list[torch.Tensor]:
        results = [torch.from_numpy(kernel(image.numpy(), *arguments)) for image in images]
        for target, result in zip(out or (), results, strict=out is not None):
            target.copy_(result)
        return results

    return apply


KERNELS = SimpleNamespace(
    binarize=on_tensors(reference.binarize),
    dodge=on_tensors(reference.dodge),
    compose=on_tensors(reference.compose),
)


def opened(device: torch.device, **options: Any) -> CudaBackend:
    if GPU:
        return cuda.open_cuda(Options(device="cuda", **options), 0)
    return CudaBackend(Options(**options), device, KERNELS)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    """Sketchifiers work on it."""
    monkeypatch.setattr(backend, "_cuda", lambda options, index=0: opened(device, **kept(options)))


def kept(options: Options) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if name != "device"}


def close(result: Any, expected: Any) -> None:
    """From arrays: within 1 level on 99.9 % of the pixels."""
    assert result.shape == expected.shape
    assert (np.abs(result.astype(int) - expected) <= 1).mean() >= 0.999


def close_from_jpeg(mode: str, result: Any, expected: Any) -> bool:
    """From the sample JPEG files: 99.8 % of a binary equal, a sketch within 0.5 levels on average.

    Every decoder rounds luma in its own way, and the threshold makes black or white of 1 level.
    Measured against libjpeg, binary pixels that differ and mean difference of the sketch:

                          a float IDCT       ffmpeg's "simple" IDCT
        lake.jpg          0.103 %, 0.20      0.178 %, 0.29
        still-life.jpg    0.048 %, 0.15      0.081 %, 0.22
    """
    assert result.shape == expected.shape
    apart = np.abs(result.astype(int) - expected)
    return bool((apart == 0).mean() >= 0.998 if mode == "binary" else apart.mean() < 0.5)


JPEG_SAMPLES = [
    Path(__file__).parents[1] / "samples" / f"{name}.jpg" for name in ("lake", "still-life")
]


@pytest.mark.parametrize("mode", ["binary", "sketch"])
@pytest.mark.parametrize("path", JPEG_SAMPLES, ids=lambda path: path.stem)
def test_how_close_the_result_from_a_jpeg_file_has_to_be(mode: str, path: Path) -> None:
    gray = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert gray is not None
    sketchify = Sketchifier(device="cpu", mode=mode, precision="fp32")
    expected = sketchify(gray)
    rng = np.random.default_rng(1)

    def decoded(share: float, levels: int) -> Gray:
        """By a decoder that is so many levels off on that share of the pixels."""
        off = rng.choice([-levels, levels], gray.shape) * (rng.random(gray.shape) < share)
        return np.clip(gray + off, 0, 255).astype(np.uint8)

    assert close_from_jpeg(mode, sketchify(decoded(0.015, 1)), expected)
    assert not close_from_jpeg(mode, sketchify(decoded(0.1, 3)), expected)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("mode", ["binary", "sketch"])
def test_jpeg_files_give_what_the_cpu_gives(mode: str) -> None:
    on_cpu = Sketchifier(device="cpu", mode=mode, precision="fp32")
    on_gpu = Sketchifier(device="cuda", mode=mode, tile=408)
    for path, result in zip(JPEG_SAMPLES, on_gpu.map(JPEG_SAMPLES), strict=True):
        assert close_from_jpeg(mode, result, on_cpu(path)), path


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("mode", ["sketch", "dodge", "binary"])
def test_it_gives_what_the_cpu_gives(mode: str) -> None:
    sizes = [(90, 121), (7, 300), (410, 330), (90, 121), (1, 1)]
    pages = [picture(*size, seed) for seed, size in enumerate(sizes)]
    on_cpu = Sketchifier(device="cpu", mode=mode, precision="fp32")
    on_gpu = Sketchifier(device="cuda", mode=mode, tile=408)
    expected = [on_cpu(page) for page in pages]
    for result, page in zip(on_gpu.map(pages), expected, strict=True):
        assert isinstance(result, np.ndarray)
        close(result, page)
    for page, sketch in zip(pages, expected, strict=True):
        close(on_gpu(page), sketch)


@pytest.mark.usefixtures("gpu")
def test_files_in_and_files_out(tmp_path: Path) -> None:
    pages = [picture(80, 100, seed) for seed in range(5)]
    paths = [
        tmp_path / f"{i}.{kind}" for i, kind in enumerate(("jpg", "png", "webp", "jpg", "bmp"))
    ]
    for path, page in zip(paths, pages, strict=True):
        cv2.imwrite(str(path), page)
    paths.insert(2, tmp_path / "broken.jpg")
    paths[2].write_bytes(paths[0].read_bytes()[:-300])
    on_cpu = Sketchifier(device="cpu", mode="dodge")
    on_gpu = Sketchifier(device="cuda", mode="dodge", max_side=90)
    for encoding in (Encoding(), Encoding("jpg"), Encoding("webp")):
        results = list(on_gpu.map(paths, encoding=encoding, on_error="return"))
        for path, data in zip(paths, results, strict=True):
            if path.stem == "broken":
                assert "broken.jpg: cannot be read as JPEG: it is truncated" in str(data)
                continue
            shown = np.asarray(PIL.Image.open(io.BytesIO(data)).convert("L")).astype(int)
            expected = on_cpu(resize(np.asarray(cv2.imread(str(path), 0), np.uint8), 72, 90))
            assert shown.shape == expected.shape
            assert np.abs(shown - expected).mean() < (2 if encoding.format == "jpg" else 0.5)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("mode", ["sketch", "dodge", "binary"])
def test_detail_is_that_of_the_cpu(mode: Mode) -> None:
    pages = [picture(410, 330), picture(90, 121)]  # the second is small enough already
    on_cpu = Sketchifier(device="cpu", mode=mode, precision="fp32", detail=300)
    on_gpu = Sketchifier(device="cuda", mode=mode, precision="fp32", detail=300)
    for page, result in zip(pages, on_gpu.map(pages), strict=True):
        expected = on_cpu(page).astype(int)
        assert result.shape == page.shape
        assert np.abs(result - expected).mean() < 0.5
        if mode == "binary":
            assert set(np.unique(result)) == {0, 255}


@pytest.mark.usefixtures("gpu")
def test_pil_and_colour_come_back_as_they_went() -> None:
    rgb = RNG.integers(0, 256, (50, 60, 3), np.uint8)
    result = Sketchifier(device="cuda", mode="binary")(PIL.Image.fromarray(rgb))
    assert isinstance(result, PIL.Image.Image)
    expected = Sketchifier(device="cpu", mode="binary")(rgb)
    np.testing.assert_array_equal(np.asarray(result), expected)


def test_tiles_are_cut_and_put_together_again(device: torch.device) -> None:
    gpu = opened(device)
    images = [picture(530, 401), picture(90, 33)]
    on_device = gpu.place(images)
    rule = tiling.Rule(256, 47, 8, static=256, most_pixels=2**20)
    out = gpu.empty_like(on_device)
    for tiles in tiling.plan([image.shape for image in images], rule):  # type: ignore[misc]
        batch = gpu.cut(on_device, tiles)
        for tile, cut in zip(tiles, batch.cpu().numpy(), strict=True):
            expected = tiling.cut(images[tile.image], tile.row, tile.column)
            np.testing.assert_array_equal(cut, expected)
        gpu.compose(batch.to(torch.float32) / 255, tiles, 1.0, 1, out)
    for image, result in zip(images, gpu.give(out, on_device=False), strict=True):
        np.testing.assert_array_equal(result, image)


def test_memory_bounds_what_is_taken_at_once(
    monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    class Measured(TorchRuntime):
        bytes_per_pixel = property(lambda self: 400.0, lambda self, _: None)  # type: ignore[assignment]

    monkeypatch.setattr(cuda, "TorchRuntime", Measured)
    lite = models.load("lite")
    small, large = (opened(device, device_memory=mib, tile=408) for mib in (1024, 4096))
    assert small.pixels is not None and large.pixels is not None
    assert large.pixels // small.pixels == 4
    assert small.pixels * 12 * LANES <= 2**29
    few, many = (gpu.open_painter(lite, 1, 1).runtime for gpu in (small, large))
    assert few.static == 408
    assert few.tile is not None and 408 <= few.tile < many.tile  # type: ignore[operator]
    assert few.tile**2 <= few.most_pixels < many.most_pixels <= 2**24
    with pytest.raises(OptionsError, match=r"a tile of 1536 needs 10800 MiB"):
        opened(device, device_memory=512).open_painter(deep(), 1, 1)


CPU = torch.device("cpu")


def made_up(options: Options) -> CudaBackend:
    """The GPU's backend on the processor."""
    return CudaBackend(options, CPU, KERNELS)


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A TensorRT that computes on the processor, and one engine in its cache."""
    monkeypatch.setattr(backend, "_cuda", lambda options, index=0: made_up(options))
    monkeypatch.setenv("SKETCHIFY_CACHE", str(tmp_path))
    fake = fake_tensorrt.install(monkeypatch)
    from sketchify_rt.tensorrt import engines

    here = Machine("11.4.0.106", "NVIDIA H200", "9.0")
    monkeypatch.setattr(engines, "this_machine", lambda index=0: here)
    recipe = Recipe(tile=(208, 208, 208), batch=(1, 2, 4))
    engines.make(models.load("lite"), recipe, CPU)
    return fake


@pytest.mark.usefixtures("trt")
def test_an_engine_in_the_cache_is_used_and_serves_every_size() -> None:
    pages = [picture(*size, seed) for seed, size in enumerate([(300, 210), (500, 401)] * 2)]
    by_engine, by_torch = (Sketchifier(device="cuda", runtime=name) for name in ("auto", "torch"))
    for sketch, expected in zip(by_engine.map(pages), by_torch.map(pages), strict=True):
        close(sketch, expected)
    painter = by_engine._open().painter
    assert painter is not None
    runtime = painter.runtime
    assert type(runtime.infer).__name__ == "TensorRTRuntime"
    assert (runtime.tile, runtime.static, runtime.fixed) == (208, 208, True)
    assert runtime.most_pixels == 4 * 208**2
    # Near its border in all places, beyond which the tile goes on: 7 levels, of pages 1.8.
    small = picture(90, 33)
    assert 0 < np.abs(by_engine(small).astype(int) - by_torch(small)).mean() < 12


def test_precision_is_half_or_what_was_asked_for_or_the_engines() -> None:
    def precision(**options: Any) -> str:
        return made_up(Options(**options)).precision(models.load("lite"))

    assert precision() == precision(runtime="torch") == "half"
    assert [precision(precision=name) for name in ARITHMETICS] == [*ARITHMETICS]
    assert precision(engine="folder") == "auto"
    assert precision(engine="folder", precision="int8") == "int8"


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("hint", ["auto", "none", 0.6])
def test_hints_and_pages_are_those_of_the_cpu(hint: Any) -> None:
    pages = [picture(90, 121), drawing()[:420, :330], picture(300, 410, 2), picture(33, 60)]
    told: dict[str, Any] = {"hint": hint, "tile": 256, "precision": "fp32"}
    on_cpu, on_gpu = (Sketchifier(device=name, **told) for name in ("cpu", "cuda"))
    expected = [on_cpu(page) for page in pages]
    for result, sketch in zip(on_gpu.map(pages), expected, strict=True):
        close(result, sketch)
    others = [Sketchifier(device="cpu", binary="threshold", **told)(page) for page in pages]
    same = [np.array_equal(sketch, other) for sketch, other in zip(expected, others, strict=True)]
    assert same == [True, False, True, True]  # the drawing is its own binary


def test_where_an_engine_cannot_be_used_auto_says_so_and_others_refuse(
    trt: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lite = models.load("lite")

    def runtime(**options: Any) -> str:
        caplog.clear()
        return type(made_up(Options(**options)).open_painter(lite, 1, 1).runtime.infer).__name__

    assert runtime() == runtime(runtime="tensorrt") == "TensorRTRuntime"
    assert runtime(runtime="torch") == "TorchRuntime"
    trt.fail = {"deserialize"}
    assert runtime() == "TorchRuntime"
    assert "refuses it" in caplog.text and "torch runs the U-Net instead" in caplog.text
    with pytest.raises(EngineError, match="refuses it"):
        runtime(runtime="tensorrt")
    with pytest.raises(BackendUnavailable, match="int8 on a GPU needs TensorRT: no T"):
        runtime(precision="int8")
    trt.fail = set()
    monkeypatch.setattr(trt, "_BYTES_PER_PIXEL", 10_000)
    with pytest.raises(DeviceMemoryError, match="it needs 1676 MiB of the GPU's memory"):
        runtime(runtime="tensorrt", device_memory=1024)
    assert runtime(device_memory=1024) == "TorchRuntime"
    assert runtime(device_memory=4096) == "TensorRTRuntime"


@pytest.mark.usefixtures("trt")
def test_a_dynamic_engine_gets_no_more_tiles_than_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from sketchify_rt.tensorrt import engines, session

    recipe = Recipe(tile=(8, 104, 160), batch=(1, 1, 2))
    engine = engines.make(models.load("lite"), recipe, CPU)
    seen: list[tuple[int, ...]] = []
    call = session.TensorRTRuntime.__call__

    def noted(runtime: Any, binary: torch.Tensor, hint: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(binary.shape))
        return call(runtime, binary, hint)

    monkeypatch.setattr(session.TensorRTRuntime, "__call__", noted)
    sketchify = Sketchifier(device="cuda", engine=engine.path)
    sketches = list(sketchify.map([picture(40, 48)] * 8 + [picture(300, 210)]))
    assert [sketch.shape for sketch in sketches] == [(40, 48)] * 8 + [(300, 210)]
    assert seen[:4] == [(2, 40, 48)] * 4
    assert {count for count, _, _ in seen} <= {1, 2}
    assert all(max(sides) <= 160 for _, *sides in seen)


def test_without_tensorrt_torch_runs_the_u_net(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake_tensorrt.forget(monkeypatch)
    for name in ("tensorrt", "tensorrt_lean", "tensorrt_lean_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    lite = models.load("lite")
    with caplog.at_level(logging.INFO):
        made_up(Options()).open_painter(lite, 1, 1)
    assert "TensorRT is not installed" in caplog.text
    with pytest.raises(BackendUnavailable, match=r"TensorRT is not installed .*pip inst"):
        made_up(Options(runtime="tensorrt")).open_painter(lite, 1, 1)


def deep() -> models.Model:
    """`lite`, but for a halo that asks for large tiles."""
    lite = models.load("lite")
    return models.Model(lite.path, dataclasses.replace(lite.manifest, halo=190))


def test_errors_that_mean_full_memory(
    monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    gpu = opened(device)
    released: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: released.append("all"))
    assert gpu.exhausted(torch.OutOfMemoryError("CUDA out of memory"))
    assert gpu.exhausted(MemoryError("std::bad_alloc"))
    assert gpu.exhausted(RuntimeError("nvjpeg: cudaErrorMemoryAllocation"))
    assert not gpu.exhausted(RuntimeError("an illegal memory access was encountered"))
    assert released == []  # to ask changes nothing
    gpu.release()
    assert released == ["all"]


class Watched:
    """A lock that tells when somebody waits for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.waiting = threading.Event()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self.waiting.set()
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_release_waits_for_a_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    # torch fails an assertion if its cache is emptied while any thread captures.
    log: list[str] = []
    capturing, finish = threading.Event(), threading.Event()
    lock = Watched()

    @contextmanager
    def capture(graph: object, pool: object) -> Iterator[None]:
        log.append("capture begins")
        capturing.set()
        assert finish.wait(20)
        yield
        log.append("capture ends")

    monkeypatch.setattr(cuda_graphs, "_capturing", lock)
    monkeypatch.setattr(cuda_graphs, "_streams", lambda device: (MagicMock(), MagicMock()))
    monkeypatch.setattr(cuda_graphs, "_capture", capture)
    for name in ("current_stream", "CUDAGraph", "Event", "stream"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: log.append("empty"))
    binary = torch.zeros(1, 8, 8, dtype=torch.uint8)
    with ThreadPoolExecutor(2) as pool:
        captured = pool.submit(cuda_graphs.CapturedModule, torch.Tensor.float, [binary], None)
        assert capturing.wait(20)
        released = pool.submit(made_up(Options()).release)
        waited = lock.waiting.wait(20)
        finish.set()
        captured.result(20)
        released.result(20)
    assert waited
    assert log == ["empty", "capture begins", "capture ends", "empty"]


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """Stand-ins for the modules of kernels, so that neither Triton nor numba is needed."""
    found = {}
    for name in ("triton", "numba_cuda"):
        module = ModuleType(f"sketchify_rt.kernels.{name}")
        vars(module).update(vars(KERNELS))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        found[name] = module
    return found


def test_what_cannot_be_had_is_told(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    with pytest.raises(BackendUnavailable, match=f"cuda:99: .*{'GPUs' if GPU else 'no GPU|CUDA'}"):
        backend.select(Options(device="cuda:99"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", old_driver)
    with pytest.raises(BackendUnavailable, match=r"cuda: the GPU cannot be used: .* too old"):
        backend.select(Options(device="cuda"))
    monkeypatch.undo()
    (error,) = opened(device).place([torch.empty(3, 3, dtype=torch.uint8, device="meta")])
    assert isinstance(error, InputError) and "another device: got meta" in str(error)


def old_driver(_: object) -> None:
    raise RuntimeError("The NVIDIA driver on your system is too old")


def test_numba_takes_over_where_triton_does_not_work(
    monkeypatch: pytest.MonkeyPatch, modules: dict[str, ModuleType]
) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("Failed to find C compiler")

    assert cuda._kernels(CPU) == (modules["triton"], [])
    monkeypatch.setattr(modules["triton"], "compose", broken)
    kernels, lacks = cuda._kernels(CPU)
    assert kernels is modules["numba_cuda"]
    assert CudaBackend(Options(), CPU, kernels, lacks).note == (
        "slower kernels, because of triton: Failed to find C compiler"
    )
    monkeypatch.setattr(modules["numba_cuda"], "compose", broken)
    with pytest.raises(BackendUnavailable, match=r"no kernels .*C compiler.*numba_cuda: Failed"):
        cuda._kernels(CPU)


@pytest.mark.gpu
def test_a_tensor_stays_on_the_gpu_and_its_stream() -> None:
    page = picture(300, 200)
    sketchify = Sketchifier(device="cuda")
    expected = sketchify(page)
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        tensor = torch.from_numpy(page).cuda(non_blocking=True)
        sketch = sketchify(tensor)
        assert isinstance(sketch, torch.Tensor) and sketch.is_cuda
        close(sketch.cpu().numpy(), expected)
        for again in sketchify.map([tensor, page, tensor]):
            close(np.asarray(torch.as_tensor(again).cpu()), expected)


@pytest.mark.parametrize("found", [True, False])
def test_info_says_whether_the_library_of_the_jpeg_engine_is_there(
    monkeypatch: pytest.MonkeyPatch, found: bool
) -> None:
    def load(name: str) -> None:
        if name != "libnvcuvid.so.1" or not found:
            raise OSError(f"{name}: cannot open shared object file")

    card = SimpleNamespace(name="NVIDIA H200", total_memory=139 * 2**30, major=9, minor=0)
    kernels = SimpleNamespace(__name__="sketchify_rt.kernels.triton")
    monkeypatch.setattr(
        cuda, "open_cuda", lambda options, index: CudaBackend(options, CPU, kernels)
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    monkeypatch.setattr(ctypes, "CDLL", load)
    detail = cuda.describe()
    assert detail.startswith("NVIDIA H200, 139 GiB, compute capability 9.0, driver ")
    assert "kernels triton; libnvcuvid.so.1 " in detail
    assert ("libnvcuvid.so.1 found" in detail) == found
    setting = "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video"
    assert (setting in detail) != found
    root = Path(__file__).parents[1]
    for file in ("docker/gpu.Dockerfile", "docs/install.md"):
        assert setting in (root / file).read_text(encoding="utf-8")


@pytest.mark.gpu
def test_info_names_the_card() -> None:
    (info,) = (info for info in backend.available() if info.name == "cuda")
    assert info.available
    assert torch.cuda.get_device_name() in info.detail


@pytest.mark.gpu
def test_memory_stays_within_the_bound() -> None:
    pages = [picture(700 + 8 * (i % 9), 500) for i in range(30)]
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    with Sketchifier(device="cuda", device_memory=2048, tile=768) as sketchify:
        for _ in range(3):
            list(sketchify.map(pages, encoding=Encoding()))
    assert torch.cuda.max_memory_reserved() < 2048 * 2**20
