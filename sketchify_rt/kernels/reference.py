"""The kernels in NumPy: the specification that every fast version equals byte for byte.

`threads` is accepted, for one signature with the fast versions, and makes no difference.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sketchify_rt.image import CELL as CELL
from sketchify_rt.image import Gray

# OpenCV's Gaussian kernels, over 256. Its float32 sums of the first are exact, so whole numbers
# equal them; the second is the one it has for bytes.
GAUSS_9 = (4, 13, 30, 51, 60, 51, 30, 13, 4)
GAUSS_21 = (0, 2, 2, 4, 6, 11, 15, 20, 25, 28, 30, 28, 25, 20, 15, 11, 6, 4, 2, 2, 0)

HINT_SIGMA = 4.0  # cells


def binarize(gray: Gray, *, threads: int = 1, out: Gray | None = None) -> Gray:
    """Black contours on white: an adaptive threshold, then a 3x3 median.

    gray: uint8 (H, W). Returns uint8 (H, W), 0 or 255; `out`, if given, where it is written.
    Equals OpenCV's adaptiveThreshold(gray, 255, ADAPTIVE_THRESH_GAUSSIAN_C, THRESH_BINARY, 9, 2)
    and medianBlur(., 3).
    """
    sums = _blur(gray, GAUSS_9, "edge")
    mean = (sums + 32767 + (sums >> 16 & 1)) >> 16  # halves to even
    paper = gray - mean > -2
    height, width = gray.shape
    padded = np.pad(paper, 1, mode="edge").astype(np.int32)
    count = sum(padded[y : y + height, x : x + width] for y in range(3) for x in range(3))
    return _write(np.where(count >= 5, 255, 0), out)


def dodge(gray: Gray, strength: float = 1.0, *, threads: int = 1, out: Gray | None = None) -> Gray:
    """A pencil drawing: the image divided by its blur (colour dodge), then line strength.

    gray: uint8 (H, W). strength: see `compose`. Returns uint8 (H, W), `out` if given.
    Equals OpenCV's divide(gray, GaussianBlur(gray, (21, 21), 0), scale=256) where strength is 1.
    """
    blurred = (_blur(gray, GAUSS_21, "reflect") + 32768) >> 16
    quotient = (512 * gray.astype(np.int32) + blurred) // np.maximum(2 * blurred, 1)
    tones = np.where(blurred > 0, np.minimum(quotient, 255), 0)
    return _write(_scale_ink(tones, strength), out)


def compose(
    tones: NDArray[np.float32],
    strength: float = 1.0,
    *,
    threads: int = 1,
    out: Gray | None = None,
) -> Gray:
    """Tones of the U-Net to a page of bytes.

    tones: float32 (H, W), 0 is ink and 1 is paper; beyond is clipped, NaN is ink.
    strength: line strength, 0..4, in steps of 1/256: ink is multiplied by it. 1 changes nothing.
    Returns uint8 (H, W), `out` if given.
    """
    ink_for_nan = np.where(np.isnan(tones), np.float32(0), tones)
    levels = np.rint(np.clip(ink_for_nan, 0, 1) * np.float32(255)).astype(np.int32)
    return _write(_scale_ink(levels, strength), out)


def gauss_cells(sigma: float) -> tuple[int, ...]:
    """Weights of the hint's Gaussian: whole numbers, 32 in the middle.

    Args:
        sigma: Standard deviation in cells.
    """
    reach = np.arange(-int(3 * sigma), int(3 * sigma) + 1)
    weights = np.rint(32 * np.exp(-((reach / sigma) ** 2) / 2)).astype(int)
    return tuple(weights[weights > 0].tolist())


def hint(binary: Gray, tones: Gray, sigma: float = HINT_SIGMA) -> Gray:
    """How dark strokes are around each cell of 8 x 8 pixels: what the binary does not tell.

    It is the mean darkness of the black pixels under a Gaussian. The page's own mean counts as much
    as 0.64 black pixels in each cell, so it fills empty places. All is computed in whole numbers;
    the quotient is rounded to nearest, halves up.

    Args:
        binary: uint8 (H, W), 0 where a stroke is, from `binarize`.
        tones: uint8 (H, W), the same image after `dodge`.
        sigma: Standard deviation of the Gaussian in cells; 4 in use.

    Returns:
        uint8 (ceil(H / 8), ceil(W / 8)): 1 where strokes are white to 255 where they are black; 0
        everywhere if the page has no black pixel.
    """
    black = binary == 0
    count, dark = _cells(black), _cells(np.where(black, 255 - tones.astype(np.int64), 0))
    strokes, darkness = int(count.sum()), int(dark.sum())
    if not strokes:
        return np.zeros(count.shape, np.uint8)
    mean = (512 * darkness + strokes) // (2 * strokes)  # of 255 levels, times 256
    taps = gauss_cells(sigma)
    prior = 16 * sum(taps) ** 2 // 25
    numerator = 254 * (256 * _blur_cells(dark, taps) + prior * mean)
    denominator = 255 * 256 * (_blur_cells(count, taps) + prior)
    return (1 + (2 * numerator + denominator) // (2 * denominator)).astype(np.uint8)


def resize(gray: Gray, height: int, width: int) -> Gray:
    """An image at another size: DALI's linear filter with antialiasing, and edges repeated.

    Along each axis a target pixel is a weighted mean of the source pixels around its centre. The
    weights fall off linearly, to 0 at the distance between two target pixels, or between two source
    pixels where the axis is enlarged. Columns come first, then rows; both are rounded to nearest,
    halves up. DALI rounds once, and is within 1 level.

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
    """Sums over cells; the last ones of a row or column may be smaller."""
    height, width = values.shape
    padded = np.pad(values.astype(np.int64), ((0, -height % CELL), (0, -width % CELL)))
    rows, columns = padded.shape[0] // CELL, padded.shape[1] // CELL
    sums: NDArray[np.int64] = padded.reshape(rows, CELL, columns, CELL).sum(axis=(1, 3))
    return sums


def _blur_cells(cells: NDArray[np.int64], taps: tuple[int, ...]) -> NDArray[np.int64]:
    """Sums of the cells weighed along both axes; there is nothing beyond the page."""
    rows, columns = cells.shape
    padded = np.pad(cells, len(taps) // 2)
    weights = np.array(taps, np.int64)
    across = np.stack([padded[:, x : x + columns] for x in range(len(taps))], -1) @ weights
    sums: NDArray[np.int64] = (
        np.stack([across[y : y + rows] for y in range(len(taps))], -1) @ weights
    )
    return sums


def _blur(gray: Gray, kernel: tuple[int, ...], border: str) -> NDArray[np.int32]:
    """65536 times the image blurred along both axes, exact."""
    height, width = gray.shape
    # NumPy's "reflect" is OpenCV's BORDER_REFLECT_101, its "edge" BORDER_REPLICATE.
    padded = np.pad(gray.astype(np.int32), len(kernel) // 2, mode=border)  # type: ignore[call-overload]
    rows = sum(weight * padded[:, x : x + width] for x, weight in enumerate(kernel))
    sums: NDArray[np.int32] = sum(weight * rows[y : y + height] for y, weight in enumerate(kernel))
    return sums


def _scale_ink(levels: NDArray[np.int32], strength: float) -> NDArray[np.int32]:
    factor = int(np.rint(strength * 256))
    scaled: NDArray[np.int32] = 255 - np.minimum(255, ((255 - levels) * factor + 128) >> 8)
    return scaled


def _write(values: NDArray[np.int32], out: Gray | None) -> Gray:
    if out is None:
        return values.astype(np.uint8)
    out[...] = values
    return out
