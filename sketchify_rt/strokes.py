"""What the U-Net reads of an image: where strokes are, and how dark they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sketchify_rt import hints
from sketchify_rt.backend import Backend
from sketchify_rt.image import Gray
from sketchify_rt.options import PENCILS, Binary, Hint, Painted
from sketchify_rt.painter import Image, Images

# Of black and white pages, whose tones tell nothing of how dark their strokes should be.
PAGE_PENCIL = PENCILS["4B"]


class Wish(NamedTuple):
    """What an image is to have, see `Options`."""

    binary: Binary
    hint: Hint


class Strokes(NamedTuple):
    """Images of the backend, in order.

    Attributes:
        binaries: uint8 (H, W), 0 for ink and 255 for paper.
        planes: Hints, uint8 (ceil(H / 8), ceil(W / 8)); None for a model that takes none.
    """

    binaries: Images
    planes: Images | None


def read(
    backend: Backend,
    grays: Images,
    whole: Images,
    wishes: Sequence[Wish],
    square: int | None,
    hinted: bool,
    threads: int,
) -> Strokes:
    """Reads the strokes of whole images.

    Args:
        backend: Where the images are.
        grays: Luma, uint8 (H, W) each.
        whole: The same images, not resized, which makes tones out of black and white.
        wishes: Of each image.
        square: See `Options`.
        hinted: Whether the model takes a hint.
        threads: Of the processor.
    """
    pages = [
        _page(backend, gray, each, wish.binary, hinted)
        for gray, each, wish in zip(grays, whole, wishes, strict=True)
    ]
    others = [gray for gray, page in zip(grays, pages, strict=True) if page is None]
    made = iter(backend.binarize(others, threads) if others else ())
    binaries = [next(made) if page is None else page for page in pages]
    if not hinted:
        return Strokes(binaries, None)
    known = [
        _known(wish, page is not None, tuple(gray.shape), square)
        for gray, wish, page in zip(grays, wishes, pages, strict=True)
    ]
    planes = backend.place([plane for plane, _ in known])
    rest = [place for place, (_, whole) in enumerate(known) if not whole]
    own: Images = ()
    if rest:
        own = backend.hint(
            [grays[place] for place in rest], [binaries[place] for place in rest], threads
        )
    for place, ours in zip(rest, own, strict=True):
        planes[place] = planes[place] + ours * (planes[place] == 0)
    return Strokes(binaries, planes)


def _page(
    backend: Backend, gray: Image, whole: Image, binary: Binary, hinted: bool
) -> Image | None:
    """The binary of an image that is black and white already; None for another."""
    if binary == "threshold" or (binary == "auto" and not hinted):
        return None
    return backend.page(gray, whole, binary == "page")


def _known(wish: Wish, page: bool, shape: tuple[int, int], square: int | None) -> tuple[Gray, bool]:
    """The hint as far as it does not hang on tones, which a page has none of; whether that is all.

    Args:
        wish: Of the image.
        page: Whether it is its own binary.
        shape: (H, W) of the image.
        square: See `Options`.
    """
    plane = hints.plane("none" if wish.hint == "auto" else wish.hint, shape, square)
    if wish.hint != "auto" and (not isinstance(wish.hint, Painted) or plane.all()):
        return plane, True
    if page:
        return np.where(plane, plane, hints.plane(PAGE_PENCIL, shape, None)), True
    return plane, False
