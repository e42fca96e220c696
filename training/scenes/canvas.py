"""What a scene is drawn on: a page of two samples a pixel, each way.

Coordinates are pixels of the finished scene, x to the right and y down.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sketchify_rt.image import Gray

Rng = np.random.Generator
Array = NDArray[np.float32]
Points = NDArray[np.floating[Any]]
Motif = Callable[[Gray, Rng], None]
"""Draws on the page, uint8 (2 side, 2 side), in place."""

INK, PAPER = 0, 255
SAMPLES = 2  # a pixel, each way


def side_of(page: Gray) -> float:
    """The side of the finished scene, in pixels."""
    return float(page.shape[0] / SAMPLES)
