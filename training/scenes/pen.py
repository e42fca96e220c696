"""The drawing tools: each draws on the page in place, in pixels of the finished scene."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from sketchify_rt.image import Gray
from training.scenes.canvas import INK, SAMPLES, Points, Rng
from training.scenes.geometry import closed, ribbons

_SHIFT = 4  # fractional bits of the coordinates handed to OpenCV


def width(rng: Rng) -> float:
    """The width of a line in pixels: thin ones are the most common."""
    return float(rng.triangular(0.8, 1.6, 5))


def fill(page: Gray, outlines: Iterable[Points], tone: int = INK) -> None:
    """Each outline of (n, points, 2) for itself: where they overlap they do not cancel."""
    for outline in outlines:
        cv2.fillPoly(page, [_fixed(outline)], tone, cv2.LINE_AA, _SHIFT)


def lines(page: Gray, curves: Points, width: float) -> None:
    """Open polylines (n, points, 2) of one width, in steps of half a pixel."""
    thick = max(1, round(width * SAMPLES))
    cv2.polylines(page, list(_fixed(curves)), False, INK, thick, cv2.LINE_AA, _SHIFT)


def loop(page: Gray, corners: Points, width: float) -> None:
    """A closed line of one width around corners (points, 2)."""
    lines(page, closed(corners)[None], width)


def dots(page: Gray, centres: Points, radius: float) -> None:
    """Discs of ink at centres (n, 2)."""
    reach = int(radius * (SAMPLES << _SHIFT))
    for x, y in _fixed(centres).tolist():
        cv2.circle(page, (x, y), reach, INK, -1, cv2.LINE_AA, _SHIFT)


def strokes(page: Gray, curves: Points, width: Points | float, rng: Rng, tone: int = INK) -> None:
    """Pen or brush strokes along curves (n, points, 2): pressure swells, fades or stays.

    width: where the pressure is full, of all curves or (n,).
    """
    t = np.linspace(0, 1, curves.shape[1], dtype=np.float32)
    pressure = (
        np.sin(3.14 * t) ** 0.7,  # a brush
        np.minimum(1, 12 * t) * (1 - t) ** 0.8,  # a flick of the pen
        np.minimum(1, 6 * np.minimum(t, 1 - t)),  # an even pen
    )[int(rng.integers(3))]
    full = np.broadcast_to(np.asarray(width, np.float32), len(curves))[:, None]
    fill(page, ribbons(curves, np.maximum(full * pressure, 0.5)), tone)


def contour(page: Gray, outline: Points, width: float, rng: Rng) -> None:
    """The outline (points, 2) closed with a line that swells along its way."""
    curve = closed(outline)
    phase = np.linspace(0, 2 * np.pi, len(curve)) * int(rng.integers(1, 4)) + rng.uniform(0, 6)
    widths = np.maximum(width * (0.65 + 0.45 * np.cos(phase)), 0.6)
    # In pieces: a closed ribbon would cross itself and cancel where it does.
    half = len(curve) // 2
    for part in (slice(0, half + 1), slice(half, None)):
        fill(page, ribbons(curve[None, part], widths[None, part]))


def within(page: Gray, outline: Points, layer: Gray) -> None:
    """Lay `layer`, of the page's shape, over the page inside the outline (points, 2)."""
    inside = np.zeros_like(page)
    fill(inside, [outline], 255)
    cv2.copyTo(layer, inside, page)


def _fixed(points: Points) -> NDArray[np.int32]:
    """The points in OpenCV's fixed point, of `_SHIFT` fractional bits of a sample."""
    samples = np.asarray(points, np.float32) * (SAMPLES << _SHIFT)
    return np.asarray(np.rint(samples), np.int32, order="C")
