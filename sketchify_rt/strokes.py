"""What the U-Net reads of an image: where strokes are, and how dark they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sketchify_rt import hints
from sketchify_rt.backend import Backend
from sketchify_rt.image import Gray
from sketchify_rt.options import Binary, Hint, Options, Painted
from sketchify_rt.painter import Image, Images


class Wish(NamedTuple):
    """What one image is to have, see `Options`."""

    binary: Binary
    hint: Hint
    square: int | None

    @classmethod
    def of(cls, source: object, options: Options, takes_hint: bool) -> Wish:
        """Returns the image's own wish, or else that of all images."""
        binary = getattr(source, "binary", None) or options.binary
        if binary == "auto" and not takes_hint:
            binary = "threshold"
        hint = getattr(source, "hint", None)
        return cls(binary, options.hint if hint is None else hint, options.square)


def find_binaries(
    backend: Backend, grays: Images, whole: Images, wishes: Sequence[Wish], threads: int
) -> tuple[list[Image], list[bool]]:
    """Returns where strokes are: the image itself if it is black and white, or its threshold.

    Args:
        backend: Where the images are.
        grays: Luma, uint8 (H, W) each.
        whole: The same images, not resized, which makes tones out of black and white.
        wishes: Of each image.
        threads: Of the processor.

    Returns:
        The binary of each image, uint8 (H, W), 0 or 255; and whether it is the image itself.
    """
    binaries: list[Image] = []
    for gray, each, wish in zip(grays, whole, wishes, strict=True):
        always = wish.binary == "page"
        binaries.append(None if wish.binary == "threshold" else backend.page(gray, each, always))
    pages = [binary is not None for binary in binaries]
    rest = [at for at, page in enumerate(pages) if not page]
    if rest:
        made = backend.binarize([grays[at] for at in rest], threads)
        for at, binary in zip(rest, made, strict=True):
            binaries[at] = binary
    return binaries, pages


def find_hints(
    backend: Backend,
    grays: Images,
    binaries: Images,
    pages: Sequence[bool],
    wishes: Sequence[Wish],
    threads: int,
) -> list[Image]:
    """Returns how dark strokes are: as was told of each image, or else as its tones are.

    Args:
        backend: Where the images are.
        grays: Luma, uint8 (H, W) each.
        binaries: Of each image.
        pages: Which images are their own binary: their tones tell nothing.
        wishes: Of each image.
        threads: Of the processor.

    Returns:
        uint8 (ceil(H / 8), ceil(W / 8)) each, see `hints.plane`.
    """
    told: dict[int, Gray] = {}
    rest: list[int] = []
    for at, (gray, page, wish) in enumerate(zip(grays, pages, wishes, strict=True)):
        plane = hints.told(wish.hint, page, tuple(gray.shape), wish.square)
        if plane is not None:
            told[at] = plane
        if plane is None or (isinstance(wish.hint, Painted) and not plane.all()):
            rest.append(at)
    planes: dict[int, Image] = {}
    if told:
        planes = dict(zip(told, backend.place([*told.values()]), strict=True))
    if rest:
        own = backend.hint([grays[at] for at in rest], [binaries[at] for at in rest], threads)
        for at, ours in zip(rest, own, strict=True):
            planes[at] = planes[at] + ours * (planes[at] == 0) if at in planes else ours
    return [planes[at] for at in range(len(grays))]
