"""How a scene is printed and scanned."""

from __future__ import annotations

import cv2
import numpy as np

from sketchify_rt.image import Gray
from training.scenes.canvas import Rng
from training.scenes.noise import clouds


def scan(gray: Gray, rng: Rng, pencil: bool) -> Gray:
    """True black on white mostly, else a scan's dark gray, a pencil's, and paper with a tint.

    gray: uint8 (side, side), finished. pencil: whether its lines may be as light as a pencil's.
    """
    black, white = rng.uniform(0, 40) if rng.random() < 0.6 else 0.0, 255.0
    chance = rng.random()
    if pencil and chance < 0.1:
        black = rng.uniform(60, 130)
    elif chance < 0.2:
        black = rng.uniform(40, 75)
    tinted = rng.random() < 0.25
    if tinted:
        white = rng.uniform(235, 250)
    table = np.rint(np.linspace(black, white, 256)).astype(np.uint8)
    gray = np.asarray(cv2.LUT(gray, table), np.uint8)
    if tinted:
        shade = clouds(gray.shape[0], int(rng.integers(1, 4)), rng) * rng.uniform(0, 12)
        if rng.random() < 0.5:
            shade += rng.uniform(0.5, 2) * rng.standard_normal(gray.shape, np.float32)
        gray = np.asarray(cv2.convertScaleAbs(np.maximum(gray - shade, 0)), np.uint8)
    return gray
