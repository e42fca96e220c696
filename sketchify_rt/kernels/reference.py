"""The kernels in NumPy: the definition that every fast version equals byte for byte."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sketchify_rt.image import CELL as CELL
from sketchify_rt.image import Gray

# OpenCV's Gaussian kernels, times 256. OpenCV sums the first in float32, which is exact here, so
# integers give the same. The second is the one that OpenCV has for bytes.
GAUSS_9 = (4, 13, 30, 51, 60, 51, 30, 13, 4)
GAUSS_21 = (0, 2, 2, 4, 6, 11, 15, 20, 25, 28, 30, 28, 25, 20, 15, 11, 6, 4, 2, 2, 0)

HINT_SIGMA = 4.0  # cells


def binarize(gray: Gray) -> Gray:
    """Draw black contours on white: an adaptive threshold, then a 3 x 3 median.

    The result equals OpenCV's
    `adaptiveThreshold(gray, 255, ADAPTIVE_THRESH_GAUSSIAN_C, THRESH_BINARY, 9, 2)` followed by
    `medianBlur(..., 3)`.

    Args:
        gray: uint8 (H, W).

    Returns:
        uint8 (H, W), 0 or 255.
    """
    sums = _blur(gray.astype(np.int32), GAUSS_9, "edge")
    mean = (sums + 32767 + (sums >> 16 & 1)) >> 16  # halves to even
    paper = gray - mean > -2
    height, width = gray.shape
    padded = np.pad(paper, 1, mode="edge").astype(np.int32)
    count = sum(padded[y : y + height, x : x + width] for y in range(3) for x in range(3))
    return np.where(count >= 5, 255, 0).astype(np.uint8)


def dodge(gray: Gray, strength: float = 1.0) -> Gray:
    """Draw with a pencil: divide the image by its blur (colour dodge), then scale the ink.

    With strength 1 the result equals OpenCV's
    `divide(gray, GaussianBlur(gray, (21, 21), 0), scale=256)`.

    Args:
        gray: uint8 (H, W).
        strength: Factor of the ink, 0..4, in steps of 1/256.

    Returns:
        uint8 (H, W).
    """
    blurred = (_blur(gray.astype(np.int32), GAUSS_21, "reflect") + 32768) >> 16
    quotient = (512 * gray.astype(np.int32) + blurred) // np.maximum(2 * blurred, 1)
    tones = np.where(blurred > 0, np.minimum(quotient, 255), 0)
    return _scale_ink(tones, strength)


def compose(tones: NDArray[np.float32], strength: float = 1.0) -> Gray:
    """Convert tones of the U-Net to bytes.

    Args:
        tones: float32 (H, W), 0 for ink and 1 for paper. Other values are clipped; NaN is ink.
        strength: Factor of the ink, 0..4, in steps of 1/256.

    Returns:
        uint8 (H, W).
    """
    ink_for_nan = np.where(np.isnan(tones), np.float32(0), tones)
    levels = np.rint(np.clip(ink_for_nan, 0, 1) * np.float32(255)).astype(np.int32)
    return _scale_ink(levels, strength)


def look(sketch: Gray, gray: Gray, black: int, shade: Gray, table: Gray) -> Gray:
    """Take the darker of a sketch and the black areas of its picture, through a table.

    Args:
        sketch: uint8 (H, W).
        gray: uint8 (H, W), the luma that it was drawn from.
        black: Level up to which the picture is black, 0..255.
        shade: uint8 (48,): what is drawn for the levels of the picture from `black` on. Lighter
            ones are drawn as the last.
        table: uint8 (256,): results for levels of the darker.

    Returns:
        uint8 (H, W).
    """
    over = np.clip(gray.astype(int) - black, 0, len(shade) - 1)
    result: Gray = table[np.minimum(sketch, shade[over])]
    return result


def gauss_cells(sigma: float) -> tuple[int, ...]:
    """Return the weights of the hint's Gaussian: integers, 32 in the middle.

    Args:
        sigma: Standard deviation in cells.
    """
    reach = np.arange(-int(3 * sigma), int(3 * sigma) + 1)
    weights = np.rint(32 * np.exp(-((reach / sigma) ** 2) / 2)).astype(int)
    return tuple(weights[weights > 0].tolist())


def hint(binary: Gray, tones: Gray, sigma: float = HINT_SIGMA) -> Gray:
    """Measure how dark the strokes are in each cell of 8 x 8 pixels, which the binary lacks.

    The hint of a cell is the mean darkness of the black pixels around it, weighted by a Gaussian.
    The mean of the whole page takes part with the weight of 0.64 black pixels in each cell, so it
    fills places without strokes. All sums are integers. The quotient is rounded to nearest, halves
    up.

    Args:
        binary: uint8 (H, W) from `binarize`, 0 where a stroke is.
        tones: uint8 (H, W), the same image after `dodge`.
        sigma: Standard deviation of the Gaussian in cells. Other values than 4 are for training.

    Returns:
        uint8 (ceil(H / 8), ceil(W / 8)), from 1 where strokes are white to 255 where they are
        black; 0 everywhere if the page has no black pixel.
    """
    black = binary == 0
    count, dark = _cells(black), _cells(np.where(black, 255 - tones.astype(np.int64), 0))
    strokes, darkness = int(count.sum()), int(dark.sum())
    if not strokes:
        return np.zeros(count.shape, np.uint8)
    mean = (512 * darkness + strokes) // (2 * strokes)  # of 255 levels, times 256
    taps = gauss_cells(sigma)
    prior = 16 * sum(taps) ** 2 // 25
    numerator = 254 * (256 * _blur(dark, taps, "constant") + prior * mean)
    denominator = 255 * 256 * (_blur(count, taps, "constant") + prior)
    return np.asarray(1 + (2 * numerator + denominator) // (2 * denominator), np.uint8)


def resize(gray: Gray, height: int, width: int) -> Gray:
    """Resize an image by DALI's linear filter with antialiasing; edges are repeated.

    Along each axis a target pixel is a weighted mean of the source pixels around its centre. The
    weights fall off linearly. They reach 0 at the distance between two target pixels, or between
    two source pixels where the axis is enlarged. Columns come first, then rows. Both are rounded to
    nearest, halves up. DALI rounds only once and is within 1 level.

    Args:
        gray: uint8 (H, W).
        height: Rows of the result, at least 1.
        width: Its columns, at least 1.

    Returns:
        uint8 (height, width).
    """
    return np.ascontiguousarray(_resize_columns(_resize_columns(gray, width).T, height).T)


def _resize_columns(gray: Gray, target: int) -> Gray:
    """The image with `target` columns."""
    rows, source = gray.shape
    scale = source / target
    radius = max(scale, 1.0)
    resized = np.empty((rows, target), np.uint8)
    for column in range(target):
        centre = (column + 0.5) * scale - 0.5
        near = np.arange(np.ceil(centre - radius), np.floor(centre + radius) + 1)
        weights = 1 - np.abs(near - centre) / radius
        pixels = gray[:, near.clip(0, source - 1).astype(int)]
        resized[:, column] = np.floor(pixels @ (weights / weights.sum()) + 0.5)
    return resized


def _cells(values: NDArray[Any]) -> NDArray[np.int64]:
    """Sum over cells. The last ones of a row or column may be smaller."""
    height, width = values.shape
    padded = np.pad(values, ((0, -height % CELL), (0, -width % CELL)))
    rows, columns = padded.shape[0] // CELL, padded.shape[1] // CELL
    return np.asarray(padded.reshape(rows, CELL, columns, CELL).sum((1, 3), np.int64))


def _blur(values: NDArray[Any], taps: tuple[int, ...], border: str) -> NDArray[Any]:
    """Sum with weights along both axes. `border` is a mode of `numpy.pad`."""
    height, width = values.shape
    # NumPy's "reflect" is OpenCV's BORDER_REFLECT_101, its "edge" BORDER_REPLICATE.
    padded = np.pad(values, len(taps) // 2, mode=border)  # type: ignore[call-overload]
    rows = sum(weight * padded[:, x : x + width] for x, weight in enumerate(taps))
    return np.asarray(sum(weight * rows[y : y + height] for y, weight in enumerate(taps)))


def _scale_ink(levels: NDArray[Any], strength: float) -> Gray:
    factor = round(strength * 256)
    ink = np.minimum(255, ((255 - levels) * factor + 128) >> 8)
    return np.asarray(255 - ink, np.uint8)
