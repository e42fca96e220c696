"""The processor: C++ kernels, OpenCV and Pillow, OpenVINO. Images are NumPy arrays."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from numpy.typing import NDArray

from sketchify_rt import _native, bilevel, looks, tiling
from sketchify_rt.codec import cpu as codec
from sketchify_rt.codec.header import File
from sketchify_rt.errors import BackendUnavailable, DecodeError, EncodeError, InputError, bare
from sketchify_rt.image import CELL, Gray, enlarge, resize
from sketchify_rt.kernels import native
from sketchify_rt.models import Model
from sketchify_rt.options import Arithmetic, Encoding, Look, Options
from sketchify_rt.painter import Painter, Runtime
from sketchify_rt.tiling import Tile

_KEPT = 8 * 2**20  # bytes: as `batch.budget.return_large_blocks` has it

# src/plugins/intel_cpu/src/cpu_memory.cpp, and the C++ library below it.
_OPENVINO_IS_OUT_OF_MEMORY = re.compile(r"Failed to allocate \d+ bytes of memory|std::bad_alloc")


class CpuBackend:
    """See `Backend`. A worker carries one image, since nothing is gained by more."""

    name = "cpu"
    batch = 1
    pixels: int | None = None
    splits_threads = True

    resize = staticmethod(resize)
    enlarge = staticmethod(enlarge)
    page = staticmethod(bilevel.page)

    def __init__(self, options: Options, note: str | None = None) -> None:
        """Raises BackendUnavailable where SKETCHIFY_ISA asks for what this processor has not."""
        self._isa = native.isa()
        # glibc returns blocks that are larger than any freed before. Each call would then map the
        # memory of its page again: dodge of 720 x 960 takes 2.1 ms, and 1.5 ms with this line.
        np.empty(_KEPT, np.uint8)
        self.note = note
        self.workers = options.worker_count
        self.most_workers = options.thread_count
        self._precision = options.precision

    def precision(self, model: Model) -> Arithmetic:
        """INT8 where it is the fastest: the model has such a form, and the processor VNNI."""
        if self._precision != "auto":
            return self._precision
        quantized = model.manifest.int8_sha256 is not None and model.file("int8").is_file()
        return "int8" if quantized and native.vnni() else "half"

    def lane(self, beside: bool) -> AbstractContextManager[None]:
        """Nothing: each thread works beside the others."""
        return nullcontext()

    def place(self, pixels: Sequence[object]) -> list[Gray | Exception]:
        """Arrays as they are, rows adjacent. Tensors of a device are refused."""
        return [
            np.ascontiguousarray(image)
            if isinstance(image, np.ndarray)
            else InputError(
                "the tensor is on a GPU or another device. Give device cuda, or copy it to the host"
            )
            for image in pixels
        ]

    def give(self, images: Sequence[Gray], on_device: bool) -> Sequence[Gray]:
        """Arrays as they are."""
        return images

    def decode(
        self, files: Sequence[File], max_pixels: int, threads: int
    ) -> list[Gray | DecodeError]:
        """One after the other."""
        results: list[Gray | DecodeError] = []
        for file in files:
            try:
                results.append(codec.decode(file, max_pixels))
            except DecodeError as error:
                results.append(bare(error))
        return results

    # The pipeline made these arrays, so the kernels check them no more than memory needs.
    def binarize(self, images: Sequence[Gray], threads: int) -> list[Gray]:
        """One after the other."""
        results: list[Gray] = []
        for image in images:
            results.append(np.empty_like(image))
            _native.binarize(image, results[-1], threads, self._isa)
        return results

    def dodge(self, images: Sequence[Gray], strength: float, threads: int) -> list[Gray]:
        """One after the other."""
        results: list[Gray] = []
        for image in images:
            results.append(np.empty_like(image))
            _native.dodge(image, results[-1], round(strength * 256), threads, self._isa)
        return results

    def hint(self, images: Sequence[Gray], binaries: Sequence[Gray], threads: int) -> list[Gray]:
        """One after the other."""
        results: list[Gray] = []
        for binary, tones in zip(binaries, self.dodge(images, 1.0, threads), strict=True):
            height, width = binary.shape
            cells = np.empty((-(-height // CELL), -(-width // CELL)), np.uint8)
            _native.hint(binary, tones, cells, threads, self._isa)
            results.append(cells)
        return results

    def look(self, sketch: Gray, gray: Gray, look: Look) -> Gray:
        """On one thread, since it takes 0.3 ms for a page."""
        tables = looks.tables(look, lambda: looks.counts(sketch), lambda: looks.counts(gray))
        return native.look(sketch, gray, *tables)

    def open_painter(self, model: Model, threads: int, workers: int) -> Painter:
        """OpenVINO, which takes any shape; raises BackendUnavailable where it is not installed."""
        # Imported only when a U-Net is to run: the filters alone do without its third of a second.
        try:
            from sketchify_rt.runtime.openvino import OpenVinoRuntime
        except (ImportError, RuntimeError) as error:  # RuntimeError: no core can be made
            raise BackendUnavailable(f"cpu: {error}. To fix: pip install openvino") from error
        runtime = Runtime(OpenVinoRuntime(model, threads, workers, self.precision(model)))
        return Painter(runtime, self, model.manifest)

    def cut(self, images: Sequence[Gray], tiles: Sequence[Tile]) -> Gray:
        """A view of the image, where the one tile lies within it."""
        cuts = [tiling.cut(images[tile.image], tile.row, tile.column) for tile in tiles]
        return cuts[0][None] if len(cuts) == 1 else np.stack(cuts)

    def empty_like(self, images: Sequence[Gray]) -> list[Gray]:
        """Arrays."""
        return [np.empty_like(image) for image in images]

    def compose(
        self,
        tones: NDArray[np.float32],
        tiles: Sequence[Tile],
        strength: float,
        threads: int,
        out: Sequence[Gray],
    ) -> None:
        """One tile after the other."""
        for tile, whole in zip(tiles, tones, strict=True):
            target = out[tile.image][tile.row.keep, tile.column.keep]
            kept = whole[tile.row.inner, tile.column.inner]
            _native.compose(kept, target, round(strength * 256), threads, self._isa)

    def encode(
        self, images: Sequence[Gray], encoding: Encoding, threads: int
    ) -> list[bytes | EncodeError]:
        """One after the other."""
        results: list[bytes | EncodeError] = []
        for image in images:
            try:
                results.append(codec.encode(image, encoding))
            except EncodeError as error:
                results.append(bare(error))
        return results

    def exhausted(self, error: BaseException) -> bool:
        """Whether memory ran out."""
        # OpenVINO reports it as a RuntimeError. The type is tested because other errors name files.
        return isinstance(error, MemoryError) or (
            type(error) is RuntimeError and bool(_OPENVINO_IS_OUT_OF_MEMORY.search(str(error)))
        )

    def release(self, *, close: bool = False) -> None:
        """Nothing is kept on a CPU."""
