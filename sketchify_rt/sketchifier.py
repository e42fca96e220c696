"""The public face: open a model, call it, map a stream, encode, close."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from sketchify_rt import backend, files, forks, inputs, models, stream, tiling
from sketchify_rt.errors import OptionsError, OutputError, SketchifyError
from sketchify_rt.image import Gray
from sketchify_rt.limits import Limits
from sketchify_rt.options import (
    Encoding,
    Format,
    Options,
    Precision,
    as_encoding,
    check_workers,
    encoding_of,
    from_keywords,
    tells,
)
from sketchify_rt.pipeline import Pipeline, or_error

if TYPE_CHECKING:
    import PIL.Image

    from sketchify_rt.inputs import Data, File, ImageInput, Picture, SupportsDLPack
    from sketchify_rt.options import Hint

log = logging.getLogger("sketchify_rt")


class Sketchifier:
    """Turns images into pencil sketches. Thread-safe; reuse one, since it keeps the model open.

    >>> sketchify = Sketchifier(strength=1.3)
    >>> sketch = sketchify("page.jpg")

    An image is a path, the bytes of an image file, a NumPy array, uint8 (H, W) luma or (H, W, 3)
    RGB or (H, W, 4) RGBA, a PIL image, or a tensor of these shapes that speaks DLPack, such as one
    of torch or CuPy; or an `inputs.File` or `inputs.Picture`, such as `inputs.hinted` makes of an
    image with a hint of its own. It can be pickled: the copy opens the model anew.

    Fork a process before it makes its first sketch. OpenVINO does not work in a fork of a process
    that has used it: there sketches raise BackendUnavailable. Nor does a GPU. The filters alone,
    modes dodge and binary, stand any fork on a CPU.

    Attributes:
        options: What it was told.
        backend: The device in use.
        batch: Images that go together, if they fit into the device's memory.
    """

    def __init__(self, model: str | os.PathLike[str] | Options = "lite", **options: Any) -> None:
        """Opens a device; the model itself is opened on first use.

        Args:
            model: Name of a shipped model, path of an ONNX file, or `Options`.
            **options: Fields of `Options`, which replace those of `model`.

        Raises:
            OptionsError: An option does not exist, or may not have that value.
            ModelError: The model cannot be read.
            BackendUnavailable: The option `device` cannot be had.
        """
        told = vars(model) if isinstance(model, Options) else {"model": model}
        self.options = _options(told | options)
        name = self.options.model
        self.backend = backend.select(self.options)
        self.batch = self.backend.batch
        if self.backend.note:
            log.warning(self.backend.note)
        self._model = models.load(name) if self.options.mode == "sketch" else None
        min_tile = self.options.tile
        if self._model is not None:
            halo, stride = self._model.manifest.halo, self._model.manifest.stride
            min_tile = 2 * tiling.padded(halo, stride) + stride
            if self.options.tile < min_tile:
                raise OptionsError(f"tile is {self.options.tile}; {name} needs at least {min_tile}")
            self._check_hint(self.options.hint)
        device = self.options.device
        self._limits = Limits(
            self.backend.name if device == "auto" else device,
            self.backend.pixels,
            self.options.tile,
            min_tile,
        )
        self._opened: dict[int, Pipeline] = {}  # by the calls at the same time
        self._workers = 1  # of calls outside of `map`
        self._in_flight = 0
        self._closing = False
        self._lock = forks.Lock()  # held while a model is opened, which may take minutes
        self._calls_lock = forks.Lock()  # of the two above
        forks.watch(self, Sketchifier._forget_calls)

    @property
    def takes_hint(self) -> bool:
        """Whether the model does; False in the other modes."""
        return self._model is not None and self._model.manifest.takes_hint

    def _check_hint(self, hint: Hint | None) -> None:
        if hint is None or not tells(hint) or self.takes_hint:
            return
        if self.options.mode != "sketch":
            raise OptionsError(
                f"hint needs mode sketch: got mode {self.options.mode}; leave hint out"
            )
        raise OptionsError(
            f"model {self.options.model} takes no hint: got {hint}; leave hint and pencil out, or "
            "give a model that takes one"
        )

    @property
    def precision(self) -> Precision | None:
        """Arithmetic of the U-Net, see `Options`: what "auto" is here; None in the other modes.

        "auto" only where it is that of `engine`, which may be any.
        """
        return None if self._model is None else self.backend.precision(self._model)

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
        with self._calls_lock:
            self._closing = self._in_flight > 0
            if self._closing:
                return
        self.backend.release(close=True)

    @overload
    def __call__(self, source: PIL.Image.Image) -> PIL.Image.Image: ...
    @overload
    def __call__(self, source: str | os.PathLike[str] | Data | Gray | File | Picture) -> Gray: ...
    @overload
    def __call__(self, source: SupportsDLPack) -> Any: ...
    def __call__(self, source: ImageInput) -> Any:
        """Convert one image: uint8 (H, W), or a PIL image of mode L where one was handed in.

        Of a tensor on the GPU in use the result is a torch tensor there; the pixels stay on the
        GPU, and all is queued on torch's current stream.

        Raises InputError, DecodeError, ModelError, DeviceMemoryError, EngineError where an engine
        that was asked for is of no use, and BackendUnavailable where the model's runtime is not
        installed.
        """
        return _raised(*self._carry([source], None))

    def encode(self, source: ImageInput, encoding: Encoding | Format | None = None) -> bytes:
        """Makes the sketch of one image, as the bytes of an image file.

        Args:
            source: See the class.
            encoding: An `Encoding`, or the name of a format; None for PNG.

        Raises:
            EncodeError: The format cannot hold the sketch.
            SketchifyError: What a call raises.
        """
        data: bytes = _raised(*self._carry([source], as_encoding(encoding)))
        return data

    def save(
        self,
        source: ImageInput,
        path: str | os.PathLike[str],
        encoding: Encoding | None = None,
    ) -> None:
        """Writes the sketch of one image to a file, atomically; an existing file is replaced.

        Args:
            source: See the class.
            path: Its folders are made. Its ending tells the format: .png, .jpg, .jpeg or .webp.
            encoding: How to write it, whatever the ending; None for that of the ending.

        Raises:
            OptionsError: The ending is of no format that can be written.
            OutputError: The file cannot be written.
            SketchifyError: What `encode` raises.
        """
        target = Path(path)
        data = self.encode(source, encoding or encoding_of(target))
        try:
            files.atomic_write(target, data)
        except (OSError, ValueError) as error:  # the latter: a NUL in the name
            why = getattr(error, "strerror", None) or str(error)
            raise OutputError(f"{target}: cannot be written: {why}; choose another path") from error

    def encode_batch(
        self, sources: Iterable[ImageInput], encoding: Encoding | Format | None = None
    ) -> list[bytes | Exception]:
        """Convert some images to the bytes of image files, `batch` of them at a time.

        From as many threads at once as `prepare` was told. In the place of an image that failed
        stands its error, whichever: a SketchifyError, or one that nobody foresaw. Raises
        ModelError, OptionsError and BackendUnavailable where the model cannot be opened.
        """
        encoding = as_encoding(encoding)
        results: list[bytes | Exception] = []
        for batch in stream.batches(sources, lambda: self.batch, inputs.on_device):
            results += self._step(batch, encoding)
        return results

    def map(
        self,
        sources: Iterable[ImageInput],
        *,
        encoding: Encoding | Format | None = None,
        workers: int | None = None,
        on_error: Literal["raise", "return"] = "raise",
    ) -> Iterator[Any]:
        """Convert a stream of images, results in order, several images in work at once.

        encoding: give the bytes of image files instead of images. workers: batches in work at once,
        at least 1, at most one a thread, and 3 on a GPU; None for what the device likes. on_error:
        "return" puts a SketchifyError in the place of its image and goes on.

        At most two batches a worker (of `batch` images, 1 on a CPU) are taken ahead of the one that
        is given out, so memory is bounded however long the stream. Host arrays are copied as they
        are taken. A tensor on the GPU is converted when its turn comes, on torch's current stream.
        Raises OptionsError at once for bad arguments.
        """
        if workers is None:
            workers = self.backend.workers
        workers = min(check_workers(workers), self.backend.most_workers)
        if on_error not in ("raise", "return"):
            raise OptionsError(f"on_error is {on_error!r}; it may be raise or return")
        wanted = None if encoding is None else as_encoding(encoding)
        pipeline = self._open(workers)
        step = functools.partial(self._step, encoding=wanted, pipeline=pipeline)
        # Copied now: a worker reads them later, when a source may have filled its buffer anew.
        work = stream.batches(map(inputs.owned, sources), lambda: self.batch, inputs.on_device)
        return _results(stream.in_order(step, work, workers, inputs.on_device), on_error)

    def prepare(self, workers: int = 1) -> None:
        """Opens the model for `workers` calls at the same time, which share the threads.

        The first call does it by itself, for one. `map` does not depend on it. Calls in flight
        finish on the model as it was.

        Args:
            workers: At least 1.

        Raises:
            OptionsError, ModelError, BackendUnavailable, EngineError, DeviceMemoryError.
        """
        check_workers(workers)
        with self._lock:
            self._workers = workers
        self._open(workers)

    def _open(self, workers: int | None = None) -> Pipeline:
        """The model opened for so many calls at the same time; None: as `prepare` was told."""
        with self._lock:
            workers = workers or self._workers
            found = self._opened.get(workers)
            if found is None and not self.backend.splits_threads:
                found = next((p for count, p in self._opened.items() if count > workers), None)
            if found is None:
                found = self._opened[workers] = self._pipeline(workers)
                kept = {workers, self._workers} if self.backend.splits_threads else {workers}
                self._opened = {count: p for count, p in self._opened.items() if count in kept}
            return found

    def _pipeline(self, workers: int) -> Pipeline:
        threads = self.options.thread_count
        painter = None
        if self._model is not None:
            painter = self.backend.open_painter(self._model, threads, workers)
        share = max(1, threads // workers)
        return Pipeline(self.backend, self.options, painter, share, self._limits)

    def _step(
        self, batch: list[ImageInput], encoding: Encoding | None, pipeline: Pipeline | None = None
    ) -> list[Any]:
        # A tensor is converted here and now: none of it is work for the host, and the stream is
        # that of who takes the result.
        return self._carry(batch, encoding, pipeline, beside=not inputs.on_device(batch[0]))

    def _carry(
        self,
        sources: Sequence[ImageInput],
        encoding: Encoding | None,
        pipeline: Pipeline | None = None,
        beside: bool = False,
    ) -> list[Any]:
        """Files of the sketches, or images where `encoding` is None; an error where one failed."""
        load = functools.partial(self._load, encoding=encoding)
        loaded = [or_error(load, source) for source in sources]
        with self._call():
            # What opening raises is no image's fault.
            results = (pipeline or self._open()).run(loaded, encoding, beside)
        if encoding is None:
            return [_like(source, result) for source, result in zip(sources, results, strict=True)]
        return results

    def _forget_calls(self) -> None:
        """In a forked child, which has none of the threads that are in a call."""
        self._in_flight = 0

    @contextlib.contextmanager
    def _call(self) -> Iterator[None]:
        """Counts calls in flight, the last of which finishes what `close` began."""
        with self._calls_lock:
            self._in_flight += 1
        try:
            yield
        finally:
            with self._calls_lock:
                self._in_flight -= 1
                last = self._closing and not self._in_flight
                if last:
                    self._closing = False
            if last and not self._opened:
                self.backend.release(close=True)

    def _load(self, source: ImageInput, encoding: Encoding | None) -> inputs.Loaded:
        """Raises what `inputs.load` raises, and OptionsError for a hint that cannot be."""
        loaded = inputs.load(source, encoding)
        self._check_hint(getattr(loaded, "hint", None))
        return loaded


def sketchify(source: ImageInput, **options: Any) -> Any:
    """Makes the sketch of one image.

    >>> sketch = sketchify("page.jpg", strength=1.3)

    The model stays open for the next call with the same options. For many images, or to choose when
    it closes, use a `Sketchifier`.

    Args:
        source: See `Sketchifier`.
        **options: Fields of `Options`.

    Returns:
        uint8 (H, W), or what `Sketchifier` returns for that kind of image.

    Raises:
        SketchifyError: See `Sketchifier`.
    """
    call: Callable[[ImageInput], Any] = _kept(_options(options))
    return call(source)


def _options(keywords: dict[str, Any]) -> Options:
    """Options of these names, a hint as `inputs.hint` reads it. Raises OptionsError."""
    if "hint" in keywords:
        keywords = keywords | {"hint": inputs.hint(keywords["hint"])}
    return from_keywords(keywords)


@functools.lru_cache(maxsize=2)
def _kept(options: Options) -> Sketchifier:
    return Sketchifier(options)


def _raised(result: Any) -> Any:
    try:
        if isinstance(result, Exception):
            raise result
        return result
    finally:
        del result  # else the error would hold this frame, and the frame the error


def _like(source: ImageInput, result: Any) -> Any:
    """A PIL image where one was handed in."""
    if inputs.is_pil(source) and not isinstance(result, Exception):
        import PIL.Image

        return PIL.Image.fromarray(result)
    return result


def _results(results: Generator[Any], on_error: str) -> Iterator[Any]:
    with contextlib.closing(results):
        for result in results:
            given = isinstance(result, SketchifyError) and on_error == "return"
            try:
                yield result if given else _raised(result)
            finally:
                del result
