"""The way of a batch of images, top to bottom: decode, fit, binarize, hint, paint, encode."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sketchify_rt import image, inputs, strokes
from sketchify_rt.backend import Backend
from sketchify_rt.errors import BackendUnavailable, DeviceMemoryError, SketchifyError, bare
from sketchify_rt.limits import Limits
from sketchify_rt.options import Encoding, Options
from sketchify_rt.painter import Image, Images, Painter

if TYPE_CHECKING:
    from sketchify_rt.codec.extras import Extras


@dataclass(frozen=True)
class Pipeline:
    """A model opened for use. It never changes: a call takes one and ends with it.

    Attributes:
        backend: The device.
        options: What to make.
        painter: The U-Net; None for the filters alone.
        threads: Of the processor, for one call.
        limits: What fits into the device's memory, shared by all calls.
    """

    backend: Backend
    options: Options
    painter: Painter | None
    threads: int
    limits: Limits

    def run(self, loaded: list[Any], encoding: Encoding | None, beside: bool) -> list[Any]:
        """Makes sketches of images, as many together as there is memory for.

        Args:
            loaded: What `inputs.load` gave, or an error, for each image.
            encoding: Of the files; None for images.
            beside: Whether the work is queued beside that of the caller.

        Returns:
            For each image a file, or a sketch, or the error that it met.
        """
        results: list[Any] = []
        with self.backend.lane(beside):
            for part in inputs.within(loaded, self.limits.pixels):
                results += self._attempt(loaded[part], encoding)
        return results

    def _once(self, loaded: list[Any], encoding: Encoding | None) -> list[Any]:
        """The story: all images of a batch, each step for all of them."""
        results = self._decode(loaded)
        good = [place for place, found in enumerate(results) if not isinstance(found, Exception)]
        if not good:
            return results
        sources = [loaded[place] for place in good]
        whole = [results[place] for place in good]
        sketches = self.draw([self._fit(gray) for gray in whole], sources, whole)
        if encoding is not None:
            finished = self._encode(sketches, sources, whole, encoding)
        else:
            finished = self.backend.give(sketches, inputs.on_device(loaded[0]))
        for place, result in zip(good, finished, strict=True):
            results[place] = result
        return results

    def _decode(self, loaded: list[Any]) -> list[Any]:
        """Luma on the device, and an error in the place of each image that has none."""
        results = list(loaded)
        files = [place for place, found in enumerate(loaded) if isinstance(found, inputs.File)]
        others = [
            place
            for place, found in enumerate(loaded)
            if not isinstance(found, (inputs.File, Exception))
        ]
        decoded = self.backend.decode(
            [loaded[place] for place in files], self.options.max_pixels, self.threads
        )
        placed = self.backend.place([_pixels(loaded[place]) for place in others])
        for place, result in zip([*files, *others], [*decoded, *placed], strict=True):
            results[place] = result
        return results

    def _fit(self, gray: Image) -> Image:
        """Cuts and resizes as the options say."""
        rows, columns, height, width = image.fit(
            tuple(gray.shape), self.options.max_side, self.options.square
        )
        return self.backend.resize(gray[rows, columns], height, width)

    def draw(self, grays: Images, sources: Sequence[Any], whole: Images) -> Images:
        """Makes sketches, or what the filters alone make.

        Args:
            grays: uint8 (H, W) each, on the device.
            sources: Where each comes from, which may tell a hint and a binary of its own.
            whole: The same images, not resized.
        """
        options, backend = self.options, self.backend
        if options.mode == "dodge":
            return backend.dodge(grays, options.strength, self.threads)
        if self.painter is None:
            return backend.binarize(grays, self.threads)
        # Of whole images, so that tiles do not change them.
        binaries, planes = strokes.read(
            backend,
            grays,
            whole,
            [self._wish(source) for source in sources],
            options.square,
            self.painter.manifest.takes_hint,
            self.threads,
        )
        return self.painter.paint(
            binaries, planes, options.strength, self.limits.tile, self.threads
        )

    def _wish(self, source: Any) -> strokes.Wish:
        """The image's own, or else that of all images."""
        binary, hint = getattr(source, "binary", None), getattr(source, "hint", None)
        return strokes.Wish(
            self.options.binary if binary is None else binary,
            self.options.hint if hint is None else hint,
        )

    def _encode(
        self,
        sketches: Images,
        sources: Sequence[Any],
        whole: Images,
        encoding: Encoding,
    ) -> Sequence[Any]:
        """Files, with what the encoding keeps of the sources; the host writes those with alpha."""
        if encoding.plain:
            return self.backend.encode(sketches, encoding, self.threads)
        extras = [
            self._extras(source, tuple(gray.shape), encoding)
            for source, gray in zip(sources, whole, strict=True)
        ]
        clear = [place for place, extra in enumerate(extras) if extra.alpha is not None]
        opaque = [place for place, extra in enumerate(extras) if extra.alpha is None]
        encoded = self.backend.encode([sketches[p] for p in opaque], encoding, self.threads)
        files: dict[int, Any] = dict(zip(opaque, encoded, strict=True))
        for place, gray in zip(
            clear, self.backend.give([sketches[p] for p in clear], False), strict=True
        ):
            encode = functools.partial(extras[place].encode, encoding=encoding)
            files[place] = or_error(encode, gray)
        return [
            extra.attach(files[place], encoding, sketches[place].shape)
            for place, extra in enumerate(extras)
        ]

    def _extras(self, source: Any, shape: tuple[int, int], encoding: Encoding) -> Extras:
        """What is kept of an image besides its luma, cut and resized like that."""
        from sketchify_rt.codec import extras

        found = extras.Extras()
        if isinstance(source, inputs.File):
            found = extras.read(source, encoding)
        elif isinstance(source, inputs.Picture) and source.extras is not None:
            found = source.extras.wanted(encoding)
        elif encoding.alpha == "keep" and (alpha := inputs.alpha_of(source)) is not None:
            found = extras.Extras(alpha=self.backend.give(self.backend.place([alpha]), False)[0])
        return found.fitted(shape, self.options.max_side, self.options.square)

    def _attempt(self, loaded: list[Any], encoding: Encoding | None) -> list[Any]:
        """Tries all at once; where that fails, by halves: an error costs only its own image.

        One image that does not fit is tried with smaller tiles.
        """
        tile = self.limits.tile
        try:
            results = self._once(loaded, encoding)
        except BackendUnavailable as error:  # whatever the images
            return [copy(bare(error)) for _ in loaded]  # who raises one adds its frames to it
        except Exception as error:
            full = self.backend.exhausted(error)
            if len(loaded) == 1 and not full:
                return [error]
            last = len(loaded) == 1 and not self._smaller_tiles(tile)
            too_large = self._too_large(loaded[0], error) if last else None
        else:
            self.limits.batch_succeeded()
            return results
        # Only here, where the error is gone, and with it the images that its frames held.
        if full:
            self.backend.release()
        if too_large:
            return [too_large]
        if len(loaded) == 1:
            return self._attempt(loaded, encoding)
        if full:
            self.limits.batch_failed(sum(inputs.pixels(found) for found in loaded))
        half = len(loaded) // 2
        return self._attempt(loaded[:half], encoding) + self._attempt(loaded[half:], encoding)

    def _smaller_tiles(self, tile: int) -> bool:
        fixed = self.painter is None or self.painter.runtime.fixed
        return not fixed and self.limits.tile_failed(tile)

    def _too_large(self, loaded: Any, error: Exception) -> DeviceMemoryError:
        name = loaded.name if isinstance(loaded, (inputs.File, inputs.Picture)) else "<image>"
        device = self.options.device
        where = self.backend.name if device == "auto" else device
        return DeviceMemoryError(
            f"{name}: does not fit into the memory of {where} ({error}); give a smaller tile, "
            "a max_side, or less to others that share it"
        )


def _pixels(loaded: Any) -> Any:
    return loaded.luma if isinstance(loaded, inputs.Picture) else loaded


def or_error(step: Callable[[Any], Any], value: Any) -> Any:
    """Returns what the step makes of the value, or the error that it raises."""
    try:
        return step(value)
    except SketchifyError as error:
        return bare(error)
    except Exception as error:
        return error
