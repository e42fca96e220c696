"""The pixel contract: inside sketchify_rt an image is luma, `np.uint8` (H, W), 0 black, 255 white.

Luma of anything but a JPEG is `COLOR_RGB2GRAY` of OpenCV (BT.601 weights in integers) after RGB has
been composited on white. A JPEG stores luma, and that plane is taken as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sketchify_rt.errors import InputError

Gray = NDArray[np.uint8]
Rgb = NDArray[np.uint8]  # (H, W, 3)

CELL = 8  # pixels: side of a cell of the hint, see `kernels.reference.hint`

# Rows are converted in bands of about this many pixels: temporaries stay in the L2 cache, and a
# 100-megapixel image needs no second copy of itself.
_BAND_PIXELS = 2**16
_RESIZE_PIXELS = 2**20  # of a band to resize: Pillow computes its weights for each anew


def bands(shape: tuple[int, ...], pixels: int = _BAND_PIXELS) -> Iterator[slice]:
    """Yields row slices of at least one row that cover an image (H, W, ...) from the top."""
    height, width = shape[:2]
    rows = max(1, pixels // width)
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


def to_luma(array: NDArray[Any]) -> Gray:
    """Returns the luma of pixels.

    Args:
        array: uint8, any strides: (H, W) or (H, W, 1) gray, (H, W, 3) RGB, or (H, W, 4) RGBA with
            straight alpha, which is composited on white.

    Returns:
        uint8 (H, W), C-contiguous. It shares memory with a contiguous gray `array`.

    Raises:
        InputError: The array has another type or shape, or no pixels.
    """
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise InputError(f"image must be a NumPy array of uint8, 0 black and 255 white, got {kind}")
    channels = array.shape[2] if array.ndim == 3 else 1 if array.ndim == 2 else 0
    if channels not in (1, 3, 4) or array.size == 0:
        raise InputError(
            "image must have shape (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA, with at "
            f"least one pixel, got {array.shape}"
        )
    if channels == 1:
        gray: Gray = array.reshape(array.shape[:2])
        # Not ascontiguousarray, for which a single column is contiguous whatever its stride.
        return gray if gray.strides == (gray.shape[1], 1) else gray.copy()

    import cv2

    luma = np.empty(array.shape[:2], np.uint8)
    for rows in bands(luma.shape):
        band = np.ascontiguousarray(array[rows])
        rgb = band if channels == 3 else _on_white(band)
        cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY, dst=luma[rows])
    return luma


def to_rgb(array: NDArray[Any]) -> Rgb:
    """Returns the colours of pixels that `to_luma` takes.

    Args:
        array: uint8, any strides: (H, W) or (H, W, 1) gray, whose channels become equal, (H, W, 3)
            RGB, or (H, W, 4) RGBA, which is composited on white as for luma.

    Returns:
        uint8 (H, W, 3). It may be `array` itself.
    """
    if array.ndim == 2 or array.shape[2] == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    if array.shape[2] == 3:
        return array
    rgb = np.empty((*array.shape[:2], 3), np.uint8)
    for rows in bands(rgb.shape):
        rgb[rows] = _on_white(array[rows])
    return rgb


def _on_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(colour * alpha + 255 * (255 - alpha)) / 255, rounded to nearest."""
    alpha = rgba[..., 3:].astype(np.uint16)
    over = rgba[..., :3] * alpha + (255 * (255 - alpha) + 128)
    return ((over + (over >> 8)) >> 8).astype(np.uint8)  # exact x / 255 for all x up to 65,025


def orient(image: NDArray[np.uint8], exif_orientation: int) -> NDArray[np.uint8]:
    """Returns the image as it is meant to be seen.

    Args:
        image: uint8 (H, W), or (H, W, channels).
        exif_orientation: Tag 274 of EXIF, 1..8. Any other value counts as 1, as viewers do.

    Returns:
        C-contiguous, (H, W) for 1..4 and (W, H) for 5..8; the image itself for 1.
    """
    if exif_orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if exif_orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if exif_orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def fit(
    shape: tuple[int, int], max_side: int | None, square: int | None
) -> tuple[slice, slice, int, int]:
    """Returns what is taken of an image: its rows, its columns, and the height and width to give.

    Args:
        shape: (H, W) of the image.
        max_side: Most pixels of the longer side, which never grows. The aspect is kept, rounded,
            with at least one pixel a side.
        square: Side of the middle square of a landscape, or the top square of a portrait.
    """
    height, width = shape
    if square is not None:
        edge = min(height, width)
        left = (width - edge) // 2
        return slice(edge), slice(left, left + edge), square, square
    longer = max(height, width)
    if max_side is None or longer <= max_side:
        return slice(height), slice(width), height, width
    return (
        slice(height),
        slice(width),
        max(1, round(height * max_side / longer)),
        max(1, round(width * max_side / longer)),
    )


def resize(gray: Gray, height: int, width: int) -> Gray:
    """An image at another size, antialiased; equals `kernels.reference.resize` within 1 level.

    Pillow's bilinear filter, which is that of DALI but for the border: DALI repeats the last pixel,
    Pillow ignores what lies beyond. So the border is added here.

    Args:
        gray: uint8 (H, W), any strides.
        height: Rows of the result, at least 1.
        width: Its columns, at least 1.

    Returns:
        uint8 (height, width), C-contiguous; `gray` itself where it has that size already.
    """
    if gray.shape == (height, width):
        return np.ascontiguousarray(gray)
    # One axis after the other, since the order in which Pillow takes both depends on its version.
    return _resize_axis(_resize_axis(gray, width, 1), height, 0)


def enlarge(gray: Gray, height: int, width: int) -> Gray:
    """A sketch at a larger size, with crisp lines: the bicubic filter of OpenCV, with a = -0.75.

    Lanczos looks the same and takes ten times as long (37 ms rather than 4 for 12 megapixels).
    Sharpening makes lines darker than they were drawn.

    Args:
        gray: uint8 (H, W).
        height: Rows of the result, at least H.
        width: Its columns, at least W.

    Returns:
        uint8 (height, width), rounded and clipped.
    """
    import cv2

    return np.asarray(cv2.resize(gray, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def _resize_axis(gray: Gray, target: int, axis: int) -> Gray:
    """The image with `target` rows (axis 0) or columns (axis 1)."""
    import cv2
    from PIL import Image

    source = gray.shape[axis]
    if source == target:
        return gray
    # The outermost target pixels reach half a target pixel beyond the border.
    margin = math.ceil(source / target / 2) if target < source else 0
    down, right = (margin, 0) if axis == 0 else (0, margin)
    across = gray.shape[1 - axis]
    resized = np.empty((target, across) if axis == 0 else (across, target), np.uint8)
    for band in bands((across, source), _RESIZE_PIXELS):
        here = (slice(None), band) if axis == 0 else (band, slice(None))
        rows, columns = gray[here].shape
        padded = cv2.copyMakeBorder(gray[here], down, down, right, right, cv2.BORDER_REPLICATE)
        size = resized[here].shape[::-1]
        box = (right, down, right + columns, down + rows)
        part = Image.fromarray(padded).resize(size, Image.Resampling.BILINEAR, box)
        resized[here] = np.asarray(part)
    return resized
