"""What gives a surface its shade or its grain, over the whole page or inside an outline."""

from __future__ import annotations

import cv2
import numpy as np

from sketchify_rt.image import Gray
from training.scenes import pen
from training.scenes.canvas import INK, Points, Rng, side_of
from training.scenes.geometry import across, blob, headings
from training.scenes.strokes import long_strokes


def shade(page: Gray, outline: Points, rng: Rng) -> None:
    """Hatching, stippling or folds inside an outline (points, 2)."""
    layer = page.copy()
    (hatching, hatching, stipple, long_strokes)[int(rng.integers(4))](layer, rng)
    if rng.random() < 0.6:  # only the shadowed part
        lit = outline + rng.uniform(-0.4, 0.4, 2).astype(np.float32) * np.ptp(outline, 0)
        pen.within(layer, lit, page)
    pen.within(page, outline, layer)


def hatching(page: Gray, rng: Rng) -> None:
    """Parallel lines over the whole page, crossed or not."""
    side, gap = side_of(page), rng.uniform(3, 8)
    width, first = float(rng.choice((0.5, 1, 1, 1.5, 2))), rng.uniform(0, np.pi)
    for layer in range(int(rng.choice((1, 1, 2, 3)))):
        d = headings(first + layer * rng.uniform(0.6, 1.6))
        offset = np.arange(-0.75 * side, 0.75 * side, gap)
        offset = (offset + rng.normal(0, 0.08 * gap, offset.size))[:, None]
        middle = side / 2 + offset * across(d)
        reach = side * rng.uniform(0.7, 0.75, (offset.size, 1)) * d
        pen.lines(page, np.stack([middle - reach, middle + reach], 1), width)


def stipple(page: Gray, rng: Rng) -> None:
    """Dots, denser towards one side."""
    side, n = side_of(page), int(rng.integers(60, 250))
    points = np.stack([rng.random(n) ** rng.uniform(1, 3), rng.random(n)], 1) * side
    points = points[:, ::-1] if rng.random() < 0.5 else side - points
    pen.dots(page, points, rng.uniform(0.5, 1.4))


def contour_lines(page: Gray, rng: Rng) -> None:
    """Level lines of a smooth field: wood grain, ripples, folds, rock."""
    stretch = int(rng.choice((1, 1, 3, 8)))
    coarse = rng.random((4 + int(rng.integers(6)), 4 + 6 // stretch), np.float32)
    coarse = coarse if rng.random() < 0.5 else np.ascontiguousarray(coarse.T)
    field = cv2.resize(coarse, page.shape[::-1], interpolation=cv2.INTER_CUBIC)
    drawn = page.copy()
    for level in np.linspace(0.2, 0.9, int(rng.integers(4, 12))):
        above = (field > level).astype(np.uint8)
        rims, _ = cv2.findContours(above, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        # Every fourth point, for the staircase of the samples not to show.
        smooth = [np.ascontiguousarray(rim[::4]) for rim in rims if len(rim) > 30]
        cv2.polylines(drawn, smooth, True, INK, int(rng.integers(1, 5)), cv2.LINE_AA)
    layer = page.copy()
    layer[4:-4, 4:-4] = drawn[4:-4, 4:-4]  # the contours run along the border, too
    if rng.random() < 0.6:
        side = side_of(page)
        outline = blob(rng, rng.uniform(0.3, 0.6) * side, side)
        pen.within(page, outline, layer)
        pen.contour(page, outline, pen.width(rng), rng)
    else:
        page[:] = layer
