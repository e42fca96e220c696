"""What the U-Net reads of an image: where strokes are, and how dark they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sketchify_rt import hints
from sketchify_rt.backend import Backend, Image, Images
from sketchify_rt.options import PENCILS, Options, Painted

# Of black and white pages, whose tones tell nothing of how dark their strokes should be.
PAGE_PENCIL = PENCILS["4B"]


class Strokes(NamedTuple):
    """Images of the backend, in order.

    Attributes:
        binaries: uint8 (H, W), 0 for ink and 255 for paper.
        planes: Hints, uint8 (ceil(H / 8), ceil(W / 8)); None for a model that takes none.
    """

    binaries: Images
    planes: Images | None


def read(backend: Backend, grays: Images, options: Options, hinted: bool, threads: int) -> Strokes:
    """Reads the strokes of whole images.

    Args:
        backend: Where the images are.
        grays: Luma, uint8 (H, W) each.
        options: `binary`, `hint` and `square` matter.
        hinted: Whether the model takes a hint.
        threads: Of the processor.
    """
    pages = _pages(backend, grays, options, hinted)
    others = [gray for gray, page in zip(grays, pages, strict=True) if page is None]
    made = iter(backend.binarize(others, threads) if others else ())
    binaries = [next(made) if page is None else page for page in pages]
    if not hinted:
        return Strokes(binaries, None)

    def own() -> list[Image]:
        return _own_planes(backend, grays, binaries, pages, threads)

    hint = options.hint
    if hint == "auto":
        return Strokes(binaries, own())
    told = [hints.plane(hint, tuple(gray.shape), options.square) for gray in grays]
    planes = backend.upload(told)
    if isinstance(hint, Painted) and not all(plane.all() for plane in told):
        planes = [each + ours * (each == 0) for each, ours in zip(planes, own(), strict=True)]
    return Strokes(binaries, planes)


def _pages(backend: Backend, grays: Images, options: Options, hinted: bool) -> list[Image | None]:
    """The binaries of images that are black and white already; None for the others."""
    if options.binary == "threshold" or (options.binary == "auto" and not hinted):
        return [None] * len(grays)
    return [backend.page(gray, options.binary == "page") for gray in grays]


def _own_planes(
    backend: Backend,
    grays: Images,
    binaries: Images,
    pages: Sequence[Image | None],
    threads: int,
) -> list[Image]:
    """From the tones of each image; one pencil for a page that has no tones."""
    toned = [place for place, page in enumerate(pages) if page is None]
    found = backend.hint(
        [grays[place] for place in toned], [binaries[place] for place in toned], threads
    )
    told = {
        place: hints.plane(PAGE_PENCIL, tuple(grays[place].shape), None)
        for place, page in enumerate(pages)
        if page is not None
    }
    planes = dict(zip(toned, found, strict=True))
    planes.update(zip(told, backend.upload(list(told.values())), strict=True))
    return [planes[place] for place in range(len(pages))]
