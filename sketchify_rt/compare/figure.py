"""The row of one picture in the sheet: thresholds, dodge filter, sketch, and the difference.

It follows the blog post of 2017, which showed what a global threshold loses and an adaptive one
keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sketchify_rt.image import Gray
from sketchify_rt.metrics import Metrics, measure

# Two colours that colour-blind readers can tell apart (Okabe and Ito 2008).
TOO_DARK, TOO_PALE = (213, 94, 0), (0, 114, 178)

# A page of two levels has less than 0.1 % between these after JPEG at quality 75; the drawn samples
# and painted pages have 40 to 99 %, line art with smooth edges about 15 %.
_BLACK, _WHITE = 32, 224
_IN_TONES = 0.01

Picture = NDArray[np.uint8]
"""(H, W) gray or (H, W, 3) RGB."""

Box = tuple[int, int]
"""Maximum height and width of a panel, in pixels."""


@dataclass(frozen=True, eq=False)
class Panel:
    """A picture of the row.

    Attributes:
        note: A few words on how it was made.
        picture: The picture; the panels of a row have the same height and width.
    """

    note: str
    picture: Picture


@dataclass(frozen=True, eq=False)
class Figure:
    """The row of one picture.

    A black and white picture has no difference and no metrics: its dodge filter is the picture
    itself, and there are no tones to learn.

    Attributes:
        name: Name of the picture.
        height: In pixels, before the panels were reduced.
        width: In pixels, before the panels were reduced.
        panels: By title, from left to right: "original", "fixed threshold", "Otsu's threshold",
            "adaptive threshold", "dodge filter", "sketch", and maybe "difference", of the sketch
            and the dodge filter.
        metrics: Of the sketch, compared with the dodge filter, both of full size; or None.
    """

    name: str
    height: int
    width: int
    panels: dict[str, Panel]
    metrics: Metrics | None


def draw(
    name: str,
    gray: Gray,
    sketchify: Callable[..., Gray],
    box: Box,
    threshold: int = 127,
    filters: Callable[..., Gray] | None = None,
) -> Figure:
    """Makes the row of a picture.

    At most four arrays of full size exist at a time, besides what `sketchify` needs.

    Args:
        name: Name of the picture.
        gray: uint8 (H, W).
        sketchify: Makes the sketch, of the same shape; takes `mode` and `strength` as a
            `Sketchifier` does. What it raises is raised.
        box: Maximum size of each panel.
        threshold: The fixed threshold, 0..254. Brighter pixels become white.
        filters: The same for the filters, at the same detail without a look; None for `sketchify`.

    Returns:
        The row.
    """
    filters = filters or sketchify
    sketch, dodge = sketchify(gray), filters(gray, mode="dodge", strength=1.0)
    binary = filters(gray, mode="binary")
    otsu, _ = cv2.threshold(gray, 0, 255, cv2.THRESH_OTSU)
    panels = {
        "original": Panel("as luma", reduced(gray, box)),
        "fixed threshold": _global(gray, threshold, box),
        "Otsu's threshold": _global(gray, otsu, box),
        "adaptive threshold": Panel("input of the U-Net", reduced(binary, box)),
        "dodge filter": Panel("target of the U-Net", reduced(dodge, box)),
        "sketch": Panel("output of the U-Net", reduced(sketch, box)),
    }
    metrics = None
    if in_tones(gray):
        panels["difference"] = Panel("sketch and dodge filter", difference(sketch, dodge, box))
        metrics = measure(sketch, dodge)
    height, width = gray.shape
    return Figure(name, height, width, panels, metrics)


def in_tones(gray: Gray) -> bool:
    """Tells whether a picture has tones besides black, white and artifacts of JPEG.

    Args:
        gray: uint8 (H, W).

    Returns:
        Whether at least 1 % of its pixels are neither black nor white.
    """
    between = cv2.inRange(gray, np.array([_BLACK]), np.array([_WHITE - 1]))
    return cv2.countNonZero(between) >= _IN_TONES * gray.size


def difference(sketch: Gray, target: Gray, box: Box | None = None) -> Picture:
    """Draws how two images differ.

    Args:
        sketch: uint8 (H, W).
        target: uint8 (H, W).
        box: Maximum size of the result; None for the size of the images.

    Returns:
        uint8 (H, W, 3). White where the images are equal, orange where the sketch is too dark, blue
        where it is too pale. Differences of 128 levels and more have the full colour.
    """
    absorbed: NDArray[np.floating] | float = 0.0
    for more, less, colour in ((target, sketch, TOO_DARK), (sketch, target, TOO_PALE)):
        amount = np.asarray(cv2.subtract(more, less), np.uint8)
        cv2.add(amount, amount, dst=amount)
        # The colour is linear in the amount: reduced before, it needs less memory.
        amount = amount if box is None else reduced(amount, box)
        absorbed = absorbed + amount[..., None] / np.float32(255) * (255 - np.array(colour))
    return np.asarray(np.rint(255 - absorbed), np.uint8)


def reduced(picture: Picture, box: Box) -> Picture:
    """Reduces a picture to fit into a box. Keeps its aspect ratio; never enlarges it.

    Args:
        picture: uint8 (H, W) or (H, W, 3).
        box: Maximum height and width.

    Returns:
        The reduced picture, or the same if it fits.
    """
    height, width = picture.shape[:2]
    scale = min(1.0, box[0] / height, box[1] / width)
    if scale == 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _global(gray: Gray, threshold: float, box: Box) -> Panel:
    _, page = cv2.threshold(gray, threshold, 255, cv2.THRESH_BINARY)
    return Panel(f"white above {threshold:.0f}", reduced(np.asarray(page, np.uint8), box))
