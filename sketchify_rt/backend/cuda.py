"""One NVIDIA GPU: DALI, Triton or numba kernels, torch. Images are torch tensors."""

from __future__ import annotations

import ctypes
import importlib
import logging
import math
import queue
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.utils.dlpack
from torch import Tensor

from sketchify_rt import bilevel, tensors, tiling
from sketchify_rt.backend import INSTALL
from sketchify_rt.codec.cuda import Codec, missing
from sketchify_rt.codec.header import File
from sketchify_rt.errors import (
    BackendUnavailable,
    DecodeError,
    DeviceMemoryError,
    EncodeError,
    EngineError,
    InputError,
    OptionsError,
    OutputError,
    SketchifyError,
    bare,
)
from sketchify_rt.models import Model
from sketchify_rt.options import Encoding, Options, Precision
from sketchify_rt.painter import Painter, Runtime
from sketchify_rt.runtime.cuda_graphs import release_memory
from sketchify_rt.runtime.driver import driver
from sketchify_rt.runtime.torch import TorchRuntime
from sketchify_rt.tiling import Tile

log = logging.getLogger("sketchify_rt")

# Batches at work at the same time: one decodes, another is on the GPU, and a third is encoded.
LANES = 3

# Bytes of device memory for each pixel of an image at work: luma, binary and sketch, and the
# buffers of the decoder and the encoder.
_IMAGE_BYTES = 12

_MIN_MEMORY = 384 * 2**20  # bytes; three quarters of the smallest `device_memory`

# Pixels that go through the U-Net together. They fill the largest GPU several times over; more
# would only add latency.
_MAX_PIXELS = 2**24


def cuda_device(index: int) -> torch.device:
    """Return the GPU of a number.

    Args:
        index: The number, from 0.

    Raises:
        BackendUnavailable: There is no such GPU, or it cannot be used.
    """
    count = torch.cuda.device_count()
    if index >= count:
        why = f"no GPU has this number: found {count}, numbered from 0"
        if not torch.version.cuda:
            why = "this torch was built without CUDA. To fix: see https://pytorch.org"
        raise BackendUnavailable(why)
    device = torch.device("cuda", index)
    try:
        torch.cuda.mem_get_info(device)  # the first call that needs a driver for this torch
    except RuntimeError as error:
        raise BackendUnavailable(f"the GPU cannot be used: {error}") from error
    return device


def open_cuda(options: Options, index: int) -> CudaBackend:
    """Open a GPU, its kernels and its codec.

    Args:
        options: The options.
        index: The number of the GPU, from 0.

    Raises:
        BackendUnavailable: The GPU cannot be used, has too little memory, or no kernels work.
    """
    device = cuda_device(index)
    if (free := _memory(options, device)) < _MIN_MEMORY:
        raise BackendUnavailable(
            f"too little memory of the GPU is free: {free / 2**20:.0f} MiB can be used, "
            f"{_MIN_MEMORY / 2**20:.0f} MiB are needed"
        )
    kernels, lacks = _kernels(device)
    return CudaBackend(options, device, kernels, lacks)


def _kernels(device: torch.device) -> tuple[Any, list[str]]:
    """Return the module of kernels, and why it is not Triton's.

    numba takes over where Triton does not work. Raises BackendUnavailable.
    """
    errors: list[str] = []
    for name in ("triton", "numba_cuda"):
        try:
            kernels = importlib.import_module(f"sketchify_rt.kernels.{name}")
            # Run one, since Triton calls a C compiler, which needs Python's headers.
            kernels.compose([torch.zeros(1, 1, device=device)])
        except Exception as error:  # of any kind
            errors.append(f"{name}: {error}")
        else:
            return kernels, errors
    raise BackendUnavailable(f"no kernels work ({'; '.join(errors)}). To fix: {INSTALL}")


def describe() -> str:
    """Describe the GPU for `sketchify-rt info`: its driver, its JPEG library and its kernels.

    Raises:
        BackendUnavailable: There is no GPU that torch can use.
    """
    backend = open_cuda(Options(device="cuda"), 0)
    card = torch.cuda.get_device_properties(0)
    detail = (
        f"{card.name}, {card.total_memory / 2**30:.0f} GiB, compute capability "
        f"{card.major}.{card.minor}, driver {driver()}, CUDA {torch.version.cuda}, kernels "
        f"{backend.kernels.__name__.rpartition('.')[2]}; {_jpeg_engine_library()}"
    )
    return f"{detail}; {backend.note}" if backend.note else detail


def _jpeg_engine_library() -> str:
    """Tell whether nvJPEG can load the library that it needs for a hardware JPEG engine.

    There is no way to ask whether the GPU has such an engine: A100, H100, H200 and B200 have one,
    GeForce cards have none.
    """
    name = "libnvcuvid.so.1"
    try:
        ctypes.CDLL(name)
    except OSError:
        return (
            f"{name} not found, so a hardware JPEG engine cannot be used. To fix: in a container "
            "set NVIDIA_DRIVER_CAPABILITIES=compute,utility,video; elsewhere install the library "
            "from the driver's packages"
        )
    return f"{name} found (for cards with a hardware JPEG engine)"


class CudaBackend:
    """See `Backend`. All work is queued on torch's current stream, which `lane` sets."""

    name = "cuda"
    workers = LANES
    most_workers = LANES
    splits_threads = False

    resize = staticmethod(tensors.resize)
    enlarge = staticmethod(tensors.enlarge)
    look = staticmethod(tensors.look)

    def __init__(
        self, options: Options, device: torch.device, kernels: Any, lacks: Sequence[str] = ()
    ) -> None:
        """Make a backend.

        Args:
            options: The options.
            device: The GPU; the CPU in tests.
            kernels: A module with binarize, dodge and compose for tensors on `device`.
            lacks: Why these kernels are not the fastest ones, for the note.
        """
        self.kernels = kernels
        self.batch = options.batch
        self._options = options
        self._device = device
        # One half is for the images, the other for the U-Net.
        self._half_lane = _memory(options, device) // LANES // 2
        self.pixels: int | None = self._half_lane // _IMAGE_BYTES
        self._codec = Codec(device, options.thread_count)
        self._streams: queue.LifoQueue[torch.cuda.Stream] = queue.LifoQueue()
        notes = [f"slower kernels, because of {why}" for why in lacks]
        if device.type == "cuda" and (absent := missing()):
            notes.append(
                f"the CPU reads or writes images, since {', '.join(absent)} is missing. "
                f"To fix: {INSTALL}"
            )
        self.note = "; ".join(notes) or None

    def precision(self, model: Model) -> Precision:
        """Return the option; for "auto" it is half, unless a given engine has its own."""
        options = self._options
        half = options.precision == "auto" and options.engine is None
        return "half" if half else options.precision

    @contextmanager
    def lane(self, beside: bool) -> Iterator[None]:
        """Make this GPU the current one, with a stream of its own if `beside`."""
        if self._device.type == "cpu":  # in the tests
            yield
            return
        with torch.cuda.device(self._device):
            if not beside:
                yield
                return
            # Streams are used again, since torch keeps freed memory for its stream.
            try:
                stream = self._streams.get_nowait()
            except queue.Empty:
                stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            try:
                with torch.cuda.stream(stream):
                    yield
            finally:
                self._streams.put(stream)

    def place(self, pixels: Sequence[Any]) -> list[Any]:
        """Upload arrays through pinned memory, all at once. Of tensors only colour is copied."""
        arrays = [image for image in pixels if isinstance(image, np.ndarray)]
        uploaded = iter(tensors.upload(arrays, self._device))
        return [
            next(uploaded) if isinstance(image, np.ndarray) else self._adopt(image)
            for image in pixels
        ]

    def _adopt(self, tensor: Any) -> Tensor | Exception:
        """Return luma on this device, or an error."""
        try:
            on_torch = isinstance(tensor, Tensor)
            shared = tensor if on_torch else torch.utils.dlpack.from_dlpack(tensor)
            if shared.device != self._device:
                raise InputError(
                    f"the tensor is on another device: got {shared.device}, expected {self._device}"
                )
            return tensors.to_luma(shared)
        except SketchifyError as error:
            return bare(error)
        except Exception as error:  # of the library of the tensor
            return error

    def give(self, images: Sequence[Tensor], on_device: bool) -> list[Any]:
        """Return dense tensors, or arrays with their own memory, since pinned memory is scarce."""
        if on_device:
            return [image.contiguous() for image in images]
        return [gray.copy() for gray in tensors.download(images)]

    def decode(
        self, files: Sequence[File], max_pixels: int, threads: int
    ) -> Sequence[Tensor | DecodeError]:
        """DALI; see `codec.cuda`."""
        return self._codec.decode(files, max_pixels) if files else []

    def binarize(self, images: Sequence[Tensor], threads: int) -> list[Tensor]:
        """One launch."""
        binaries: list[Tensor] = self.kernels.binarize(images)
        return binaries

    def page(self, image: Tensor, whole: Tensor, always: bool) -> Tensor | None:
        """Use the levels of the CPU backend; waits for the device."""
        level = tensors.bilevel_level(whole)
        if level is None and always:
            level = bilevel.otsu(tensors.histogram(whole))
        return None if level is None else (image >= level).to(torch.uint8) * 255

    def dodge(self, images: Sequence[Tensor], strength: float, threads: int) -> list[Tensor]:
        """One launch."""
        drawings: list[Tensor] = self.kernels.dodge(images, strength)
        return drawings

    def hint(
        self, images: Sequence[Tensor], binaries: Sequence[Tensor], threads: int
    ) -> list[Tensor]:
        """Use torch's operators, one image after the other."""
        tones = self.dodge(images, 1.0, threads)
        return [tensors.hint(*pair) for pair in zip(binaries, tones, strict=True)]

    def open_painter(self, model: Model, threads: int, workers: int) -> Painter:
        """Open a TensorRT engine, or torch; see `Options.runtime`.

        Raises:
            BackendUnavailable: TensorRT is not installed or does not work here.
            DeviceMemoryError: There is no memory for the engine.
            EngineError: The engine does not fit.
            ModelError: The model cannot be read.
            OptionsError: There is no memory for a tile.
        """
        engine = None if self._options.compile else self._engine(model, workers)
        return Painter(engine or self._torch(model, workers), self, model.manifest)

    def _engine(self, model: Model, workers: int) -> Runtime | None:
        """Open a TensorRT engine; log why and return None if "auto" finds none."""
        options = self._options
        if options.runtime == "torch":
            return None
        try:
            from sketchify_rt.tensorrt import engines

            memory = self._half_lane * LANES
            runtime = engines.open_runtime(model, options, self._device, workers, memory)
        except (BackendUnavailable, DeviceMemoryError, EngineError, OutputError) as error:
            if options.runtime == "tensorrt" or options.engine is not None:
                raise
            if options.precision == "int8":
                raise BackendUnavailable(
                    f"int8 on a GPU needs TensorRT: {error}; or use --device cpu"
                ) from error
            # Many users do not have TensorRT, and need no warning each time.
            level = logging.INFO if isinstance(error, BackendUnavailable) else logging.WARNING
            log.log(level, "%s; torch runs the U-Net instead", error)
            return None
        count, tile, _ = runtime.most
        fixed = runtime.least[1:] == runtime.most[1:]
        return Runtime(runtime, tile, tile if fixed else None, count * tile**2, fixed, count)

    def _torch(self, model: Model, workers: int) -> Runtime:
        options, manifest = self._options, model.manifest
        runtime = TorchRuntime(model, self._device, workers, options.precision, options.compile)
        # Twice, because each worker keeps as much for its graphs as a call without a graph takes.
        pixel_bytes = 2 * runtime.bytes_per_pixel
        pixels = int(self._half_lane / pixel_bytes)
        static = min(tiling.static_side(manifest.halo, manifest.stride), options.tile)
        if pixels < static**2:
            need = static**2 * pixel_bytes * 2 * LANES / 2**20
            raise OptionsError(
                f"too little memory of the GPU is free, or allowed by device_memory: a tile of "
                f"{static} needs {need:.0f} MiB. To fix: give a smaller tile or more device_memory"
            )
        return Runtime(runtime, math.isqrt(pixels), static, min(pixels, _MAX_PIXELS))

    def cut(self, images: Sequence[Tensor], tiles: Sequence[Tile]) -> Tensor:
        """Copy tiles; beyond an image its last row and column are repeated."""
        height, width = tiles[0].shape
        batch = torch.empty((len(tiles), height, width), dtype=torch.uint8, device=self._device)
        for target, tile in zip(batch, tiles, strict=True):
            image = images[tile.image]
            part = image[tile.row.start : tile.row.stop, tile.column.start : tile.column.stop]
            rows, columns = part.shape
            target[:rows, :columns] = part
            if columns < width:
                target[:rows, columns:] = part[:, -1:]
            if rows < height:
                target[rows:] = target[rows - 1]
        return batch

    def empty_like(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Allocate tensors."""
        return tensors.empty([tuple(image.shape) for image in images], self._device)

    def compose(
        self,
        tones: Tensor,
        tiles: Sequence[Tile],
        strength: float,
        threads: int,
        out: Sequence[Tensor],
    ) -> None:
        """One launch."""
        self.kernels.compose(
            [
                whole[tile.row.inner, tile.column.inner]
                for whole, tile in zip(tones, tiles, strict=True)
            ],
            strength,
            out=[out[tile.image][tile.row.keep, tile.column.keep] for tile in tiles],
        )

    def encode(
        self, images: Sequence[Tensor], encoding: Encoding, threads: int
    ) -> Sequence[bytes | EncodeError]:
        """nvImageCodec for JPEG, host threads for the rest; see `codec.cuda`."""
        return self._codec.encode(images, encoding)

    def exhausted(self, error: BaseException) -> bool:
        """Test the type for torch and DALI, and the text for the encoder and the driver."""
        of_memory = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        return of_memory or bool(re.search("out of memory|MemoryAllocation", str(error)))

    def release(self, *, close: bool = False) -> None:
        """Free what torch keeps for later, which DALI may need. Waits for a running capture."""
        if close:  # the threads of the old one end; the new one has none until it is used
            self._codec = Codec(self._device, self._options.thread_count)
        release_memory()


def _memory(options: Options, device: torch.device) -> int:
    """Return the bytes of the device's memory to use."""
    if options.device_memory is not None:
        return options.device_memory * 2**20
    if device.type == "cpu":
        return 2**30
    free, _ = torch.cuda.mem_get_info(device)
    return free // 4 * 3
