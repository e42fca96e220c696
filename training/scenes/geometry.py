"""Curves and outlines, in pixels: points (..., 2) of x and y."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.scenes.canvas import Array, Points, Rng


def headings(angles: ArrayLike) -> NDArray[Any]:
    """Unit vectors (..., 2) of angles in radians."""
    return np.stack([np.cos(angles), np.sin(angles)], -1)


def circle(points: int) -> NDArray[Any]:
    """A unit circle (points, 2), not closed."""
    return headings(np.linspace(0, 2 * np.pi, points, endpoint=False))


def across(vectors: Points) -> NDArray[Any]:
    """The vectors (..., 2) after a quarter turn."""
    return np.stack([-vectors[..., 1], vectors[..., 0]], -1)


def closed(outline: Points) -> Points:
    """The outline (points, 2) with its first point again at the end."""
    return np.concatenate([outline, outline[:1]])


def ribbons(curves: Points, widths: Points) -> Array:
    """Outlines (n, 2 points, 2) of bands around curves (n, points, 2), widths (n, points)."""
    curves, widths = np.asarray(curves, np.float32), np.asarray(widths, np.float32)
    along = np.empty_like(curves)
    along[:, 1:-1] = curves[:, 2:] - curves[:, :-2]
    along[:, 0], along[:, -1] = curves[:, 1] - curves[:, 0], curves[:, -1] - curves[:, -2]
    along *= (widths / 2 / np.maximum(np.hypot(along[..., 0], along[..., 1]), 1e-6))[..., None]
    edge = across(along)
    return np.concatenate([curves + edge, (curves - edge)[:, ::-1]], 1)


def flow(
    rng: Rng, n: int, side: float, length: float, bend: float = 1.2, points: int = 28
) -> Array:
    """n curves (n, points, 2) that wander over the scene, `length` pixels long."""
    t = np.linspace(0, 1, points, dtype=np.float32)
    a = rng.normal(0, bend, (3, n, 1)).astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi, (n, 1)) + a[0] * t + a[1] * np.sin(2 * np.pi * t + a[2])
    path = np.cumsum(headings(angle) * (length / points), 1)
    middle = rng.uniform(0, side, (n, 1, 2))
    return np.asarray(path - path.mean(1, keepdims=True) + middle, np.float32)


def blob(rng: Rng, radius: float, side: float, points: int = 64) -> Array:
    """The outline (points, 2) of an organic shape, anywhere in the scene."""
    a = np.linspace(0, 2 * np.pi, points, endpoint=False)
    waves = np.arange(2, 6)[:, None]
    swell = rng.normal(0, 0.35, (4, 1)) / waves
    r = radius * (1 + (swell * np.cos(waves * a + rng.uniform(0, 6.3, (4, 1)))).sum(0))
    stretch, turn = rng.uniform(0.5, 1), rng.uniform(0, np.pi)
    x, y = r * np.cos(a), r * np.sin(a) * stretch
    turned = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], 1)
    return np.asarray(turned + rng.uniform(0, side, 2), np.float32)
