"""Tells pages that are black and white already, such as scanned manga, from pictures with tones."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from sketchify_rt.image import Gray

# Gray pixels at an edge come from antialiasing, from JPEG, or from a reduced screentone. Those of a
# painting lie in areas. Measured on pictures of about 1000 pixels, saved as JPEG: taken are 221 of
# 253 pen drawings and wood engravings, 0 of 403 paintings, anime figures and comics in colour, and
# 34 of 758 pages of picture books: 29 pen drawings, and 5 of lines on one light shade.
_DARK, _LIGHT = 64, 192  # the dark tone is below the first, the light tone at or above the second
NEAR = 32  # levels around the two tones
_LEAST_NEAR = 0.6  # share of the pixels near one of the two tones
_EACH = 0.004  # share near each of them
FLAT = 24  # levels: largest range of 3 x 3 pixels that are an area
MOST_GRAY = 0.001  # share of the pixels that are gray and within an area


def level(gray: Gray) -> int | None:
    """The level that divides black from white on a page that has only these.

    Args:
        gray: uint8 (H, W).

    Returns:
        A level of 0..255: pixels below it are black, the others white. None for a picture with
        tones, and for one that is all dark or all light.
    """
    found = two_tones(histogram(gray))
    if found is None:
        return None
    dark, light = found
    window = np.ones((3, 3), np.uint8)
    ranges = cv2.subtract(cv2.dilate(gray, window), cv2.erode(gray, window))
    areas = cv2.inRange(ranges, 0, FLAT - 1)
    between = cv2.inRange(gray, dark + NEAR + 1, light - NEAR - 1)
    if cv2.countNonZero(cv2.bitwise_and(areas, between)) > MOST_GRAY * gray.size:
        return None
    return (dark + light + 1) // 2


def histogram(gray: Gray) -> NDArray[np.int64]:
    """The number of pixels of each level, int64 (256,)."""
    counts = cv2.calcHist([gray], [0], None, [256], [0, 256])
    return counts.ravel().astype(np.int64)


def two_tones(counts: NDArray[np.int64]) -> tuple[int, int] | None:
    """The dark and the light tone that most pixels are near to.

    Args:
        counts: As `histogram` gives them.

    Returns:
        The levels of the two tones; None if too few pixels are near to them.
    """
    levels = np.flatnonzero(counts)
    if len(levels) == 2 and levels[0] < _DARK and levels[1] >= _LIGHT:  # 1 bit, however little ink
        return int(levels[0]), int(levels[1])
    smooth = np.convolve(counts, np.ones(9, np.int64), "same")
    dark = int(np.argmax(smooth[:_DARK]))
    light = _LIGHT + int(np.argmax(smooth[_LIGHT:]))
    near_dark = counts[max(0, dark - NEAR) : dark + NEAR + 1].sum()
    near_light = counts[light - NEAR : light + NEAR + 1].sum()
    total = counts.sum()
    if near_dark + near_light < _LEAST_NEAR * total or min(near_dark, near_light) < _EACH * total:
        return None
    return dark, light


def otsu(counts: NDArray[np.int64]) -> int:
    """The level that divides any picture in two, by Otsu 1979 (doi:10.1109/TSMC.1979.4310076).

    Args:
        counts: As `histogram` gives them.

    Returns:
        A level of 1..255: pixels below it are black, the others white.
    """
    below, sums = counts.cumsum()[:-1], (counts * np.arange(256)).cumsum()
    above = counts.sum() - below
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    return 1 + int(np.nanargmax(np.nan_to_num(below * above * apart)))


def page(gray: Gray, whole: Gray, always: bool) -> Gray | None:
    """Returns an image as its own binary, uint8 (H, W), 0 or 255; None for a picture with tones.

    Args:
        gray: uint8 (H, W).
        whole: The image before it was resized, which tells the level.
        always: Divide a picture with tones too, by Otsu's level.
    """
    found = level(whole)
    if found is None and always:
        found = otsu(histogram(whole))
    return None if found is None else binarize(gray, found)


def binarize(gray: Gray, level: int) -> Gray:
    """The page as it is, by one level: uint8 (H, W), 0 or 255."""
    return np.asarray(cv2.threshold(gray, level - 1, 255, cv2.THRESH_BINARY)[1], np.uint8)
