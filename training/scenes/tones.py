"""Grays that are laid on, not painted: markers, gradients, screentones."""

from __future__ import annotations

import cv2
import numpy as np

from sketchify_rt.image import Gray
from training.scenes import pen
from training.scenes.canvas import Rng, side_of
from training.scenes.geometry import blob
from training.scenes.line_art import line_art_over
from training.screentone import screentone


def flat(rng: Rng) -> np.uint8:
    """The gray of a marker."""
    return np.uint8(rng.integers(90, 240))


def flat_tones(page: Gray, rng: Rng) -> None:
    """Marker grays and plain gradients under the lines."""
    side = side_of(page)
    if rng.random() >= 0.5:
        _gradient(page, rng)
    for _ in range(int(rng.integers(1, 5))):
        outline = blob(rng, rng.uniform(0.1, 0.5) * side, side)
        layer = cv2.multiply(page, np.full_like(page, flat(rng)), scale=1 / 255)
        pen.within(page, outline, np.asarray(layer, np.uint8))
    line_art_over(page, rng)


def _gradient(page: Gray, rng: Rng) -> None:
    """A sky: one smooth ramp over the whole page."""
    ramp = np.linspace(rng.uniform(60, 255), rng.uniform(150, 255), page.shape[0])
    ramp = ramp if rng.random() < 0.7 else ramp[::-1]
    page[:] = np.rint(ramp).astype(np.uint8)[:, None]


def screentones(gray: Gray, rng: Rng) -> Gray:
    """Screentones laid on shapes of a finished drawing, flat or in gradients.

    gray: uint8 (side, side), reduced from the page already: a screen has its own antialiasing.
    """
    side = gray.shape[0]
    for _ in range(int(rng.integers(1, 4))):
        shade = np.full_like(gray, int(rng.uniform(76, 230)))
        if rng.random() < 0.35:
            ramp = np.linspace(rng.uniform(20, 120), 255, side)[:: int(rng.choice((-1, 1)))]
            shade[:] = np.rint(ramp).astype(np.uint8)
            shade = np.ascontiguousarray(shade.T) if rng.random() < 0.7 else shade
        tone = screentone(shade, rng)
        if rng.random() < 0.75:
            clip = np.zeros_like(gray)
            outline = blob(rng, rng.uniform(0.2, 0.6) * side, side)
            cv2.fillPoly(clip, [np.asarray(np.rint(outline), np.int32)], 255, cv2.LINE_AA)
            tone = np.maximum(tone, 255 - clip)
        gray = np.minimum(gray, tone)
    return gray
