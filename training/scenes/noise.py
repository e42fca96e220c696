"""Smooth noise, for paper and pigment."""

from __future__ import annotations

import cv2
import numpy as np

from training.scenes.canvas import Array, Rng


def clouds(side: int, cells: int, rng: Rng) -> Array:
    """Noise (side, side), 0..1, with `cells` features across."""
    coarse = rng.random((cells + 3, cells + 3), np.float32)
    fine = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(fine, 0, 1), np.float32)
