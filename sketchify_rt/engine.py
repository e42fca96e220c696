"""The way of an image, readable top to bottom: decode, binarize, infer, compose, encode."""

from __future__ import annotations

import functools
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
from sketchify_rt.errors import DecodeError, InputError, OptionsError, SketchifyError
from sketchify_rt.image import Gray
from sketchify_rt.options import Encoding, Options

if TYPE_CHECKING:
    import PIL.Image

    ImageInput = str | os.PathLike[str] | bytes | Gray | PIL.Image.Image

T = TypeVar("T")


class Sketchifier:
    """Turns images into pencil sketches. Thread-safe; reuse one, since it keeps the model open.

    >>> sketchify = Sketchifier(strength=1.3)
    >>> sketch = sketchify("page.jpg")

    An image is a path, the bytes of an image file, a NumPy array, uint8 (H, W) luma or (H, W, 3)
    RGB or (H, W, 4) RGBA, or a PIL image. It can be pickled: the copy opens the model anew. Do not
    fork a process while a conversion runs; forking before or after is safe.
    """

    def __init__(
        self, model: str | os.PathLike[str] = "lite", device: str = "auto", **options: Any
    ) -> None:
        """Take the fields of `Options` as keywords. The model itself is opened on first use.

        Raises OptionsError, ModelError, and BackendUnavailable where `device` cannot be had.
        """
        name = os.fspath(model) if isinstance(model, os.PathLike) else model
        self.options = Options(model=name, device=device, **options)
        self.backend = backend.select(device)
        self._model = models.load(name) if self.options.mode == "sketch" else None
        if self._model is not None:
            halo, stride = self._model.manifest.halo, self._model.manifest.stride
            least = 2 * tiling.padded(halo, stride) + stride
            if self.options.tile < least:
                raise OptionsError(f"tile is {self.options.tile}; {name} needs at least {least}")
        self._runtime: backend.Runtime | None = None
        self._workers = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Callable[[Options], Sketchifier], tuple[Options]]:
        # For worker processes: the options travel, the model is opened anew.
        return _from_options, (self.options,)

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

        Raises InputError, DecodeError, ModelError, and BackendUnavailable where the model's runtime
        is not installed.
        """
        result = self._convert(self._open(source))
        if _is_pil(source):
            import PIL.Image

            return PIL.Image.fromarray(result)
        return result

    def convert(self, source: ImageInput, encoding: Encoding | None = None) -> bytes:
        """Convert one image to the bytes of an image file, PNG unless told otherwise.

        Raises EncodeError, and what a call raises.
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
        at least 1, at most one a thread; None for `Options.worker_count`. on_error:
        "return" puts a SketchifyError in the place of its image and goes on.

        At most two images a worker are taken ahead of the one that is given out, so memory is
        bounded however long the stream. As after `prepare`, a single call then has the threads of
        one worker, until `close`. Raises OptionsError at once for bad arguments.
        """
        most = self.options.worker_count
        workers = most if workers is None else min(workers, self.options.thread_count)
        if on_error not in ("raise", "return"):
            raise OptionsError(f"on_error is {on_error!r}; it may be raise or return")
        self.prepare(workers)
        step: Callable[[ImageInput], object] = self
        if encoding is not None:
            step = functools.partial(self.convert, encoding=encoding)
        return _results(_in_order(step, sources, workers), on_error)

    def prepare(self, workers: int = 1) -> None:
        """Open the model for `workers` calls at the same time, at least 1, which share the threads.

        Done by itself on first use, for one. Calls already running finish on the model as it was.
        Raises OptionsError, ModelError, BackendUnavailable.
        """
        if workers < 1:
            raise OptionsError(f"workers is {workers}; it must be at least 1")
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
            path = os.fsdecode(source)
            if not path:
                raise InputError("an empty path names no file")
            try:
                data = Path(path).read_bytes()
            except (OSError, ValueError) as error:  # ValueError: no name that a file can have
                why = getattr(error, "strerror", None) or error
                raise InputError(f"{path}: cannot be read ({why})") from error
            return self.backend.decode(data, path, self.options.max_pixels)
        if isinstance(source, (bytes, bytearray, memoryview)):
            return self.backend.decode(bytes(source), "<bytes>", self.options.max_pixels)
        if isinstance(source, np.ndarray):
            return image.to_luma(source)
        if _is_pil(source):
            return self._decode_pil(source)
        raise InputError(
            f"an image is a path, bytes, a NumPy array or a PIL image, not {type(source).__name__}"
        )

    def _decode_pil(self, source: PIL.Image.Image) -> Gray:
        try:
            return self.backend.from_pil(source)
        except SketchifyError:
            raise
        except Exception as error:  # Pillow reads files late, and broken ones raise anything
            name = getattr(source, "filename", "") or "<PIL image>"
            raise DecodeError(str(name), f"cannot be read: {error}") from error

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


def _from_options(options: Options) -> Sketchifier:
    return Sketchifier(**vars(options))


def _is_pil(source: object) -> bool:
    # By name, so that Pillow is not imported for those who do not use it.
    return any(
        (base.__module__, base.__name__) == ("PIL.Image", "Image") for base in type(source).__mro__
    )


def _results(futures: Iterator[Future[T]], on_error: str) -> Iterator[T | SketchifyError]:
    for future in futures:
        try:
            yield future.result()
        except SketchifyError as error:
            if on_error == "raise":
                raise
            yield error


def _in_order(
    step: Callable[[Any], T], sources: Iterable[Any], workers: int
) -> Iterator[Future[T]]:
    """Futures of `step` over `sources`, in order, at most two a worker ahead.

    Where `sources` itself raises, what it gave before comes first.
    """
    pending: deque[Future[T]] = deque()
    broken: Exception | None = None
    remaining = iter(sources)
    with ThreadPoolExecutor(workers, thread_name_prefix="sketchify") as pool:
        try:
            while True:
                try:
                    source = next(remaining)
                except StopIteration:
                    break
                except Exception as error:
                    broken = error
                    break
                pending.append(pool.submit(step, source))
                if len(pending) == 2 * workers:
                    yield pending.popleft()
            while pending:
                yield pending.popleft()
            if broken is not None:
                raise broken
        finally:
            for future in pending:
                future.cancel()
