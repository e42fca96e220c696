"""The way of a batch of images through one device.

    load -> decode -> fit -+-> binarize --------+-> paint -> look -> enlarge -> give or encode
                           +-> hint ------------+

Each step takes all images of the batch. An image that fails leaves an error in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sketchify_rt import inputs, strokes
from sketchify_rt.backend import Backend
from sketchify_rt.errors import (
    BackendUnavailable,
    DeviceMemoryError,
    EncodeError,
    SketchifyError,
    bare,
)
from sketchify_rt.image import fit, to_rgb
from sketchify_rt.limits import Limits
from sketchify_rt.options import Encoding, Look, Options, check_hint_use
from sketchify_rt.painter import Image, Images, Painter

if TYPE_CHECKING:
    from sketchify_rt.codec.extras import Extras
    from sketchify_rt.inputs import ImageInput

    Loaded = inputs.Loaded | Exception
    Result = Image | bytes | Exception


@dataclass(frozen=True)
class Pipeline:
    """A model opened for use. It never changes: a call takes one and ends with it.

    Attributes:
        backend: The device.
        options: What to make.
        painter: The U-Net; None for the filters alone.
        threads: Of the processor, for one call.
        limits: What fits into the device's memory, shared by all calls.
        calls: Entered by each call, for `Sketchifier.close`.
        look: Of the options; None where it changes nothing.
        colours: Whether it needs the colours of the sources.
        max_detail: Of the options.
    """

    backend: Backend
    options: Options
    painter: Painter | None
    threads: int
    limits: Limits
    calls: AbstractContextManager[object]
    look: Look | None = field(init=False)
    colours: bool = field(init=False)
    max_detail: int | None = field(init=False)

    def __post_init__(self) -> None:
        """Finds out once what all images need."""
        look = self.options.whole_look
        object.__setattr__(self, "look", None if look == Look() else look)
        object.__setattr__(self, "colours", look.colours)
        object.__setattr__(self, "max_detail", self.options.max_detail)

    def run(
        self, sources: Sequence[ImageInput], encoding: Encoding | None = None, beside: bool = False
    ) -> list[Result]:
        """Makes sketches of images, as many together as there is memory for.

        Args:
            sources: See `Sketchifier`.
            encoding: Of the files; None for images.
            beside: Queue the work beside that of the caller. Tensors of a device stay in turn.

        Returns:
            For each image a file, or a sketch, or the error that it met.
        """
        loaded = [self._load(source, encoding) for source in sources]
        results: list[Result] = []
        with self.calls, self.backend.lane(beside and not inputs.on_device(sources[0])):
            batches = inputs.within(loaded, self.limits.pixels)[::-1]
            while batches:
                batch, tile = batches.pop(), self.limits.tile
                try:
                    results += self._convert(batch, encoding)
                    self.limits.batch_succeeded()
                    continue
                except Exception as error:
                    full = self.backend.exhausted(error)
                    failed = self._failed(batch, error, full, tile)
                # Only here the error is gone, and with it the images that its frames held.
                if full:
                    self.backend.release()
                if failed:
                    results += failed
                elif len(batch) == 1:
                    batches.append(batch)
                else:  # by halves, so that an error costs only its own image
                    half = len(batch) // 2
                    batches += [batch[half:], batch[:half]]
        if encoding is None:
            results = [
                inputs.as_pil(result) if inputs.is_pil(source) else result
                for source, result in zip(sources, results, strict=True)
            ]
        return results

    def _convert(self, loaded: list[Loaded], encoding: Encoding | None) -> list[Result]:
        """The story: decode, draw, and encode or give; an error in the place of a bad file."""
        results: list[Result] = [*self._decode(loaded)]
        good = [at for at, found in enumerate(results) if not isinstance(found, Exception)]
        if not good:
            return results
        sources, grays = [loaded[at] for at in good], [results[at] for at in good]
        sketches = self.draw(sources, grays)
        if self.colours and encoding is None:
            finished = self._coloured(sketches, sources, grays)
        elif encoding is None:
            finished = self.backend.give(sketches, inputs.on_device(sources[0]))
        elif encoding.plain and not self.colours:
            finished = self.backend.encode(sketches, encoding, self.threads)
        else:
            finished = self._encode_with_extras(sketches, sources, grays, encoding)
        for at, result in zip(good, finished, strict=True):
            results[at] = result
        return results

    def draw(self, sources: Sequence[Loaded], whole: Images) -> Images:
        """Makes sketches, or what the filters alone make.

        Args:
            sources: Where each image comes from. It may tell a hint and a binary of its own.
            whole: Luma on the device, uint8 (H, W) each.
        """
        options, backend, painter, threads = self.options, self.backend, self.painter, self.threads
        grays = self._fit(whole)
        if options.mode == "dodge":
            sketches = backend.dodge(grays, options.strength, threads)
        elif options.mode == "binary" or painter is None:
            sketches = backend.binarize(grays, threads)
        else:
            takes_hint = painter.manifest.takes_hint
            wishes = [strokes.Wish.of(source, options, takes_hint) for source in sources]
            # Of whole images, so that tiles do not change them.
            binaries, pages = strokes.find_binaries(backend, grays, whole, wishes, threads)
            planes = None
            if takes_hint:
                planes = strokes.find_hints(backend, grays, binaries, pages, wishes, threads)
            sketches = painter.paint(binaries, planes, options.strength, self.limits.tile, threads)
        if self.look is not None:
            pairs = zip(sketches, grays, strict=True)
            sketches = [backend.look(sketch, gray, self.look) for sketch, gray in pairs]
        return sketches if self.max_detail is None else self._enlarge(sketches, whole)

    def _load(self, source: ImageInput, encoding: Encoding | None) -> Loaded:
        """Reads one image; an error in its place where that fails."""
        try:
            loaded = inputs.load(source, encoding, self.colours)
            if isinstance(loaded, (inputs.File, inputs.Picture)) and loaded.hint is not None:
                check_hint_use(loaded.hint, self.options, self.takes_hint)
            return loaded
        except SketchifyError as error:
            return bare(error)
        except Exception as error:  # with its traceback, for who looks for the reason
            return error

    @property
    def takes_hint(self) -> bool:
        """Whether the U-Net does; False in the other modes."""
        painter = self.painter
        return self.options.mode == "sketch" and painter is not None and painter.manifest.takes_hint

    def _decode(self, loaded: list[Loaded]) -> list[Image | Exception]:
        """Luma on the device, and an error in the place of each image that has none."""
        found: dict[int, Image | Exception] = {}
        files: dict[int, inputs.File] = {}
        pixels: dict[int, Image] = {}
        for place, source in enumerate(loaded):
            if isinstance(source, inputs.File):
                files[place] = source
            elif isinstance(source, Exception):
                found[place] = source
            else:
                pixels[place] = source.luma if isinstance(source, inputs.Picture) else source
        if files:
            max_pixels = self.options.max_pixels
            decoded = self.backend.decode([*files.values()], max_pixels, self.threads)
            found |= zip(files, decoded, strict=True)
        if pixels:
            found |= zip(pixels, self.backend.place([*pixels.values()]), strict=True)
        return [found[place] for place in range(len(loaded))]

    def _fit(self, grays: Images) -> Images:
        """Cuts and resizes as the options say, to the size that images are drawn at."""
        options = self.options
        if options.max_side is None and options.square is None and self.max_detail is None:
            return grays
        fitted: list[Image] = []
        for gray in grays:
            rows, columns, *size = fit(tuple(gray.shape), options.max_side, options.square)
            _, _, height, width = fit((size[0], size[1]), self.max_detail, None)
            fitted.append(self.backend.resize(gray[rows, columns], height, width))
        return fitted

    def _enlarge(self, sketches: Images, whole: Images) -> Images:
        """Enlarges sketches to their full size where `detail` made them smaller."""
        options = self.options
        enlarged: list[Image] = []
        for sketch, gray in zip(sketches, whole, strict=True):
            _, _, *size = fit(tuple(gray.shape), options.max_side, options.square)
            if tuple(sketch.shape) != tuple(size):
                sketch = self.backend.enlarge(sketch, *size)
                if options.mode == "binary":  # in place: black below 128, white from there
                    sketch >>= 7
                    sketch *= 255
            enlarged.append(sketch)
        return enlarged

    def _coloured(
        self, sketches: Images, sources: Sequence[Loaded], whole: Images
    ) -> Sequence[Result]:
        """Sketches over the colours of their sources, on the host."""
        given = self.backend.give(sketches, False)
        return [
            self._extras(source, gray, None).coloured(sketch)
            for source, gray, sketch in zip(sources, whole, given, strict=True)
        ]

    def _encode_with_extras(
        self, sketches: Images, sources: Sequence[Loaded], whole: Images, encoding: Encoding
    ) -> Sequence[Result]:
        """Files, with what is kept of the sources; the host writes alpha and colours."""
        extras = [
            self._extras(source, gray, encoding)
            for source, gray in zip(sources, whole, strict=True)
        ]
        of_host = [place for place, extra in enumerate(extras) if extra.of_host]
        others = [place for place, extra in enumerate(extras) if not extra.of_host]
        encoded = self.backend.encode([sketches[p] for p in others], encoding, self.threads)
        files: dict[int, bytes | EncodeError] = dict(zip(others, encoded, strict=True))
        grays = self.backend.give([sketches[p] for p in of_host], False)
        for place, gray in zip(of_host, grays, strict=True):
            try:
                files[place] = extras[place].encode(gray, encoding)
            except EncodeError as error:
                files[place] = bare(error)
        return [
            extra.attach(files[place], encoding, sketches[place].shape)
            for place, extra in enumerate(extras)
        ]

    def _extras(self, source: Loaded, gray: Image, encoding: Encoding | None) -> Extras:
        """What is kept of an image besides its luma, cut and resized like that."""
        from sketchify_rt.codec import extras

        found = extras.Extras()
        if isinstance(source, inputs.File):
            found = extras.read(source, encoding, self.colours)
        elif isinstance(source, inputs.Picture) and source.extras is not None:
            found = source.extras.wanted(encoding, self.colours)
        elif (
            encoding and encoding.alpha == "keep" and (alpha := inputs.alpha_of(source)) is not None
        ):
            found = extras.Extras(alpha=self.backend.give(self.backend.place([alpha]), False)[0])
        if self.colours and found.colours is None:  # of a picture that has nothing but luma
            luma = self.backend.give([gray], False)[0]
            found = replace(found, colours=to_rgb(luma))
        return found.fitted(tuple(gray.shape), self.options.max_side, self.options.square)

    def _failed(
        self, batch: list[Loaded], error: Exception, full: bool, tile: int
    ) -> list[Exception] | None:
        """Returns the errors of a batch that failed; None if another try may succeed.

        Args:
            batch: The images, or their errors.
            error: What it met.
            full: Whether the device's memory was full.
            tile: Longest side of the tiles.
        """
        if isinstance(error, BackendUnavailable):  # whatever the images
            return [copy(bare(error)) for _ in batch]  # who raises one adds its frames to it
        if len(batch) > 1:
            if full:
                self.limits.batch_failed(sum(inputs.pixels(found) for found in batch))
            return None
        if not full:
            return [error]
        painter = self.painter if self.options.mode == "sketch" else None
        if (
            painter
            and not painter.runtime.fixed
            and self.limits.tile_failed(tile, painter.min_tile)
        ):
            return None
        (image,) = batch
        name = image.name if isinstance(image, (inputs.File, inputs.Picture)) else "<image>"
        device = self.options.device
        where = self.backend.name if device == "auto" else device
        return [
            DeviceMemoryError(
                f"{name}: does not fit into the memory of {where} ({error}). Give a smaller tile, "
                "a max_side, or free memory that other programs use"
            )
        ]
