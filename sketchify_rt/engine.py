"""The way of an image, readable top to bottom: decode, binarize, infer, compose, encode."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from sketchify_rt import backend, image, inputs, models, stream, strokes, tiling
from sketchify_rt.errors import (
    BackendUnavailable,
    DeviceMemoryError,
    OptionsError,
    SketchifyError,
    bare,
)
from sketchify_rt.image import Gray
from sketchify_rt.options import (
    Encoding,
    Format,
    Options,
    Precision,
    as_encoding,
    check_workers,
    from_keywords,
    tells,
)

if TYPE_CHECKING:
    import PIL.Image

    from sketchify_rt.codec.extras import Extras
    from sketchify_rt.inputs import File, ImageInput, Picture, SupportsDLPack
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

    options: what it was told; backend: the device in use; batch: images that go together, fewer
    after the device's memory was full.
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
        if "hint" in options:
            options["hint"] = inputs.hint(options["hint"])
        told = vars(model) if isinstance(model, Options) else {"model": model}
        self.options = from_keywords(told | options)
        name = self.options.model
        self.backend = backend.select(self.options)
        self.batch = self.backend.batch
        if self.backend.note:
            log.warning(self.backend.note)
        self._model = models.load(name) if self.options.mode == "sketch" else None
        self._tile = self._least = self.options.tile
        if self._model is not None:
            halo, stride = self._model.manifest.halo, self._model.manifest.stride
            self._least = least = 2 * tiling.padded(halo, stride) + stride
            if self.options.tile < least:
                raise OptionsError(f"tile is {self.options.tile}; {name} needs at least {least}")
            self._check_hint(self.options.hint)
        self._runtime: backend.Runtime | None = None
        self._workers = 0
        self._lock = threading.Lock()
        _ALL.add(self)

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
        """Let go of the model's memory. The next call opens it again."""
        with self._lock:
            self._runtime, self._workers = None, 0
        self.backend.release()

    @overload
    def __call__(self, source: PIL.Image.Image) -> PIL.Image.Image: ...
    @overload
    def __call__(self, source: str | os.PathLike[str] | bytes | Gray | File | Picture) -> Gray: ...
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

    def convert(self, source: ImageInput, encoding: Encoding | Format | None = None) -> bytes:
        """Converts one image to the bytes of an image file.

        Args:
            source: See the class.
            encoding: An `Encoding`, or the name of a format; None for PNG.

        Raises:
            EncodeError: The format cannot hold the sketch.
            SketchifyError: What a call raises.
        """
        data: bytes = _raised(*self._carry([source], as_encoding(encoding)))
        return data

    def convert_batch(
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
        is given out, so memory is bounded however long the stream. As after `prepare`, a single
        call then has the threads of one worker, until `close`. A tensor on the GPU is converted
        when its turn comes, on torch's current stream. Raises OptionsError at once for bad
        arguments.
        """
        if workers is None:
            workers = self.backend.workers
        workers = min(check_workers(workers), self.backend.most_workers)
        if on_error not in ("raise", "return"):
            raise OptionsError(f"on_error is {on_error!r}; it may be raise or return")
        self.prepare(workers)

        wanted = None if encoding is None else as_encoding(encoding)
        step = functools.partial(self._step, encoding=wanted)
        # Copied now: a worker reads them later, when a source may have filled its buffer anew.
        work = stream.batches(map(inputs.owned, sources), lambda: self.batch, inputs.on_device)
        return _results(stream.in_order(step, work, workers, inputs.on_device), on_error)

    def prepare(self, workers: int = 1) -> None:
        """Open the model for `workers` calls at the same time, at least 1, which share the threads.

        Done by itself on first use, for one. Calls already running finish on the model as it was.
        Raises OptionsError, ModelError, BackendUnavailable, EngineError, DeviceMemoryError.
        """
        self._opened(check_workers(workers))

    def _opened(self, workers: int = 1) -> tuple[backend.Runtime | None, int]:
        """The U-Net, None for the filters alone, and the threads of one call."""
        with self._lock:
            threads = self.options.thread_count
            if workers > self._workers:
                if self._model is not None:
                    self._runtime = self.backend.open_runtime(self._model, threads, workers)
                self._workers = workers
            return self._runtime, max(1, threads // self._workers)

    def _step(self, batch: list[ImageInput], encoding: Encoding | None) -> list[Any]:
        # A tensor is converted here and now: none of it is work for the host, and the stream is
        # that of who takes the result.
        return self._carry(batch, encoding, beside=not inputs.on_device(batch[0]))

    def _carry(
        self, sources: Sequence[ImageInput], encoding: Encoding | None, beside: bool = False
    ) -> list[Any]:
        """Files of the sketches, or images where `encoding` is None; an error where one failed."""
        load = functools.partial(self._load, encoding=encoding)
        loaded = [_or_error(load, source) for source in sources]
        self._opened()  # what it raises is no image's fault
        results: list[Any] = []
        with self.backend.lane(beside):
            for run in inputs.within(loaded, self.backend.pixels):
                results += self._attempt(loaded[run], encoding)
        if encoding is None:
            return [_like(source, result) for source, result in zip(sources, results, strict=True)]
        return results

    def _load(self, source: ImageInput, encoding: Encoding | None) -> inputs.Loaded:
        """Raises what `inputs.load` raises, and OptionsError for a hint that cannot be."""
        loaded = inputs.load(source, encoding)
        self._check_hint(getattr(loaded, "hint", None))
        return loaded

    def _wish(self, loaded: Any) -> strokes.Wish:
        """The image's own, or else that of all images."""
        binary, hint = getattr(loaded, "binary", None), getattr(loaded, "hint", None)
        return strokes.Wish(
            self.options.binary if binary is None else binary,
            self.options.hint if hint is None else hint,
        )

    def _attempt(self, loaded: list[Any], encoding: Encoding | None) -> list[Any]:
        """All at once; where that fails, by halves, so that an error costs none but its image.

        One image that does not fit is tried with smaller tiles.
        """
        tile = self._tile
        try:
            return self._once(loaded, encoding)
        except BackendUnavailable as error:  # whatever the images
            return [bare(error)] * len(loaded)
        except Exception as error:
            full = self.backend.exhausted(error)
            if len(loaded) == 1 and not full:
                return [error]
            last = len(loaded) == 1 and not self._smaller_tiles(tile)
            too_large = self._too_large(loaded[0], error) if last else None
        # Only here, where the error is gone, and with it the images that its frames held.
        if full:
            self.backend.release()
        if too_large:
            return [too_large]
        if len(loaded) == 1:
            return self._attempt(loaded, encoding)
        half = len(loaded) // 2
        if full and half < self.batch:
            self.batch = half
            log.warning("%s is out of memory: going on with %d images at a time", self._name, half)
        return self._attempt(loaded[:half], encoding) + self._attempt(loaded[half:], encoding)

    def _smaller_tiles(self, tile: int) -> bool:
        """Halves the tiles from now on, unless another thread has; whether they are smaller."""
        with self._lock:
            if self._tile == tile and (self._runtime is None or not self._runtime.fixed):
                half = max(self._least, tile // 2)
                if half < tile:
                    self._tile = half
                    log.warning("%s is out of memory: going on with tiles of %d", self._name, half)
            return self._tile < tile

    def _once(self, loaded: list[Any], encoding: Encoding | None) -> list[Any]:
        """The way of some images, all together."""
        _, threads = self._opened()
        results = self._decode(loaded, threads)
        good = [place for place, image in enumerate(results) if not isinstance(image, Exception)]
        if not good:
            return results
        shapes = [tuple(results[place].shape) for place in good]
        sketches = self._convert(
            [self._fit(results[place]) for place in good],
            [self._wish(loaded[place]) for place in good],
        )
        finished: Sequence[Any]
        if encoding is not None and encoding.plain:
            finished = self.backend.encode(sketches, encoding, threads)
        elif encoding is not None:
            extras = [
                self._extras(loaded[place], shape, encoding)
                for place, shape in zip(good, shapes, strict=True)
            ]
            finished = self._encode(sketches, extras, encoding, threads)
        elif inputs.on_device(loaded[0]):
            finished = self.backend.hand_out(sketches)
        else:
            finished = self.backend.download(sketches)
        for place, result in zip(good, finished, strict=True):
            results[place] = result
        return results

    def _decode(self, loaded: list[Any], threads: int) -> list[Any]:
        """Images where the backend works, and an error in the place of each that is none."""
        results = list(loaded)
        files = [place for place, image in enumerate(loaded) if isinstance(image, inputs.File)]
        grays = {
            place: image.luma if isinstance(image, inputs.Picture) else image
            for place, image in enumerate(loaded)
            if isinstance(image, (inputs.Picture, np.ndarray))
        }
        decoded = self.backend.decode(
            [loaded[place] for place in files], self.options.max_pixels, threads
        )
        uploaded = self.backend.upload(list(grays.values()))
        for place, result in zip([*files, *grays], [*decoded, *uploaded], strict=True):
            results[place] = result
        return [
            _or_error(self.backend.adopt, value) if inputs.on_device(value) else result
            for value, result in zip(loaded, results, strict=True)
        ]

    def _fit(self, gray: backend.Image) -> backend.Image:
        """Cut and resized as the options say."""
        rows, columns, height, width = image.fit(
            tuple(gray.shape), self.options.max_side, self.options.square
        )
        return self.backend.resize(gray[rows, columns], height, width)

    def _convert(
        self, grays: backend.Images, wishes: Sequence[strokes.Wish] | None = None
    ) -> backend.Images:
        """Sketches. wishes: of each image, None where all have those of the options."""
        runtime, threads = self._opened()
        if self.options.mode == "dodge":
            return self.backend.dodge(grays, self.options.strength, threads)
        if runtime is None or self._model is None:
            return self.backend.binarize(grays, threads)
        manifest = self._model.manifest
        rule = tiling.Rule(
            min(self._tile, runtime.tile or self._tile),
            manifest.halo,
            manifest.stride,
            runtime.static,
            runtime.most_pixels,
            runtime.fixed,
            runtime.most_tiles,
        )
        # Of whole images, so that tiles do not change it.
        binaries, planes = strokes.read(
            self.backend,
            grays,
            wishes or [self._wish(None)] * len(grays),
            self.options.square,
            manifest.takes_hint,
            threads,
        )
        sketches = self.backend.empty_like(binaries)
        for tiles in tiling.plan([tuple(binary.shape) for binary in binaries], rule):
            cells = self.backend.cut(planes, [tile.cells for tile in tiles]) if planes else None
            tones = runtime.infer(self.backend.cut(binaries, tiles), cells)
            self.backend.compose(tones, tiles, self.options.strength, threads, sketches)
        return sketches

    def _extras(self, loaded: Any, shape: tuple[int, int], encoding: Encoding) -> Extras:
        """What is kept of an image besides its luma, cut and resized like that."""
        from sketchify_rt.codec import extras

        found = extras.Extras()
        if isinstance(loaded, inputs.File):
            found = extras.read(loaded, encoding)
        elif isinstance(loaded, inputs.Picture) and loaded.extras is not None:
            found = loaded.extras.wanted(encoding)
        elif encoding.alpha == "keep" and (alpha := inputs.alpha_of(loaded)) is not None:
            found = extras.Extras(alpha=self.backend.download([self.backend.adopt(alpha)])[0])
        return found.fitted(shape, self.options.max_side, self.options.square)

    def _encode(
        self, sketches: backend.Images, extras: Sequence[Extras], encoding: Encoding, threads: int
    ) -> list[bytes | Exception]:
        """Files with what is kept; the host writes those with alpha."""
        clear = [place for place, extra in enumerate(extras) if extra.alpha is not None]
        opaque = [place for place, extra in enumerate(extras) if extra.alpha is None]
        encoded = self.backend.encode([sketches[place] for place in opaque], encoding, threads)
        files: dict[int, Any] = dict(zip(opaque, encoded, strict=True))
        grays = self.backend.download([sketches[place] for place in clear])
        for place, gray in zip(clear, grays, strict=True):
            encode = functools.partial(extras[place].encode, encoding=encoding)
            files[place] = _or_error(encode, gray)
        return [
            extra.attach(files[place], encoding, sketches[place].shape)
            for place, extra in enumerate(extras)
        ]

    def _too_large(self, loaded: Any, error: Exception) -> DeviceMemoryError:
        name = loaded.name if isinstance(loaded, (inputs.File, inputs.Picture)) else "<image>"
        return DeviceMemoryError(
            f"{name}: does not fit into the memory of {self._name} ({error}); give a smaller tile, "
            "a max_side, or less to others that share it"
        )

    @property
    def _name(self) -> str:
        device = self.options.device
        return self.backend.name if device == "auto" else device


_ALL: weakref.WeakSet[Sketchifier] = weakref.WeakSet()


def _after_fork() -> None:
    """A thread that held a lock when the process was forked is not there to let go of it."""
    for sketchifier in _ALL:
        sketchifier._lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def _or_error(step: Callable[[Any], Any], value: Any) -> Any:
    try:
        return step(value)
    except SketchifyError as error:
        return bare(error)
    except Exception as error:
        return error


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
