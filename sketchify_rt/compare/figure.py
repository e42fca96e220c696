"""One picture's row of the figure: thresholds, what the U-Net learns, its sketch, how they differ.

After the blog post of 2017, which showed what global thresholds lose and an adaptive one keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sketchify_rt.image import Gray
from sketchify_rt.kernels import native
from sketchify_rt.metrics import Metrics, measure

# Two colours that colour-blind readers tell apart (Okabe and Ito 2008).
TOO_DARK, TOO_PALE = (213, 94, 0), (0, 114, 178)

# A page of two levels has less than 0.1 % between these after JPEG at quality 75; the drawn samples
# and painted pages have 40 to 99 %, line art with smooth edges about 15 %.
_BLACK, _WHITE = 32, 224
_IN_TONES = 0.01

Picture = NDArray[np.uint8]
"""(H, W) gray or (H, W, 3) RGB."""

Box = tuple[int, int]
"""Height and width that a picture is reduced to fit into, in pixels."""


@dataclass(frozen=True, eq=False)
class Panel:
    """A picture of the row. title: what it is; note: a few words on how it was made."""

    title: str
    note: str
    picture: Picture


@dataclass(frozen=True, eq=False)
class Figure:
    """The row of one picture.

    name: of the picture; height, width: in pixels, before the panels were reduced. original and
    sketch are as high and wide as the panels between them: two global thresholds, the adaptive
    one, and the dodge filter, which the U-Net learns. difference, sketch against dodge, and
    metrics, both of full size, are None of a picture that is black and white: its dodge filter is
    the picture itself, without any tones to learn.
    """

    name: str
    height: int
    width: int
    original: Panel
    between: tuple[Panel, ...]
    sketch: Panel
    difference: Panel | None
    metrics: Metrics | None

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All of them, from left to right."""
        last = (self.difference,) if self.difference else ()
        return (self.original, *self.between, self.sketch, *last)


def draw(
    name: str, gray: Gray, sketchify: Callable[[Gray], Gray], box: Box, threshold: int = 127
) -> Figure:
    """The row of a picture.

    gray: uint8 (H, W). sketchify: its sketch, of the same shape. box: of each panel. threshold:
    0..254, the fixed one; what is brighter is white. Of full size there are at most four arrays at
    a time, besides what `sketchify` takes. Raises what `sketchify` raises.
    """
    fixed, _ = _global(gray, threshold, cv2.THRESH_BINARY, box)
    otsu, level = _global(gray, 0, cv2.THRESH_BINARY | cv2.THRESH_OTSU, box)
    between = (
        Panel("fixed threshold", f"white above {threshold}", fixed),
        Panel("Otsu's threshold", f"white above {level:.0f}", otsu),
        Panel("adaptive threshold", "what the U-Net sees", reduced(native.binarize(gray), box)),
    )
    sketch, dodge = sketchify(gray), native.dodge(gray)
    compared = in_tones(gray)
    return Figure(
        name=name,
        height=gray.shape[0],
        width=gray.shape[1],
        original=Panel("original", "as luma", reduced(gray, box)),
        between=(*between, Panel("dodge filter", "what the U-Net learns", reduced(dodge, box))),
        sketch=Panel("sketch", "what it paints", reduced(sketch, box)),
        difference=Panel("difference", "sketch against dodge", difference(sketch, dodge, box))
        if compared
        else None,
        metrics=measure(sketch, dodge) if compared else None,
    )


def in_tones(gray: Gray) -> bool:
    """Whether an image, uint8 (H, W), has more than black, white, and the traces of JPEG."""
    between = cv2.inRange(gray, np.array([_BLACK]), np.array([_WHITE - 1]))
    return cv2.countNonZero(between) >= _IN_TONES * gray.size


def difference(sketch: Gray, target: Gray, box: Box | None = None) -> Picture:
    """White where two uint8 (H, W) images are equal, orange where the sketch is too dark, blue
    where it is too pale, full colour from half the range on; uint8 (H, W, 3), reduced into `box`.
    """
    absorbed: Any = 0.0
    for more, less, colour in ((target, sketch, TOO_DARK), (sketch, target, TOO_PALE)):
        apart = np.asarray(cv2.subtract(more, less), np.uint8)
        cv2.add(apart, apart, dst=apart)
        # Colour is linear in this: after the reduction it takes less memory, and is the same.
        amount = apart if box is None else reduced(apart, box)
        absorbed = absorbed + amount[..., None] / np.float32(255) * (255 - np.array(colour))
    return np.asarray(np.rint(255 - absorbed), np.uint8)


def reduced(picture: Picture, box: Box) -> Picture:
    """A picture no higher and no wider than the box, its aspect kept; never enlarged."""
    height, width = picture.shape[:2]
    scale = min(1.0, box[0] / height, box[1] / width)
    if scale == 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _global(gray: Gray, threshold: int, kind: int, box: Box) -> tuple[Picture, float]:
    level, page = cv2.threshold(gray, threshold, 255, kind)
    return reduced(np.asarray(page, np.uint8), box), level
