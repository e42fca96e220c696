"""Make more of a page than it is: other scales, tones, media and damages.

Each function takes and gives uint8 (H, W) luma and draws what it needs from `rng` alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from sketchify_rt import bilevel
from sketchify_rt.image import Gray
from sketchify_rt.kernels import native
from training.screentone import screentone

Rng = np.random.Generator


def cut(page: Gray, side: int, rng: Rng) -> Gray:
    """A random square of the page at its own scale, upright, mirrored half of the time."""
    top, left = (int(rng.integers(length - side + 1)) for length in page.shape)
    square = page[top : top + side, left : left + side]
    return np.ascontiguousarray(square[:, ::-1] if rng.random() < 0.5 else square)


def crop(page: Gray, side: int, rng: Rng) -> Gray:
    """A random square of the page, turned and mirrored, as `side` x `side` pixels.

    Half the crops are at the page's own scale, the others anything from 1.5 times enlarged to as
    much of the page as fits, log-uniform as scales are. The page is at least `side` both ways.
    """
    cut = side
    if rng.random() < 0.5:
        least = side / 1.5
        cut = int(least * (min(page.shape) / least) ** rng.random())
    top, left = (int(rng.integers(length - cut + 1)) for length in page.shape)
    square = page[top : top + cut, left : left + cut]
    if cut != side:
        how = cv2.INTER_AREA if cut > side else cv2.INTER_CUBIC
        square = np.asarray(cv2.resize(square, (side, side), interpolation=how), np.uint8)
    square = np.rot90(square, int(rng.integers(4)))
    return np.ascontiguousarray(square[:, ::-1] if rng.random() < 0.5 else square)


MEDIA = {"lines": 0.35, "wash": 0.3, "flat": 0.15, "screentone": 0.2}
"""What lies under the lines of an ink drawing, and how often."""


def ink(gray: Gray, rng: Rng, media: Mapping[str, float] = MEDIA) -> Gray:
    """The picture as an ink drawing: lines alone, or on washes, flat tones or screentones.

    The lines are the extended difference of Gaussians of Winnemoeller et al. 2012
    (doi:10.1016/j.cag.2012.03.004).
    """
    tones = gray.astype(np.float32) / 255
    sigma = rng.uniform(0.6, 1.6)
    fine = cv2.GaussianBlur(tones, (0, 0), sigma)
    coarse = cv2.GaussianBlur(tones, (0, 0), 1.6 * sigma)
    response = fine - rng.uniform(0.96, 0.99) * coarse
    lines = np.clip(1 + np.tanh(rng.uniform(60, 300) * (response - rng.uniform(0, 0.01))), 0, 1)
    blacks = np.clip((coarse - rng.uniform(0.05, 0.3)) * 40, 0, 1)  # dark areas spotted with ink
    drawing = np.minimum(lines, blacks)
    medium = rng.choice([*media], p=[*media.values()])
    if medium != "lines":
        drawing = drawing * _shading(gray, medium, rng)
    # Of solid black the dodge filter makes black if it is 0, and white from 1 on, as scans have it.
    black = rng.uniform(0.01, 0.15) if rng.random() < 0.7 else 0
    return np.asarray(np.rint(255 * (black + (1 - black) * drawing)), np.uint8)


def _shading(gray: Gray, medium: str, rng: Rng) -> NDArray[np.float32]:
    """What lies under the lines, 0..1."""
    smooth = cv2.medianBlur(gray, int(rng.choice((5, 7, 9, 11)))).astype(np.float32) / 255
    lift = rng.uniform(0.3, 0.9)  # how light the darkest shade is
    if medium == "wash":
        shade = cv2.GaussianBlur(smooth, (0, 0), rng.uniform(0.5, 3))
        grain = cv2.GaussianBlur(_noise(gray.shape, rng), (0, 0), rng.uniform(0.5, 2.5))
        shade = lift + (1 - lift) * shade + rng.uniform(0, 0.25) * grain
        return np.clip(shade, 0, 1).astype(np.float32)
    levels = int(rng.integers(2, 5))
    flat = np.minimum(1, np.floor(smooth * levels + rng.random()) / levels)
    shade = np.clip(lift + (1 - lift) * flat, 0, 1).astype(np.float32)
    if medium == "screentone":
        shade = screentone(np.asarray(np.rint(255 * shade), np.uint8), rng) / np.float32(255)
    return np.asarray(shade, np.float32)


def page(gray: Gray, darkness: float, rng: Rng) -> tuple[Gray, Gray]:
    """A black and white page, and how a pencil of one darkness draws it.

    Lines have one tone along their length. Areas wider than strokes stay dark, about 40 levels,
    unless the pencil is a hard one.

    Args:
        gray: uint8 (H, W). A picture with tones is drawn in ink first.
        darkness: Of the pencil, 0..1; 1 is ink.
        rng: For the ink.

    Returns:
        The page, 0 or 255, and the drawing, uint8 (H, W) both.
    """
    level = bilevel.level(gray)
    if level is None:
        gray, level = ink(gray, rng, {"lines": 0.5, "screentone": 0.5}), 128
    binary = bilevel.binarize(gray, level)
    # Soft edges, as antialiasing has them.
    black = 1 - cv2.GaussianBlur(binary, (3, 3), 0).astype(np.float32) / 255
    dark = max(darkness, min(1, 2 * darkness + 0.1, 215 / 255))
    ink_share = black * (darkness + (dark - darkness) * _area(255 - binary))
    return binary, np.asarray(np.rint(255 * (1 - ink_share)), np.uint8)


def _area(black: Gray) -> NDArray[np.float32]:
    """How much each pixel belongs to an area rather than to a stroke, 0..1.

    By the share of ink around, which changes smoothly: a morphological opening breaks dense
    hatching into spots, dark where its lines touch.
    """
    share = cv2.GaussianBlur(black, (0, 0), 5).astype(np.float32) / 255
    inside = np.clip((share - 0.75) / 0.25, 0, 1)
    window = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (17, 17))  # out to the area's edge
    return np.asarray(cv2.GaussianBlur(cv2.dilate(inside, window), (0, 0), 2), np.float32)


def hatched(gray: Gray, rng: Rng) -> Gray:
    """The picture with a rectangle of regular hatching in ink, lines of 1 to 13 pixels.

    Few pages have any; a model that knows none fills the gaps where it is told that all is ink.
    """
    height, width = gray.shape
    pitch, angle = rng.uniform(5, 20), rng.uniform(0, np.pi)
    y, x = np.ogrid[:height, :width]
    lines = (x * np.cos(angle) + y * np.sin(angle)) / pitch % 1 < rng.uniform(0.2, 0.65)
    top, left = (int(rng.integers(side // 2)) for side in (height, width))
    bottom, right = top + int(rng.integers(height // 3, height)), left + width // 2
    inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    return np.where(inside, np.where(lines, np.uint8(0), np.uint8(255)), gray)


def pencil(gray: Gray, rng: Rng) -> Gray:
    """The picture as a pencil drawing: its own dodge, more or less dark."""
    return native.dodge(gray, strength=float(rng.uniform(1, 3)))


def tone_curve(gray: Gray, rng: Rng) -> Gray:
    """Another exposure: a gamma, a lifted black, a dimmed white."""
    levels = np.linspace(0, 1, 256) ** np.exp(rng.uniform(-0.6, 0.6))
    black, white = rng.uniform(0, 40), rng.uniform(225, 255)
    return np.asarray(cv2.LUT(gray, np.rint(black + (white - black) * levels).astype(np.uint8)))


def soften(gray: Gray, rng: Rng) -> Gray:
    """A little out of focus."""
    return np.asarray(cv2.GaussianBlur(gray, (0, 0), rng.uniform(0.4, 1.0)), np.uint8)


def jpeg(gray: Gray, rng: Rng) -> Gray:
    """What JPEG of quality 40 to 95 leaves of it."""
    _, data = cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 96))])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)


def grain(gray: Gray, rng: Rng) -> Gray:
    """Noise of a scanner, up to 3 levels of standard deviation."""
    noisy = gray + rng.uniform(0.5, 3) * _noise(gray.shape, rng)
    return np.asarray(np.clip(np.rint(noisy), 0, 255), np.uint8)


def binarize(gray: Gray, rng: Rng) -> Gray:
    """The engine's threshold with another block (7 to 15) and another constant (1 to 5)."""
    block, constant = 2 * int(rng.integers(3, 8)) + 1, float(rng.uniform(1, 5))
    mean, kind = cv2.ADAPTIVE_THRESH_GAUSSIAN_C, cv2.THRESH_BINARY
    page = cv2.adaptiveThreshold(gray, 255, mean, kind, block, constant)
    return np.asarray(cv2.medianBlur(page, 3), np.uint8)


def _noise(shape: tuple[int, ...], rng: Rng) -> NDArray[np.float32]:
    return rng.standard_normal(shape, np.float32)
