"""Look color: the picture's own colours, as a wash under the pencil.

    colours ─▶ reduce ─▶ median ─▶ vivid and light ─▶ enlarge ─┐
                                             sketch ───────────┴─▶ multiply

The median takes out what is thin, such as ink lines, which the pencil draws again.
"""

from __future__ import annotations

import cv2
import numpy as np

from sketchify_rt.image import Gray, Rgb, bands, fit

# Chosen by eye from ten pictures of five kinds.
_SIDE = 500  # pixels of the longer side of a wash: a third of `AUTO_DETAIL`, which draws lines
_MEDIAN = 5  # pixels of a wash; OpenCV takes 1 ms for it, and 26 for 7 in a wash of 750
_VIVID = 1.5  # factor of what differs between the channels
_LIGHT = 0.65  # factor of what is missing to white


def wash(colours: Rgb, height: int, width: int) -> Rgb:
    """Makes the wash of a picture: its colours, coarse, vivid and light.

    Args:
        colours: uint8 (H, W, 3), any strides.
        height: Rows of the sketch, at least 1.
        width: Its columns, at least 1.

    Returns:
        uint8 (h, w, 3), of the shape of the sketch or smaller, at most 500 pixels a side.
    """
    _, _, *size = fit((height, width), _SIDE, None)
    small = cv2.resize(np.ascontiguousarray(colours), size[::-1], interpolation=cv2.INTER_AREA)
    mixed = _VIVID * np.eye(3) + (1 - _VIVID) / 3
    light = np.hstack((_LIGHT * mixed, np.full((3, 1), 255 * (1 - _LIGHT))))
    return np.asarray(cv2.transform(cv2.medianBlur(small, _MEDIAN), light), np.uint8)


def lay(sketch: Gray, wash: Rgb) -> Rgb:
    """Lays a sketch over a wash.

    Args:
        sketch: uint8 (H, W).
        wash: uint8 (h, w, 3), which is stretched to the sketch.

    Returns:
        uint8 (H, W, 3): wash * sketch / 255, rounded to nearest.
    """
    height, width = sketch.shape
    laid = np.asarray(cv2.resize(wash, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    for band in bands(sketch.shape):
        ink = cv2.merge([sketch[band]] * 3)
        laid[band] = cv2.multiply(laid[band], ink, scale=1 / 255)
    return laid
