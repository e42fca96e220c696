"""Figures that tell how far a sketch is from its target, the dodge filter of the page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass
from statistics import fmean, harmonic_mean

import cv2
import numpy as np
from numpy.typing import NDArray

from sketchify_rt.image import Gray, bands

INK = 224  # a pixel darker than this is ink
DARK = 200  # a pixel of the target darker than this is dark

_REACH = 5  # pixels that `ssim_map` needs on each side; the figures of ink need 1
_BAND_PIXELS = 2**19


@dataclass(frozen=True)
class Metrics:
    """Figures of one page, or their means over pages. Levels are in 0..255.

    Attributes:
        mae: Mean absolute error, in levels.
        psnr: Peak signal-to-noise ratio in dB; infinite if the images are equal.
        ssim: Mean of `ssim_map`.
        ink_f1: F1 score of the ink pixels. A pixel is correct if the other image has ink at most
            one pixel away.
        dark_mae: Mean absolute error over the dark pixels of the target, in levels; 0 if there are
            none.
        tone: 1-D Wasserstein distance between the histograms, in levels.
    """

    mae: float
    psnr: float
    ssim: float
    ink_f1: float
    dark_mae: float
    tone: float


def measure(sketch: Gray, target: Gray) -> Metrics:
    """Compares a sketch with its target. Needs about 100 MB for images of any size.

    Args:
        sketch: uint8 (H, W).
        target: uint8 (H, W).

    Returns:
        The figures.
    """
    counts = np.zeros(2**16, np.int64)  # how often each pair of levels occurs
    ssim, ink = 0.0, np.zeros(4, np.int64)
    for rows in bands(sketch.shape, _BAND_PIXELS):
        top = max(0, rows.start - _REACH)
        around, within = slice(top, rows.stop + _REACH), slice(rows.start - top, rows.stop - top)
        pairs = (sketch[rows] * np.uint16(256) + target[rows]).ravel()
        counts += np.bincount(pairs, minlength=2**16)
        ssim += float(ssim_map(sketch[around], target[around])[within].sum())
        found, wanted = sketch[around] < INK, target[around] < INK
        pixels = (found & _near(wanted), found, wanted & _near(found), wanted)
        ink += [np.count_nonzero(each[within]) for each in pixels]
    levels = np.arange(256)
    difference = np.abs(levels[:, None] - levels)
    table = counts.reshape(256, 256)
    dark = table[:, :DARK]
    squares = float((table * difference**2).sum() / sketch.size)
    return Metrics(
        mae=float((table * difference).sum() / sketch.size),
        psnr=float(10 * np.log10(255**2 / squares)) if squares else float("inf"),
        ssim=ssim / sketch.size,
        ink_f1=_f1(*ink.tolist()),
        dark_mae=float((dark * difference[:, :DARK]).sum() / max(1, dark.sum())),
        # In one dimension the distance is the area between the cumulative histograms.
        tone=float(np.abs(np.cumsum(table.sum(1) - table.sum(0))).sum() / sketch.size),
    )


def ssim_map(a: Gray, b: Gray) -> NDArray[np.float64]:
    """Computes the structural similarity around each pixel of two images.

    Wang et al. 2004 (doi:10.1109/TIP.2003.819861), with a Gaussian window of 11 pixels, sigma 1.5,
    and mirrored borders.

    Args:
        a: uint8 (H, W).
        b: uint8 (H, W).

    Returns:
        float64 (H, W) in -1..1; 1 if the surroundings are equal.
    """

    def blur(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(cv2.GaussianBlur(x, (11, 11), 1.5), np.float64)

    x, y = a.astype(np.float64), b.astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = blur(x), blur(y)
    variances = blur(x * x) - mean_x**2 + blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    similarity: NDArray[np.float64] = luminance * (2 * covariance + c2) / (variances + c2)
    return similarity


def mean(pages: Iterable[Metrics]) -> Metrics:
    """Computes the mean of each figure.

    Args:
        pages: Figures of at least one page.

    Returns:
        The means.
    """
    return Metrics(*(fmean(values) for values in zip(*map(astuple, pages), strict=True)))


def rounded(metrics: Metrics) -> dict[str, float]:
    """Rounds figures for a manifest.

    Args:
        metrics: The figures.

    Returns:
        The figures by name, with four digits after the point.
    """
    return {name: round(value, 4) for name, value in asdict(metrics).items()}


def _near(ink: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return cv2.dilate(ink.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0


def _f1(right: int, found: int, hit: int, wanted: int) -> float:
    """F1 of `right` pixels of those found, and `hit` pixels of those wanted."""
    if not found or not wanted:
        return float(found == wanted)
    return float(harmonic_mean((right / found, hit / wanted)))
