"""One NVIDIA GPU: DALI, Triton or numba kernels, torch. Images are torch tensors."""

from __future__ import annotations

import ctypes
import importlib
import logging
import math
import os
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

# Batches in work at once: one decodes while another is on the GPU and a third is encoded.
LANES = 3

# Bytes of device memory for each pixel of an image in work: page, binary and sketch, and what the
# decoder and the encoder hold of it.
_IMAGE_BYTES = 12

_LEAST_MEMORY = 384 * 2**20  # three quarters of the least that `device_memory` may be

# Pixels that go through the U-Net together: enough to fill the largest card of today several times
# over, and with more nothing is gained but latency.
_MOST_PIXELS = 2**24


def cuda_device(index: int) -> torch.device:
    """The GPU of that number. Raises BackendUnavailable where there is none that can be used."""
    count = torch.cuda.device_count()
    if index >= count:
        why = f"there is no such GPU, {count} found, numbered from 0"
        if not torch.version.cuda:
            why = "this torch was built without CUDA; https://pytorch.org tells how to get another"
        raise BackendUnavailable(why)
    device = torch.device("cuda", index)
    try:
        torch.cuda.mem_get_info(device)  # the first that needs the driver to work with this torch
    except RuntimeError as error:
        raise BackendUnavailable(f"the GPU cannot be used: {error}") from error
    return device


def open_cuda(options: Options, index: int) -> CudaBackend:
    """The GPU of that number, its kernels and codec. Raises BackendUnavailable."""
    device = cuda_device(index)
    if (free := _memory(options, device)) < _LEAST_MEMORY:
        raise BackendUnavailable(f"only {free / 2**20:.0f} MiB of its memory are to be had")
    kernels, lacks = _kernels(device)
    return CudaBackend(options, device, kernels, lacks)


def _kernels(device: torch.device) -> tuple[Any, list[str]]:
    """The kernels' module, Triton's, or numba's where that does not work; and why it does not.

    SKETCHIFY_GPU_KERNELS names one to use: triton or numba_cuda. Raises BackendUnavailable.
    """
    asked = os.environ.get("SKETCHIFY_GPU_KERNELS")
    names = ("triton", "numba_cuda")
    if asked and asked not in names:
        raise BackendUnavailable(f"SKETCHIFY_GPU_KERNELS is {asked}, not {' or '.join(names)}")
    errors = []
    for name in [asked] if asked else names:
        try:
            kernels = importlib.import_module(f"sketchify_rt.kernels.{name}")
            # To import is not enough: Triton calls a C compiler, which wants Python's headers.
            kernels.compose([torch.zeros(1, 1, device=device)])
        except Exception as error:  # of all kinds
            errors.append(f"{name}: {error}")
        else:
            return kernels, errors
    raise BackendUnavailable(
        f"no kernels work ({'; '.join(errors)}); `{INSTALL}` installs what it needs"
    )


def describe() -> str:
    """The card, its driver, the library of the hardware JPEG engine, and what works on the card.

    Raises BackendUnavailable where there is no GPU that torch can use.
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
    """Whether nvJPEG can load the library that it needs for a hardware JPEG engine.

    Nothing tells whether the card has such an engine: A100, H100, H200 and B200 have one, GeForce
    cards have none.
    """
    name = "libnvcuvid.so.1"
    try:
        ctypes.CDLL(name)
    except OSError:
        return (
            f"{name} not found, so a hardware JPEG engine cannot be used: in a container, set "
            "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video; elsewhere, install the library "
            "from the driver's packages"
        )
    return f"{name} found (for cards with a hardware JPEG engine)"


class CudaBackend:
    """See `Backend`. All is queued on torch's current stream, which `lane` sets."""

    name = "cuda"
    workers = LANES
    most_workers = LANES
    splits_threads = False

    resize = staticmethod(tensors.resize)

    def __init__(
        self, options: Options, device: torch.device, kernels: Any, lacks: Sequence[str] = ()
    ) -> None:
        """kernels: a module with binarize, dodge and compose for tensors on `device`.

        lacks: what works less well than it could, for the note.
        """
        self.kernels = kernels
        self.batch = options.batch
        self._options = options
        self._device = device
        self._lane_bytes = _memory(options, device) // LANES
        # Half of it for the images, half for the U-Net.
        self.pixels: int | None = self._lane_bytes // 2 // _IMAGE_BYTES
        self._codec = Codec(device, options.thread_count)
        self._streams: queue.LifoQueue[torch.cuda.Stream] = queue.LifoQueue()
        notes = [f"slower kernels, because of {why}" for why in lacks]
        if device.type == "cuda" and (absent := missing()):
            notes.append(
                f"images are read or written by the processor, without {', '.join(absent)}; "
                f"`{INSTALL}` installs it"
            )
        self.note = "; ".join(notes) or None

    def precision(self, model: Model) -> Precision:
        """Half, unless told otherwise; a given engine has its own."""
        options = self._options
        half = options.precision == "auto" and options.engine is None
        return "half" if half else options.precision

    @contextmanager
    def lane(self, beside: bool) -> Iterator[None]:
        """A stream of its own where `beside`, else the caller's; this GPU the current one."""
        if self._device.type == "cpu":  # in the tests
            yield
            return
        with torch.cuda.device(self._device):
            if not beside:
                yield
                return
            # Few streams, used again and again: torch keeps freed memory apart by stream.
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
        """Arrays go up through pinned memory, in one copy; of tensors colour alone is copied."""
        on_host = [place for place, image in enumerate(pixels) if isinstance(image, np.ndarray)]
        placed = [
            self._adopt(image) if not isinstance(image, np.ndarray) else None for image in pixels
        ]
        if on_host:
            uploaded = tensors.upload([pixels[place] for place in on_host], self._device)
            for place, image in zip(on_host, uploaded, strict=True):
                placed[place] = image
        return placed

    def _adopt(self, tensor: Any) -> Tensor | Exception:
        """Luma on this device, or why not."""
        try:
            shared = (
                tensor if isinstance(tensor, Tensor) else torch.utils.dlpack.from_dlpack(tensor)
            )
            if shared.device != self._device:
                raise InputError(f"the tensor is on {shared.device}, the engine on {self._device}")
            return tensors.to_luma(shared)
        except SketchifyError as error:
            return bare(error)
        except Exception as error:  # of a library's own
            return error

    def give(self, images: Sequence[Tensor], on_device: bool) -> list[Any]:
        """Tensors without what lies between their rows; arrays of their own.

        A caller may keep arrays, and pinned memory is scarce.
        """
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
        """By the levels of the CPU; waits for the device."""
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
        """By torch's operators, one image after the other."""
        tones = self.dodge(images, 1.0, threads)
        return [tensors.hint(*pair) for pair in zip(binaries, tones, strict=True)]

    def open_painter(self, model: Model, threads: int, workers: int) -> Painter:
        """A TensorRT engine, or torch; see `Options.runtime`.

        Raises ModelError, BackendUnavailable, EngineError, DeviceMemoryError, and OptionsError
        where there is no memory for a tile.
        """
        engine = None if self._options.compile else self._engine(model, workers)
        return Painter(engine or self._torch(model, workers), self, model.manifest)

    def _engine(self, model: Model, workers: int) -> Runtime | None:
        """A TensorRT engine; None where "auto" finds none, which is logged."""
        options = self._options
        if options.runtime == "torch":
            return None
        try:
            from sketchify_rt.tensorrt import engines

            memory = self._lane_bytes * LANES // 2
            runtime = engines.open_runtime(model, options, self._device, workers, memory)
        except (BackendUnavailable, DeviceMemoryError, EngineError, OutputError) as error:
            if options.runtime == "tensorrt" or options.engine is not None:
                raise
            if options.precision == "int8":
                raise BackendUnavailable(
                    f"int8 on a GPU needs TensorRT: {error}; or use --device cpu"
                ) from error
            # Who has no TensorRT need not hear of it each time.
            level = logging.INFO if isinstance(error, BackendUnavailable) else logging.WARNING
            log.log(level, "%s; torch runs the U-Net instead", error)
            return None
        count, tile, _ = runtime.most
        fixed = runtime.least[1:] == runtime.most[1:]
        return Runtime(runtime, tile, tile if fixed else None, count * tile**2, fixed, count)

    def _static(self, model: Model) -> int:
        """Side of the tile of images whose size is not common."""
        side = tiling.static_side(model.manifest.halo, model.manifest.stride)
        return min(side, self._options.tile)

    def _torch(self, model: Model, workers: int) -> Runtime:
        options = self._options
        runtime = TorchRuntime(model, self._device, workers, options.precision, options.compile)
        # Twice, because each worker keeps as much for the graphs as a call without one takes.
        most = int(self._lane_bytes / 2 / (2 * runtime.bytes_per_pixel))
        static = self._static(model)
        if most < static**2:
            need = static**2 * 2 * runtime.bytes_per_pixel * 2 * LANES / 2**20
            raise OptionsError(
                f"a tile of {static} does not fit into the GPU's memory that is free, or that "
                f"device_memory allows; it takes {need:.0f} MiB"
            )
        return Runtime(runtime, math.isqrt(most), static, most_pixels=min(most, _MOST_PIXELS))

    def cut(self, images: Sequence[Tensor], tiles: Sequence[Tile]) -> Tensor:
        """Beyond an image its last row and column are repeated."""
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
        """Tensors."""
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
        """Of torch and DALI by type, of the encoder and the driver by text."""
        of_memory = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        return of_memory or bool(re.search("out of memory|MemoryAllocation", str(error)))

    def release(self, *, close: bool = False) -> None:
        """What torch keeps for later, which DALI may need. Waits for a capture of another lane."""
        if close:  # its threads end with it; the new one has none until it is used
            self._codec = Codec(self._device, self._options.thread_count)
        release_memory()


def _memory(options: Options, device: torch.device) -> int:
    """Bytes of the device's memory to use."""
    if options.device_memory is not None:
        return options.device_memory * 2**20
    if device.type == "cpu":
        return 2**30
    free, _ = torch.cuda.mem_get_info(device)
    return free // 4 * 3
