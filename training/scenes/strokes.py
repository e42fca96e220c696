"""Motifs of lines alone."""

from __future__ import annotations

import numpy as np

from sketchify_rt.image import Gray
from training.scenes import pen
from training.scenes.canvas import Rng, side_of
from training.scenes.geometry import across, flow, headings, ribbons


def long_strokes(page: Gray, rng: Rng) -> None:
    """A few strokes that wander over the page."""
    side, n = side_of(page), int(rng.integers(3, 12))
    curves = flow(rng, n, side, rng.uniform(0.3, 1.2) * side)
    pen.strokes(page, curves, rng.triangular(1, 2, 6, n), rng)


def ruled(page: Gray, rng: Rng) -> None:
    """Straight lines, most of them upright."""
    side, n = side_of(page), int(rng.integers(2, 10))
    ends = rng.uniform(-0.2, 1.2, (n, 2, 2)) * side
    upright = rng.random(n) < 0.6
    ends[upright, 1, 0] = ends[upright, 0, 0]
    pen.lines(page, ends, float(rng.choice((0.5, 1, 1.5, 2, 3))))


def speed_lines(page: Gray, rng: Rng) -> None:
    """Parallel strokes, close together in the middle."""
    side, n = side_of(page), int(rng.integers(12, 45))
    angle = rng.choice((0, np.pi / 2, rng.uniform(0, np.pi)))
    d = headings(angle)
    offset = rng.normal(0, rng.uniform(0.15, 0.5) * side, (n, 1))
    start = side / 2 + offset * across(d) - d * side * rng.uniform(0.3, 0.8, (n, 1))
    end = start + d * side * rng.uniform(0.4, 1.4, (n, 1))
    t = np.linspace(0, 1, 4)[:, None]
    curves = start[:, None] + (end - start)[:, None] * t
    pen.strokes(page, curves, rng.uniform(0.7, 3, n), rng)


def focus_lines(page: Gray, rng: Rng) -> None:
    """Wedges from the rim towards a middle that stays free."""
    side, n = side_of(page), int(rng.integers(30, 110))
    at = rng.uniform(0.2, 0.8, 2) * side
    d = headings(np.sort(rng.uniform(0, 2 * np.pi, n)))
    half = across(d) * rng.uniform(0.5, 5, (n, 1))
    tip = at + d * side * (rng.uniform(0.15, 0.4) + rng.exponential(0.08, (n, 1)))
    far = at + d * 1.5 * side
    pen.fill(page, np.stack([tip, far + half, far - half], 1))


def feathering(page: Gray, rng: Rng) -> None:
    """A line with short strokes that fade away from it."""
    side = side_of(page)
    curve = flow(rng, 1, side, rng.uniform(0.4, 1) * side, bend=0.8, points=int(side / 5))[0]
    along = np.gradient(curve, axis=0)
    along /= np.maximum(np.hypot(along[:, :1], along[:, 1:]), 1e-6)
    out = across(along) + rng.uniform(-0.8, 0.8) * along
    size = rng.uniform(0.04, 0.15) * side * rng.uniform(0.6, 1.2, (len(curve), 1))
    t = np.linspace(0, 1, 5)[:, None]
    hairs = curve[:, None] + (out * size)[:, None] * t
    fading = np.float32(rng.uniform(1, 3)) * (1 - t[:, 0]).astype(np.float32)
    widths = np.broadcast_to(np.maximum(fading, 0.5), hairs.shape[:2])
    pen.fill(page, ribbons(hairs, widths))
    pen.strokes(page, curve[None], rng.uniform(1, 4), rng)
