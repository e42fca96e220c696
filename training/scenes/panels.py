"""Scenes of several panels."""

from __future__ import annotations

import numpy as np

from sketchify_rt.image import Gray
from training.scenes import pen
from training.scenes.canvas import INK, PAPER, Points, Rng, side_of
from training.scenes.geometry import blob
from training.scenes.lettering import balloon
from training.scenes.line_art import line_art, night
from training.scenes.tones import flat


def panels(page: Gray, rng: Rng) -> None:
    """Four panels with gutters between, cut straight or at a slant."""
    side = side_of(page)
    cuts = rng.uniform(0.2, 0.8, 3) * side
    slant = rng.normal(0, 0.06) * side if rng.random() < 0.4 else 0.0
    gutter, frame = rng.uniform(4, 14), rng.uniform(2, 5)
    for cell in _cells(side, cuts, slant, gutter):
        layer = np.full_like(page, PAPER)
        art = rng.random()
        if art < 0.15:
            layer[:] = INK
        elif art < 0.3:
            night(layer, rng)
        elif art < 0.85:
            line_art(layer, rng)
        if art > 0.6:
            tone = flat(rng)
            pen.within(layer, blob(rng, 0.4 * side, side), np.minimum(layer, tone))
        pen.within(page, cell, layer)
        if rng.random() < 0.9:
            pen.loop(page, cell, frame)
    if rng.random() < 0.5:
        balloon(page, rng)


def _cells(side: float, cuts: Points, slant: float, gutter: float) -> list[Points]:
    """The panels' corners (4, 2) clockwise: two rows, each cut in two; the outer edges not seen."""
    near, far = -20.0, side + 20.0
    row, above, below = cuts  # y between the rows, x within each
    inward = gutter / 2 * np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])
    cells = []
    for top, bottom, cut in (
        ((near, near), (row - slant, row + slant), above),
        ((row - slant, row + slant), (far, far), below),
    ):
        for left, right in ((near, cut), (cut, far)):
            corners = [(left, top[0]), (right, top[1]), (right, bottom[1]), (left, bottom[0])]
            cells.append(corners + inward)
    return cells
