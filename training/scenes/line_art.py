"""Scenes of lines: motifs over each other, alone, in white on black, or with blacks spotted."""

from __future__ import annotations

import cv2
import numpy as np

from sketchify_rt.image import Gray
from training.scenes import pen
from training.scenes.canvas import PAPER, Motif, Rng, side_of
from training.scenes.figures import building, eyes, foliage, hair, shapes
from training.scenes.geometry import blob, flow
from training.scenes.strokes import feathering, focus_lines, long_strokes, ruled, speed_lines
from training.scenes.textures import contour_lines

_MOTIFS: tuple[tuple[Motif, float], ...] = (
    (long_strokes, 0.13),
    (shapes, 0.18),
    (hair, 0.13),
    (eyes, 0.1),
    (building, 0.1),
    (speed_lines, 0.06),
    (focus_lines, 0.04),
    (feathering, 0.1),
    (ruled, 0.06),
    (contour_lines, 0.05),
    (foliage, 0.05),
)


def line_art(page: Gray, rng: Rng) -> None:
    """One to four motifs over each other."""
    weights = np.array([weight for _, weight in _MOTIFS])
    for i in rng.choice(len(_MOTIFS), int(rng.choice((1, 2, 2, 3, 4))), replace=False, p=weights):
        _MOTIFS[i][0](page, rng)


def line_art_over(page: Gray, rng: Rng) -> None:
    """Line art whose paper is clear: it darkens what is there."""
    layer = np.full_like(page, PAPER)
    line_art(layer, rng)
    cv2.multiply(page, layer, page, scale=1 / 255)


def night(page: Gray, rng: Rng) -> None:
    """White lines on black."""
    line_art(page, rng)
    np.subtract(255, page, out=page)


def solid_blacks(page: Gray, rng: Rng) -> None:
    """Spotted blacks, with highlights left out."""
    side = side_of(page)
    line_art(page, rng)
    for _ in range(int(rng.integers(1, 4))):
        outline = blob(rng, rng.uniform(0.15, 0.45) * side, side)
        pen.fill(page, [outline])
        layer = page.copy()
        n = int(rng.integers(2, 10))
        pen.strokes(layer, flow(rng, n, side, 0.5 * side), rng.uniform(1, 4), rng, PAPER)
        pen.within(page, outline, layer)
