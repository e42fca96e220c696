"""What the U-Net reads of an image: where strokes are, and how dark they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sketchify_rt import hints
from sketchify_rt.backend import Backend
from sketchify_rt.options import Binary, Hint, Options, Painted
from sketchify_rt.painter import Image, Images


class Wish(NamedTuple):
    """What one image is to have, see `Options`."""

    binary: Binary
    hint: Hint
    square: int | None

    @classmethod
    def of(cls, source: Any, options: Options, takes_hint: bool) -> Wish:
        """Returns the image's own wish, or else that of all images."""
        binary = getattr(source, "binary", None) or options.binary
        if binary == "auto" and not takes_hint:
            binary = "threshold"
        hint = getattr(source, "hint", None)
        return cls(binary, options.hint if hint is None else hint, options.square)


def find_pages(
    backend: Backend, grays: Images, whole: Images, wishes: Sequence[Wish]
) -> list[Image | None]:
    """Finds images that are black and white already.

    Args:
        backend: Where the images are.
        grays: Luma, uint8 (H, W) each.
        whole: The same images, not resized, which makes tones out of black and white.
        wishes: Of each image.

    Returns:
        For each such image its binary, uint8 (H, W), 0 or 255; None for the others.
    """
    return [
        None if wish.binary == "threshold" else backend.page(gray, each, wish.binary == "page")
        for gray, each, wish in zip(grays, whole, wishes, strict=True)
    ]


def find_binaries(
    backend: Backend, grays: Images, pages: Sequence[Image | None], threads: int
) -> list[Image]:
    """Returns the binary of each image: the page that it is, or else its adaptive threshold."""
    rest = [gray for gray, page in zip(grays, pages, strict=True) if page is None]
    made = iter(backend.binarize(rest, threads) if rest else ())
    return [next(made) if page is None else page for page in pages]


def find_hints(
    backend: Backend,
    grays: Images,
    binaries: Images,
    pages: Sequence[Image | None],
    wishes: Sequence[Wish],
    threads: int,
) -> list[Image]:
    """Returns how dark strokes are: as was told of each image, or else as its tones are.

    Args:
        backend: Where the images are.
        grays: Luma, uint8 (H, W) each.
        binaries: Of each image.
        pages: See `find_pages`. The tones of a page tell nothing.
        wishes: Of each image.
        threads: Of the processor.

    Returns:
        uint8 (ceil(H / 8), ceil(W / 8)) each, see `hints.plane`.
    """
    told = [
        hints.told(wish.hint, page is not None, tuple(gray.shape), wish.square)
        for gray, page, wish in zip(grays, pages, wishes, strict=True)
    ]
    placed = iter(backend.place([plane for plane in told if plane is not None]))
    planes: list[Any] = [None if plane is None else next(placed) for plane in told]
    rest = [
        place
        for place, (wish, plane) in enumerate(zip(wishes, told, strict=True))
        if plane is None or (isinstance(wish.hint, Painted) and not plane.all())
    ]
    if rest:
        own = backend.hint([grays[at] for at in rest], [binaries[at] for at in rest], threads)
        for at, ours in zip(rest, own, strict=True):
            planes[at] = ours if planes[at] is None else planes[at] + ours * (planes[at] == 0)
    return planes
