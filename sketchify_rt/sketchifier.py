"""The public face: open a model, call it, map a stream, encode, save, close."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from sketchify_rt import backend, files, forks, inputs, models, stream, tiling
from sketchify_rt.calls import Calls
from sketchify_rt.errors import OptionsError, OutputError, SketchifyError
from sketchify_rt.image import Gray
from sketchify_rt.limits import Limits
from sketchify_rt.options import (
    PER_CALL,
    Encoding,
    Format,
    Options,
    Overrides,
    Precision,
    as_encoding,
    check_encoding,
    check_hint_use,
    check_workers,
    encoding_of,
    from_keywords,
    overridden,
)
from sketchify_rt.pipeline import Pipeline

if TYPE_CHECKING:
    import PIL.Image

    from sketchify_rt.inputs import Data, File, ImageInput, Picture, SupportsDLPack
    from sketchify_rt.options import Keywords

log = logging.getLogger("sketchify_rt")


class Sketchifier:
    """Turns images into pencil sketches. Thread-safe. Reuse one: it keeps the model open.

    A source is one image:

    - a path, the bytes of an image file, or a file opened for reading bytes
    - a NumPy array, uint8: (H, W) luma, (H, W, 3) RGB or (H, W, 4) RGBA
    - a PIL image
    - a tensor of these shapes that speaks DLPack, for example of torch or CuPy
    - an `inputs.File` or `inputs.Picture`, for example one with a hint of its own, see
      `inputs.hinted`

    A Sketchifier can be pickled: the copy opens the model anew.

    Fork a process before it makes its first sketch. OpenVINO does not work in a fork of a process
    that has used it: sketches raise BackendUnavailable there. A GPU does not either. Modes dodge
    and binary work in any fork on a CPU.

    Examples:
        >>> sketchify = Sketchifier(strength=1.3)
        >>> sketch = sketchify("page.jpg")
        >>> darker = sketchify("page.jpg", hint="6B")

    Attributes:
        options: `Options` of each call that overrides none.
        backend: The device in use.
        batch: Images that go together, if they fit into the device's memory.
    """

    def __init__(
        self, model: str | os.PathLike[str] | Options = "lite", **options: Unpack[Keywords]
    ) -> None:
        """Opens a device. The model itself is opened on first use.

        Args:
            model: Name of a shipped model, path of an ONNX file, or `Options`.
            **options: Fields of `Options`, which replace those of `model`.

        Raises:
            OptionsError: An option does not exist, or may not have that value.
            ModelError: The model cannot be read.
            BackendUnavailable: The option `device` cannot be had.
        """
        told = vars(model) if isinstance(model, Options) else {"model": model}
        self.options = from_keywords(_with_hint(told | {**options}))
        self.backend = backend.select(self.options)
        self.batch = self.backend.batch
        if self.backend.note:
            log.warning(self.backend.note)
        device = self.options.device
        where = self.backend.name if device == "auto" else device
        self._limits = Limits(where, self.backend.pixels, self.options.tile)
        if self.options.mode == "sketch":
            check_hint_use(self.options.hint, self.options, self._model.manifest.takes_hint)
        self._lock = forks.Lock()  # held while a model is opened, which may take minutes
        self._opened: dict[int, Pipeline] = {}  # by the calls at the same time
        self._workers = 1  # of calls outside of `map`
        self._calls = Calls(functools.partial(self.backend.release, close=True))

    @functools.cached_property
    def _model(self) -> models.Model:
        """The model, not yet opened. Raises ModelError, OptionsError."""
        model = models.load(self.options.model)
        min_tile = tiling.min_tile(model.manifest.halo, model.manifest.stride)
        if self.options.tile < min_tile:
            raise OptionsError(
                f"tile must be at least {min_tile} for model {self.options.model}, "
                f"got {self.options.tile}"
            )
        return model

    @property
    def takes_hint(self) -> bool:
        """Whether the model takes a hint; False in the other modes."""
        return self.options.mode == "sketch" and self._model.manifest.takes_hint

    @property
    def precision(self) -> Precision | None:
        """Arithmetic of the U-Net, see `Options`: what "auto" is here; None in the other modes.

        It is "auto" only for an `engine`, which may be of any precision.
        """
        return self.backend.precision(self._model) if self.options.mode == "sketch" else None

    def __reduce__(self) -> tuple[type[Sketchifier], tuple[Options]]:
        # For worker processes: the options travel, the model is opened anew.
        return Sketchifier, (self.options,)

    def __enter__(self) -> Sketchifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the model's memory and ends the codec's threads. The next call opens it again.

        Calls in flight finish on the model as it was; the last of them frees it.
        """
        with self._lock:
            self._opened, self._workers = {}, 1
        self._calls.close()

    @overload
    def __call__(
        self, source: PIL.Image.Image, **overrides: Unpack[Overrides]
    ) -> PIL.Image.Image: ...
    @overload
    def __call__(
        self,
        source: str | os.PathLike[str] | Data | Gray | File | Picture,
        **overrides: Unpack[Overrides],
    ) -> Gray: ...
    @overload
    def __call__(self, source: SupportsDLPack, **overrides: Unpack[Overrides]) -> Any: ...
    def __call__(self, source: ImageInput, **overrides: Unpack[Overrides]) -> Any:
        """Makes the sketch of one image.

        The pixels of a tensor on the GPU in use stay there; all work is queued on torch's current
        stream.

        Args:
            source: See the class.
            **overrides: `mode`, `strength`, `binary`, `hint`, `max_side`, `square`, `detail`,
                `look`, `blacks`, `paper` or `levels` for this call, see `Options`.

        Returns:
            uint8 (H, W); of a PIL image one of mode L; of a tensor on the GPU a torch tensor there.
            With look "color" uint8 (H, W, 3) RGB, and of a PIL image one of mode RGB.

        Raises:
            OptionsError: An override does not exist, or may not have that value.
            InputError: The source is no image, or cannot be read.
            DecodeError: The bytes are no image that can be decoded.
            ModelError: The model cannot be opened.
            EngineError: A TensorRT engine that was asked for cannot be used.
            DeviceMemoryError: The image does not fit into the device's memory.
            BackendUnavailable: What runs the model is not installed, or its GPU was lost.
        """
        return _raised(*self._open(None, overrides).run([source]))

    def encode(
        self,
        source: ImageInput,
        encoding: Encoding | Format | None = None,
        **overrides: Unpack[Overrides],
    ) -> bytes:
        """Makes the sketch of one image, as the bytes of an image file.

        Args:
            source: See the class.
            encoding: An `Encoding`, or the name of a format; None for PNG.
            **overrides: See `__call__`.

        Returns:
            The bytes of the file.

        Raises:
            EncodeError: The format cannot hold the sketch.
            SketchifyError: What a call raises.
        """
        encoding = as_encoding(encoding)
        data: bytes = _raised(*self._open(None, overrides, encoding).run([source], encoding))
        return data

    def save(
        self,
        source: ImageInput,
        path: str | os.PathLike[str],
        encoding: Encoding | None = None,
        **overrides: Unpack[Overrides],
    ) -> None:
        """Writes the sketch of one image to a file, atomically. An existing file is replaced.

        Args:
            source: See the class.
            path: Its ending tells the format: .png, .jpg, .jpeg or .webp. Missing folders are made.
            encoding: How to write the file, whatever the ending; None for that of the ending.
            **overrides: See `__call__`.

        Raises:
            OptionsError: The ending is of no format that can be written.
            OutputError: The file cannot be written.
            SketchifyError: What `encode` raises.
        """
        target = Path(path)
        data = self.encode(source, encoding or encoding_of(target), **overrides)
        try:
            files.atomic_write(target, data)
        except (OSError, ValueError) as error:  # the latter: a NUL in the name
            why = getattr(error, "strerror", None) or str(error)
            raise OutputError(f"{target}: cannot be written: {why}. Choose another path") from error

    def encode_batch(
        self,
        sources: Iterable[ImageInput],
        encoding: Encoding | Format | None = None,
        **overrides: Unpack[Overrides],
    ) -> list[bytes | Exception]:
        """Makes sketches of some images, `batch` of them at a time, as the bytes of image files.

        As many threads may call it at once as `prepare` was told.

        Args:
            sources: See the class.
            encoding: An `Encoding`, or the name of a format; None for PNG.
            **overrides: See `__call__`.

        Returns:
            For each source a file, or the error that it met, a SketchifyError or any other.

        Raises:
            ModelError, OptionsError, BackendUnavailable: The model cannot be opened.
        """
        encoding = as_encoding(encoding)
        pipeline = self._open(None, overrides, encoding)
        results: list[bytes | Exception] = []
        for batch in stream.batches(sources, lambda: self.batch, inputs.on_device):
            results += pipeline.run(batch, encoding, beside=True)
        return results

    @overload
    def map(
        self,
        sources: Iterable[ImageInput],
        *,
        encoding: Encoding | Format,
        workers: int | None = ...,
        on_error: Literal["raise"] = ...,
        **overrides: Unpack[Overrides],
    ) -> Iterator[bytes]: ...
    @overload
    def map(
        self,
        sources: Iterable[ImageInput],
        *,
        encoding: Encoding | Format,
        workers: int | None = ...,
        on_error: Literal["return"],
        **overrides: Unpack[Overrides],
    ) -> Iterator[bytes | SketchifyError]: ...
    @overload
    def map(
        self,
        sources: Iterable[ImageInput],
        *,
        encoding: None = ...,
        workers: int | None = ...,
        on_error: Literal["raise", "return"] = ...,
        **overrides: Unpack[Overrides],
    ) -> Iterator[Any]: ...
    def map(
        self,
        sources: Iterable[ImageInput],
        *,
        encoding: Encoding | Format | None = None,
        workers: int | None = None,
        on_error: Literal["raise", "return"] = "raise",
        **overrides: Unpack[Overrides],
    ) -> Iterator[Any]:
        """Makes sketches of a stream of images, several at once, and yields them in order.

        Memory is bounded, however long the stream: at most two batches a worker (of `batch` images,
        1 on a CPU) are taken ahead of the one that is yielded. Host arrays are copied when they are
        taken, so a source may reuse its buffer. A tensor on the GPU is converted when its turn
        comes, on torch's current stream.

        Args:
            sources: See the class.
            encoding: Yield the bytes of image files: an `Encoding`, or the name of a format. None:
                yield images.
            workers: Batches in work at once, at least 1; at most one a thread, and 3 on a GPU. None
                for the best number.
            on_error: "return" yields a SketchifyError in the place of its image and goes on.
            **overrides: See `__call__`.

        Returns:
            An iterator of images, or of bytes with an `encoding`; with on_error="return" also of
            errors. Close it if you stop early.

        Raises:
            OptionsError: An argument is wrong. Raised at once; other errors when their turn comes.
            SketchifyError: What a call raises.
        """
        if workers is None:
            options = self._of_call(overrides)  # whose mode may be another
            split = self.backend.splits_threads
            workers = options.worker_count if split else self.backend.workers
        workers = min(check_workers(workers), self.backend.most_workers)
        if on_error not in ("raise", "return"):
            raise OptionsError(f"on_error must be raise or return, got {on_error!r}")
        chosen = None if encoding is None else as_encoding(encoding)
        run = self._open(workers, overrides, chosen).run
        step = functools.partial(run, encoding=chosen, beside=True)
        # Copied now: a worker reads them later, when a source may have filled its buffer anew.
        work = stream.batches(map(inputs.owned, sources), lambda: self.batch, inputs.on_device)
        return _results(stream.in_order(step, work, workers, inputs.on_device), on_error)

    def prepare(self, workers: int = 1) -> None:
        """Opens the model for some calls at the same time, which share the threads.

        The first call opens it by itself, for one call at a time. `map` does not depend on this.
        Calls in flight finish on the model as it was.

        Args:
            workers: Calls at the same time, at least 1.

        Raises:
            OptionsError, ModelError, BackendUnavailable, EngineError, DeviceMemoryError: The model
                cannot be opened.
        """
        check_workers(workers)
        with self._lock:
            self._workers = workers
        self._open(workers)

    def _open(
        self,
        workers: int | None = None,
        overrides: Overrides | None = None,
        encoding: Encoding | None = None,
    ) -> Pipeline:
        """Returns the model opened for so many calls at the same time; None: as was prepared."""
        options = self._of_call(overrides)
        if encoding is not None:
            check_encoding(encoding, options)
        workers = workers or self._workers
        found = self._opened.get(workers)
        if found is None or (found.painter is None and options.mode == "sketch"):
            found = self._make(workers, options)
        if options is not self.options:
            found = replace(found, options=options)
            check_hint_use(options.hint, options, found.takes_hint)
        return found

    def _of_call(self, overrides: Overrides | None) -> Options:
        return overridden(self.options, _with_hint({**overrides})) if overrides else self.options

    def _make(self, workers: int, options: Options) -> Pipeline:
        with self._lock:
            split = self.backend.splits_threads
            for count, found in self._opened.items():
                enough = count == workers or (count > workers and not split)
                if enough and (found.painter or options.mode != "sketch"):
                    return found
            self._calls.reopen()
            threads = self.options.thread_count
            painter = None
            if options.mode == "sketch":
                painter = self.backend.open_painter(self._model, threads, workers)
            share = max(1, threads // workers)
            made = Pipeline(self.backend, self.options, painter, share, self._limits, self._calls)
            kept = {self._workers} if split else set()
            self._opened = {n: p for n, p in self._opened.items() if n in kept} | {workers: made}
            return made


@overload
def sketchify(
    source: PIL.Image.Image, model: str | os.PathLike[str] = ..., **options: Unpack[Keywords]
) -> PIL.Image.Image: ...
@overload
def sketchify(
    source: str | os.PathLike[str] | Data | Gray | File | Picture,
    model: str | os.PathLike[str] = ...,
    **options: Unpack[Keywords],
) -> Gray: ...
@overload
def sketchify(
    source: SupportsDLPack, model: str | os.PathLike[str] = ..., **options: Unpack[Keywords]
) -> Any: ...
def sketchify(
    source: ImageInput, model: str | os.PathLike[str] = "lite", **options: Unpack[Keywords]
) -> Any:
    """Makes the sketch of one image.

    The model stays open for the next call. For many images, or to choose when it closes, use a
    `Sketchifier`.

    Args:
        source: See `Sketchifier`.
        model: Name of a shipped model, or path of an ONNX file.
        **options: Fields of `Options`.

    Returns:
        uint8 (H, W), or what `Sketchifier` returns for that kind of image.

    Raises:
        SketchifyError: See `Sketchifier`.

    Examples:
        >>> sketch = sketchify("page.jpg", strength=1.3)
    """
    keywords: dict[str, Any] = {"model": model, **options}
    # Not `mode`, without which the model would be looked for even if only a filter is wanted.
    names = [name for name in PER_CALL if name in keywords and name != "mode"]
    overrides = {name: keywords.pop(name) for name in names}
    call: Callable[..., Any] = _kept(from_keywords(keywords))
    return call(source, **overrides)


@functools.lru_cache(maxsize=2)
def _kept(options: Options) -> Sketchifier:
    return Sketchifier(options)


def _with_hint(keywords: dict[str, Any]) -> dict[str, Any]:
    """The same keywords, with a hint as `Options` takes it. Raises OptionsError."""
    if "hint" in keywords:
        return keywords | {"hint": inputs.hint(keywords["hint"])}
    return keywords


def _raised(result: Any) -> Any:
    try:
        if isinstance(result, Exception):
            raise result
        return result
    finally:
        del result  # else the error would hold this frame, and the frame the error


def _results(results: Generator[Any], on_error: str) -> Iterator[Any]:
    with contextlib.closing(results):
        for result in results:
            given = isinstance(result, SketchifyError) and on_error == "return"
            try:
                yield result if given else _raised(result)
            finally:
                del result
