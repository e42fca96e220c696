"""The way of an image, readable top to bottom: decode, binarize, infer, compose, encode."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import numpy as np

from sketchify_rt import backend, image, models, tiling
from sketchify_rt.errors import InputError, SketchifyError
from sketchify_rt.image import Gray
from sketchify_rt.options import Encoding, Options

if TYPE_CHECKING:
    import PIL.Image

    ImageInput = str | os.PathLike[str] | bytes | Gray | PIL.Image.Image

T = TypeVar("T")

# Images in work at once at most: beyond it threads share an image, for the U-Net's buffers take
# about 0.25 KiB per pixel for each image in work.
MAX_WORKERS = 8


class Sketchifier:
    """Turns images into pencil sketches. Thread-safe; reuse one, since it keeps the model open.

    >>> sketchify = Sketchifier(strength=1.3)
    >>> sketch = sketchify("page.jpg")

    An image is a path, the bytes of an image file, a NumPy array, uint8 (H, W) luma or (H, W, 3)
    RGB or (H, W, 4) RGBA, or a PIL image.
    """

    def __init__(self, model: str = "lite", device: str = "auto", **options: Any) -> None:
        """Take the fields of `Options` as keywords. The model itself is opened on first use.

        Raises OptionsError, ModelError, and BackendUnavailable where `device` cannot be had.
        """
        self.options = Options(model=model, device=device, **options)
        self.backend = backend.select(device)
        self._model = models.load(model) if self.options.mode == "sketch" else None
        self._runtime: backend.Runtime | None = None
        self._workers = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Sketchifier:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the model's memory. The next call opens it again."""
        with self._lock:
            self._runtime, self._workers = None, 0

    @overload
    def __call__(self, source: PIL.Image.Image) -> PIL.Image.Image: ...
    @overload
    def __call__(self, source: str | os.PathLike[str] | bytes | Gray) -> Gray: ...
    def __call__(self, source: ImageInput) -> Gray | PIL.Image.Image:
        """Convert one image: uint8 (H, W), or a PIL image of mode L where one was handed in.

        Raises InputError, DecodeError, ModelError.
        """
        result = self._convert(self._open(source))
        if _is_pil(source):
            import PIL.Image

            return PIL.Image.fromarray(result)
        return result

    def convert(self, source: ImageInput, encoding: Encoding | None = None) -> bytes:
        """Convert one image to the bytes of an image file, PNG unless told otherwise.

        Raises InputError, DecodeError, EncodeError, ModelError.
        """
        return self.backend.encode(self._convert(self._open(source)), encoding or Encoding())

    def map(
        self,
        sources: Iterable[ImageInput],
        *,
        encoding: Encoding | None = None,
        workers: int | None = None,
        on_error: Literal["raise", "return"] = "raise",
    ) -> Iterator[Any]:
        """Convert a stream of images, results in order, several images in work at once.

        encoding: give the bytes of image files instead of images. workers: images in work at once,
        at least 1; None for one a thread, at most MAX_WORKERS. on_error: "return" puts a
        SketchifyError in the place of its image and goes on.

        At most two images a worker are taken ahead of the one that is given out, so memory is
        bounded however long the stream.
        """
        workers = workers or min(self.options.thread_count, MAX_WORKERS)
        self.prepare(workers)
        step: Callable[[ImageInput], object] = self
        if encoding is not None:
            step = lambda source: self.convert(source, encoding)  # noqa: E731
        for future in _in_order(step, sources, workers):
            try:
                yield future.result()
            except SketchifyError as error:
                if on_error == "raise":
                    raise
                yield error

    def prepare(self, workers: int = 1) -> None:
        """Open the model for `workers` calls at the same time, which then share the threads.

        Done by itself on first use, for one. Calls already running finish on the model as it was.
        """
        self._opened(workers)

    def _opened(self, workers: int = 1) -> tuple[backend.Runtime | None, int]:
        """The U-Net, None for the filters alone, and the threads of one call."""
        with self._lock:
            threads = self.options.thread_count
            if workers > self._workers:
                if self._model is not None:
                    self._runtime = self.backend.open_runtime(
                        self._model, threads, workers, self.options.precision
                    )
                self._workers = workers
            return self._runtime, max(1, threads // self._workers)

    def _open(self, source: ImageInput) -> Gray:
        """Whatever was handed in as luma, cut and resized as the options say."""
        gray = self._decode(source)
        if self.options.square is not None:
            return image.square(gray, self.options.square)
        if self.options.max_side is not None:
            return image.resize_max_side(gray, self.options.max_side)
        return gray

    def _decode(self, source: ImageInput) -> Gray:
        if isinstance(source, (str, os.PathLike)):
            path = Path(source)
            try:
                data = path.read_bytes()
            except OSError as error:
                raise InputError(f"{path}: cannot be read ({error.strerror})") from error
            return self.backend.decode(data, str(path), self.options.max_pixels)
        if isinstance(source, (bytes, bytearray, memoryview)):
            return self.backend.decode(bytes(source), "<bytes>", self.options.max_pixels)
        if isinstance(source, np.ndarray):
            return image.to_luma(source)
        if _is_pil(source):
            return self.backend.from_pil(source)
        raise InputError(
            f"an image is a path, bytes, a NumPy array or a PIL image, not {type(source).__name__}"
        )

    def _convert(self, gray: Gray) -> Gray:
        runtime, threads = self._opened()
        if self.options.mode == "dodge":
            return self.backend.dodge(gray, strength=self.options.strength, threads=threads)
        binary = self.backend.binarize(gray, threads=threads)
        if runtime is None or self._model is None:
            return binary
        manifest = self._model.manifest
        sketch = np.empty_like(binary)
        for row, column in tiling.grid(
            binary.shape, self.options.tile, manifest.halo, manifest.stride
        ):
            tile = tiling.cut(binary, row, column)
            tones = runtime(tile[None])[0, row.inner, column.inner]
            target = sketch[row.keep, column.keep]
            self.backend.compose(tones, self.options.strength, threads=threads, out=target)
        return sketch


def _is_pil(source: object) -> bool:
    # By name, so that Pillow is not imported for those who do not use it.
    return any(base.__module__ == "PIL.Image" for base in type(source).__mro__)


def _in_order(
    step: Callable[[Any], T], sources: Iterable[Any], workers: int
) -> Iterator[Future[T]]:
    """Futures of `step` over `sources`, in order, at most two a worker ahead."""
    pending: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="sketchify") as pool:
        try:
            for source in sources:
                pending.append(pool.submit(step, source))
                if len(pending) == 2 * workers:
                    yield pending.popleft()
            while pending:
                yield pending.popleft()
        finally:
            for future in pending:
                future.cancel()
