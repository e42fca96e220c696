"""How far a sketch is from the dodge filter's, each figure of one page."""

from __future__ import annotations

from collections.abc import Iterable
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
    """Compare two uint8 (H, W) images of one size."""
    difference = np.abs(sketch.astype(np.int16) - target)
    squares = float(np.mean(np.square(difference, dtype=np.float32)))
    dark = target < DARK
    return Metrics(
        mae=float(difference.mean()),
        psnr=float(10 * np.log10(255**2 / squares)) if squares else float("inf"),
        ssim=float(ssim_map(sketch, target).mean()),
        ink_f1=_ink_f1(sketch < INK, target < INK),
        dark_mae=float(difference[dark].mean()) if dark.any() else 0.0,
        tone=_tone_distance(sketch, target),
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


def _ink_f1(found: npt.NDArray[np.bool_], wanted: npt.NDArray[np.bool_]) -> float:
    near = np.ones((3, 3), np.uint8)
    found_near, wanted_near = (
        cv2.dilate(ink.astype(np.uint8), near) > 0 for ink in (found, wanted)
    )
    if not found.any() or not wanted.any():
        return float(found.any() == wanted.any())
    precision = float((found & wanted_near).sum() / found.sum())
    recall = float((wanted & found_near).sum() / wanted.sum())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _tone_distance(a: Gray, b: Gray) -> float:
    # In one dimension the distance is the area between the cumulative histograms.
    cumulative_a, cumulative_b = (
        np.cumsum(np.bincount(x.ravel(), minlength=256)) / x.size for x in (a, b)
    )
    return float(np.abs(cumulative_a - cumulative_b).sum())
