"""How far a sketch is from the dodge filter's, each figure of one page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, astuple, dataclass
from statistics import fmean

import cv2
import numpy as np
import numpy.typing as npt

from sketchify_rt.image import Gray

INK = 224  # a pixel darker than this is ink
DARK = 200  # a target pixel darker than this is a dark one


@dataclass(frozen=True)
class Metrics:
    """Figures of one page, or their means over pages; levels are of 0..255.

    mae: mean absolute error in levels. psnr: peak signal-to-noise ratio in dB, infinite where the
    two images are equal. ssim: mean of `ssim_map`. ink_f1: F1 of the ink pixels, a pixel counting
    as found where the other image has ink at most one pixel away. dark_mae: mean absolute error in
    levels over the dark pixels of the target, 0 where there are none. tone: 1-D Wasserstein
    distance of the two tone histograms in levels.
    """

    mae: float
    psnr: float
    ssim: float
    ink_f1: float
    dark_mae: float
    tone: float


def measure(sketch: Gray, target: Gray) -> Metrics:
    """Compare two uint8 (H, W) images of one size; needs some 100 MB, however large they are."""
    counts = np.zeros(2**16, np.int64)  # how often each two levels meet
    ssim, ink = 0.0, np.zeros(4, np.int64)
    for inner, outer, within in _bands(*sketch.shape):
        counts += np.bincount((sketch[inner] * np.uint16(256) + target[inner]).ravel(), None, 2**16)
        ssim += float(ssim_map(sketch[outer], target[outer])[within].sum())
        ink += _ink(sketch[outer] < INK, target[outer] < INK, within)
    levels = np.arange(256)
    difference = np.abs(levels[:, None] - levels)
    pairs = counts.reshape(256, 256)
    dark = pairs[:, :DARK]
    squares = float((pairs * difference**2).sum() / sketch.size)
    return Metrics(
        mae=float((pairs * difference).sum() / sketch.size),
        psnr=float(10 * np.log10(255**2 / squares)) if squares else float("inf"),
        ssim=ssim / sketch.size,
        ink_f1=_f1(*ink),
        dark_mae=float((dark * difference[:, :DARK]).sum() / max(1, dark.sum())),
        # In one dimension the distance is the area between the cumulative histograms.
        tone=float(np.abs(np.cumsum(pairs.sum(1) - pairs.sum(0))).sum() / sketch.size),
    )


def ssim_map(a: Gray, b: Gray) -> npt.NDArray[np.float64]:
    """Structural similarity around each pixel of two uint8 (H, W) images: (H, W), -1..1.

    Wang et al. 2004 (doi:10.1109/TIP.2003.819861); Gaussian 11, sigma 1.5, borders mirrored.
    """

    def blur(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(cv2.GaussianBlur(x, (11, 11), 1.5), np.float64)

    x, y = a.astype(np.float64), b.astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = blur(x), blur(y)
    variances = blur(x * x) - mean_x**2 + blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    similarity: npt.NDArray[np.float64] = luminance * (2 * covariance + c2) / (variances + c2)
    return similarity


def mean(pages: Iterable[Metrics]) -> Metrics:
    """Mean of each figure over pages, at least one."""
    return Metrics(*(fmean(values) for values in zip(*map(astuple, pages), strict=True)))


def rounded(metrics: Metrics) -> dict[str, float]:
    """The figures by name, to four digits after the point, as a manifest keeps them."""
    return {name: round(value, 4) for name, value in asdict(metrics).items()}


_SSIM_REACH = 5  # pixels that `ssim_map` looks to each side, and `_ink` no farther
_BAND_PIXELS = 2**19


def _bands(height: int, width: int) -> Iterator[tuple[slice, slice, slice]]:
    """Rows that cover an image; the same with what is looked at around them; them within that."""
    step = max(8 * _SSIM_REACH, _BAND_PIXELS // width)
    for top in range(0, height, step):
        bottom = min(top + step, height)
        first = max(0, top - _SSIM_REACH)
        outer = slice(first, min(bottom + _SSIM_REACH, height))
        yield slice(top, bottom), outer, slice(top - first, bottom - first)


def _ink(
    found: npt.NDArray[np.bool_], wanted: npt.NDArray[np.bool_], rows: slice
) -> tuple[int, int, int, int]:
    """Pixels found that are right, all found, pixels wanted that were found, all wanted."""
    near = np.ones((3, 3), np.uint8)
    found_near, wanted_near = (
        cv2.dilate(ink.astype(np.uint8), near) > 0 for ink in (found, wanted)
    )
    counted = (found & wanted_near, found, wanted & found_near, wanted)
    right, all_found, hit, all_wanted = (int(pixels[rows].sum()) for pixels in counted)
    return right, all_found, hit, all_wanted


def _f1(right: int, found: int, hit: int, wanted: int) -> float:
    if not found or not wanted:
        return float(found == wanted)
    precision, recall = float(right / found), float(hit / wanted)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
