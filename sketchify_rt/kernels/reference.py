"""The kernels in NumPy: the specification that every fast version equals byte for byte.

`threads` is accepted, for one signature with the fast versions, and makes no difference.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sketchify_rt.image import Gray

# OpenCV's Gaussian kernels, over 256. Its float32 sums of the first are exact, so whole numbers
# equal them; the second is the one it has for bytes.
GAUSS_9 = (4, 13, 30, 51, 60, 51, 30, 13, 4)
GAUSS_21 = (0, 2, 2, 4, 6, 11, 15, 20, 25, 28, 30, 28, 25, 20, 15, 11, 6, 4, 2, 2, 0)


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
